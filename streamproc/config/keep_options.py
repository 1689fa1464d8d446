"""Sections about what becomes of published files: compaction and retention."""

from typing import Annotated

from streamproc.config.base import Section, option
from streamproc.config.units import DAY_US, Duration, lasting

Kept = Annotated[Duration, lasting("1d", "3660d")] | None


class Compaction(Section):
    """`[compaction]`: when `streamproc compact` may rewrite a date's files."""

    closed_after_us: Annotated[Duration, lasting("0s", "366d")] = option(
        2 * DAY_US,
        "A local date is compacted, and may be deleted, this long after it has ended "
        "everywhere; what comes later is taken in by the next run.",
        shown="2d",
    )


class Retain(Section):
    """`[retain]`: how long dates are kept; `streamproc retain` deletes older ones whole."""

    readings_us: Kept = option(None, "Dates of readings/ older than this go.")
    aggregates_us: Kept = option(None, "Dates of aggregates/ older than this go.")
    alerts_us: Kept = option(None, "Dates of alerts/ older than this go.")
    late_us: Kept = option(None, "Dates of late/ older than this go.")
    quarantine_us: Kept = option(None, "Dates of quarantine/ older than this go.")

    def of(self, dataset: str) -> int | None:
        """Return how long a dataset's dates are kept, µs; None for ever."""
        kept: int | None = getattr(self, f"{dataset}_us")
        return kept
