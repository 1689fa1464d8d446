"""Minutes of chaos and soak: the programs themselves, as they are run for hours before a release."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.real_data import CHECKOUT

LIMIT_S = 900


def chaos(folder: Path, minutes: int, seed: int, *only: str) -> dict[str, Any]:
    """Run the program with these faults alone; return its summary."""
    arguments = ["--minutes", str(minutes), "--seed", str(seed)]
    for kind in only:
        arguments += ["--only", kind]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments, "--folder", str(folder)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (folder / "summary.json").read_text(encoding="utf-8")
    summary: dict[str, Any] = json.loads(text)
    assert summary["findings"] == []
    return summary


@pytest.mark.long
@pytest.mark.fault(
    "F2",
    how="chaos: SIGKILL of one and of all of three workers at random",
    seen="O1 to O8 hold",
)
@pytest.mark.fault(
    "F4", how="chaos: SIGSTOP for 8 to 16 s, SIGCONT", seen="O1 to O8 hold"
)
def test_a_minute_of_killed_workers_loses_and_doubles_nothing(tmp_path: Path) -> None:
    kinds = ("kill", "zombie", "kill_all", "terminate")

    summary = chaos(tmp_path / "chaos", 1, 11, *kinds)

    assert sum(summary["faults"].values()) >= 3
    assert summary["counts"]["takeovers"] > 0


@pytest.mark.long
@pytest.mark.fault(
    "F17",
    how="chaos: one way silent, both ways silent, half open; all connections, 2 to 12 s",
    seen="O1 to O8 hold",
)
@pytest.mark.fault(
    "F16", how="chaos: 0.1 to 1 s each way; 5 and 20 kB/s", seen="O1 to O8 hold"
)
@pytest.mark.fault(
    "F12", how="chaos: broker killed, down for up to 10 s", seen="O1 to O8 hold"
)
def test_minutes_of_a_bad_network_lose_and_double_nothing(tmp_path: Path) -> None:
    kinds = ("network_hole", "network_one_way", "network_half_open", "network_delay")
    more = ("network_slow", "network_reset", "network_refuses", "broker_kill")

    summary = chaos(tmp_path / "chaos", 3, 12, *kinds, *more)

    # Each kind once a round; a slow machine may not come to the end of one.
    assert len(summary["faults"]) > len(kinds)


@pytest.mark.long
@pytest.mark.parametrize(
    "load",
    [["--rate", "500"], ["--bulk", "--rate", "20000", "--devices", "20000"]],
    ids=["mixed", "bulk"],
)
def test_a_soak_of_a_minute_reads_everything(tmp_path: Path, load: list[str]) -> None:
    """Whether anything grows takes an hour to tell."""
    folder = tmp_path / "soak"
    program = [sys.executable, "-m", "tests.soak", "--minutes", "1", "--every", "2"]
    subprocess.run(
        [*program, *load, "--folder", str(folder)],
        cwd=CHECKOUT,
        timeout=LIMIT_S,
        check=False,
    )

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["faults"] == []
    assert summary["records"] > 10_000
    assert 0 < summary["cpu"]["workers"] < summary["cpu"]["machine"]
    assert len(summary["lines"]) == 2 * 3 + 1
