"""What `run` and `replay` show while they work and when they are done."""

from streamproc.cli.console import Bar, out, print_json
from streamproc.core.values import Emission, Records
from streamproc.runtime.observer import Observer, Totals


class Shown(Observer):
    """Moves a progress bar."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._records = 0

    def stepped(self, records: Records, emission: Emission, seconds: float) -> None:
        """Move on by a batch."""
        self._records += len(records)
        self._bar.to(self._records)


def show_summary(totals: Totals, seconds: float, *, as_json: bool) -> None:
    """Print what was done, for people or for machines."""
    summary = {
        "records": totals.records,
        "readings": totals.readings,
        "late": totals.late,
        "quarantined": totals.quarantined,
        "ignored": totals.ignored,
        "windows": totals.windows,
        "alerts": totals.alerts,
        "files": totals.files,
        "commits": totals.commits,
        "seconds": round(seconds, 3),
        "readings_per_second": round(totals.readings / seconds) if seconds else 0,
    }
    if as_json:
        print_json(summary)
    else:
        out.print(", ".join(f"{key} {value:,}" for key, value in summary.items()))
