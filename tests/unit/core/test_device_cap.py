"""A city that invents devices hits its own cap: counted, without room, and nobody else's trouble (F38)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.many_names import CAP, KNOWN, run

CHECKOUT = Path(__file__).parents[3]
MEBIBYTE = 1 << 20


def test_names_beyond_the_cap_are_refused_and_counted_and_take_no_state() -> None:
    few, many = run(CAP + 1), run(100_000)

    assert many["quarantined"] == {"razlog/device_cap": 100_000 - CAP}
    assert many["readings"]["razlog"] == CAP
    assert many["series"] == [CAP, KNOWN]
    assert many["state_bytes"] == few["state_bytes"]


@pytest.mark.fault(
    "F38",
    how="names beyond devices_max from one town",
    seen="refused and counted; the other town loses nothing",
)
def test_another_city_loses_nothing_by_it() -> None:
    found = run(100_000)

    assert found["readings"]["ange"] > 0
    assert not any(key.startswith("ange/") for key in found["quarantined"])


@pytest.mark.long
@pytest.mark.fault("F38", how="ten million invented names", seen="memory stays bounded")
def test_ten_million_names_take_a_bounded_amount_of_memory() -> None:
    """Beyond the first million, what grows is a decoder's table of two million names, and anew."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.support.many_names", "10000000"],
        cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    said = json.loads(found.stdout)
    grown = said["grown_bytes"] / MEBIBYTE
    sys.stdout.write(f"10 M names: {grown:.0f} MiB more, {said}\n")

    assert said["quarantined"] == {"razlog/device_cap": 10_000_000 - CAP}
    assert said["series"] == [CAP, KNOWN]
    assert said["grown_bytes"] < 512 * MEBIBYTE
