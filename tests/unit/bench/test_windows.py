"""`bench.windows` at a tiny size."""

import json
from pathlib import Path

import pytest

from bench.windows import main


@pytest.mark.long
def test_the_table_has_every_window_of_the_full_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--series", "10", "--minutes", "20", "--repeat", "1"]
    assert main([*given, "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line[:14].split() for line in shown[2:5]] == [
        *(["1m"], ["1m", "15m"], ["1m", "15m", "1h"])
    ]
    document = json.loads((tmp_path / "windows.json").read_text())
    assert set(document["costs"]) == {"60", "6"}
    assert len(document["costs"]["6"]) == 6
