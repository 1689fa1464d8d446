"""The city job on polars, whatever client brings the records."""

from collections.abc import Sequence

import polars as pl

from bench.peers.contract import THRESHOLD
from bench.peers.polars_windows import Windows
from bench.peers.totals import Totals

SCHEMA = {
    "device": pl.String,
    "property": pl.String,
    "time": pl.Int64,
    "value": pl.Float64,
}


class CityJob:
    """Folds record values, given by partition, and adds up the windows that close."""

    def __init__(self, partitions: int) -> None:
        value = pl.col("value")
        self._windows = Windows(
            ("device", "property"),
            {
                "n": pl.len(),
                "total": value.sum(),
                "low": value.min(),
                "high": value.max(),
            },
            {
                "n": pl.col("n").sum(),
                "total": pl.col("total").sum(),
                "low": pl.col("low").min(),
                "high": pl.col("high").max(),
            },
            partitions,
        )
        self._totals = Totals()

    def add(self, partition: int, values: Sequence[bytes]) -> None:
        # One parse of many lines; keys that are not in the schema are skipped.
        self._windows.add(partition, pl.read_ndjson(b"\n".join(values), schema=SCHEMA))

    def close(self) -> None:
        closed = self._windows.close()
        if closed is None:
            return
        mean = pl.col("total") / pl.col("n")
        sums = closed.group_by("start").agg(
            pl.len(),
            pl.sum("n", "low", "high"),
            mean.sum().alias("mean"),
            (mean > THRESHOLD).sum().alias("alerts"),
        )
        for start, windows, *measures in sums.iter_rows():
            self._totals.add_windows(start, windows, *measures)

    def tell(self) -> None:
        self._totals.tell(self._windows.late)
