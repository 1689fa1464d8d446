"""The bench of compaction measures what it says, at a tiny size."""

import json
from pathlib import Path

import pytest

from bench import compaction


def test_a_tiny_day_is_compacted_and_asked_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--devices", "20", "--commits", "12", "--partitions", "2", "--repeat", "1"]

    assert compaction.main([*given, "--output", str(tmp_path)]) == 0

    result = json.loads((tmp_path / "compaction.json").read_text())["result"]
    assert result["readings"] == 20 * 12 * 3
    assert result["files"] == [24, 1]
    assert result["readings_per_cpu_s"] > 0
    assert set(result["query_ms"]) == {
        "polars, folder",
        "polars, open_readings",
        "DuckDB, folder",
    }
    assert "720 readings" in capsys.readouterr().out
