"""The demo, as a newcomer runs it, but shorter."""

import json
import subprocess
import sys
from pathlib import Path

from streamproc.analytics.verify import verify


def test_the_demo_finds_every_reading_exactly_once(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "streamproc", "demo", "--seconds", "6"]

    found = subprocess.run(
        [*command, "--no-live", "--json", "--output", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert result["ledger"]["differences"] == []
    assert result["ledger"]["expected"] == result["totals"]["readings"] > 3_000
    assert result["totals"]["alerts"] > 0
    assert (folder / "ledger.parquet").is_file()
    assert verify(folder / "data").findings == ()
