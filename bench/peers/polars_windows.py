"""Tumbling windows by hand on polars frames, for the two programs that bring no engine.

Frames are reduced as they come; what a minute's frames left is folded once it closes. The
watermark is the least of what the partitions have reached, less the lateness.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from bench.peers.contract import LATENESS_MS, WINDOW_MS


class Windows:
    """The open windows. `first` reduces readings, `again` what `first` has made."""

    def __init__(
        self,
        keys: Sequence[str],
        first: Mapping[str, pl.Expr],
        again: Mapping[str, pl.Expr],
        partitions: int,
    ) -> None:
        self._keys = ["start", *keys]
        self._first = first
        self._again = again
        self._reached = dict.fromkeys(range(partitions), 0)
        self._parts: list[pl.DataFrame] = []
        self._open_from = 0
        self.late = 0

    def add(self, partition: int, readings: pl.DataFrame) -> None:
        """Fold readings of one partition, with `time` in milliseconds, into the windows."""
        time = pl.col("time")
        readings = readings.with_columns(start=time - time % WINDOW_MS)
        latest = readings["time"].max()
        assert isinstance(latest, int)
        self._reached[partition] = max(self._reached[partition], latest)
        kept = readings.filter(pl.col("start") >= self._open_from)
        self.late += len(readings) - len(kept)
        self._parts.append(kept.group_by(self._keys).agg(**self._first))

    def close(self) -> pl.DataFrame | None:
        """Return the windows that the watermark has passed since the last call, if any."""
        watermark = min(self._reached.values()) - LATENESS_MS
        open_from = watermark - watermark % WINDOW_MS
        if open_from <= self._open_from or not self._parts:
            return None
        self._open_from = open_from
        all_parts = pl.concat(self._parts)
        self._parts = [all_parts.filter(pl.col("start") >= open_from)]
        closed = all_parts.filter(pl.col("start") < open_from)
        return closed.group_by(self._keys).agg(**self._again)
