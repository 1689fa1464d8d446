"""The UC2 job on polars, whatever client brings the records."""

import io
from collections.abc import Sequence

import polars as pl

from bench.peers.contract import FRAME_BYTES, UC2_SCHEMA
from bench.peers.polars_windows import Windows
from bench.peers.totals import Totals

SYNC = bytes(16)
COLUMNS = ["identifier", "timestamp", "valueInW"]


class Uc2Job:
    """Folds record values, given by partition, and adds up the windows that close."""

    def __init__(self, partitions: int) -> None:
        value = pl.col("value")
        self._windows = Windows(
            ("identifier",),
            {
                "n": pl.len(),
                "total": value.sum(),
                "squares": (value * value).sum(),
                "low": value.min(),
                "high": value.max(),
            },
            {
                "n": pl.col("n").sum(),
                "total": pl.col("total").sum(),
                "squares": pl.col("squares").sum(),
                "low": pl.col("low").min(),
                "high": pl.col("high").max(),
            },
            partitions,
        )
        self._totals = Totals()

    def add(self, partition: int, values: Sequence[bytes]) -> None:
        frame = pl.read_avro(container(values), columns=COLUMNS)
        self._windows.add(
            partition, frame.rename({"timestamp": "time", "valueInW": "value"})
        )

    def close(self) -> None:
        closed = self._windows.close()
        if closed is None:
            return
        mean = pl.col("total") / pl.col("n")
        sums = closed.group_by("start").agg(
            pl.len(),
            pl.sum("n", "total", "low", "high"),
            mean.sum().alias("mean"),
            (pl.col("squares") / pl.col("n") - mean * mean).sum().alias("variance"),
        )
        for start, windows, *measures in sums.iter_rows():
            self._totals.add_windows(start, windows, *measures)

    def tell(self) -> None:
        self._totals.tell(self._windows.late)


def container(values: Sequence[bytes]) -> io.BytesIO:
    """Return the records as an Avro file of one block, which polars reads at once.

    Record by record, as fastavro does it, costs ten times as much.
    """
    body = b"".join([value[FRAME_BYTES:] for value in values])
    schema = UC2_SCHEMA.encode()
    head = (
        b"Obj\1" + _long(1) + _long(11) + b"avro.schema" + _long(len(schema)) + schema
    )
    block = _long(len(values)) + _long(len(body)) + body
    return io.BytesIO(head + b"\0" + SYNC + block + SYNC)


def _long(number: int) -> bytes:
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
