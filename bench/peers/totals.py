"""How a program in Python tells what it found; `java/Totals.java` is its twin.

Knows the standard library only, because it is imported in each peer's own environment.
"""

import json
import sys


class Totals:
    """Sums over the closed windows, per minute in which they begin.

    A row is the number of windows and then the sums of what the README calls the job's
    measures, in that order.
    """

    def __init__(self) -> None:
        self._rows: dict[int, list[float]] = {}

    def add(self, start_ms: int, *measures: float) -> None:
        """Count one closed window."""
        self.add_windows(start_ms, 1, *measures)

    def add_windows(self, start_ms: int, windows: int, *sums: float) -> None:
        """Count many closed windows of one minute at once."""
        row = self._rows.get(start_ms)
        if row is None:
            self._rows[start_ms] = [windows, *sums]
            return
        row[0] += windows
        for place, measure in enumerate(sums, 1):
            row[place] += measure

    def tell(self, late: int | None = None) -> None:
        """Write the one line the suite compares; `late` where the system counts them."""
        _say({"minutes": self._rows, "late": late})


def first_record() -> None:
    """Say that the first record has reached the program: here start-up ends."""
    _say({"first": True})


def _say(document: dict[str, object]) -> None:
    out = sys.__stdout__  # the real one: some frameworks put their log in its place
    assert out is not None
    out.write(json.dumps(document) + "\n")
    out.flush()
