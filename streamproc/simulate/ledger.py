"""The ledger: every reading that was sent, so that an outsider can check any result."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (the ledger is a file of the simulator)

from streamproc.core.schemas import LEDGER
from streamproc.simulate.wire import WireRecord

ROWS_PER_GROUP = 200_000


class LedgerWriter:
    """Writes `core.schemas.LEDGER` rows as Parquet; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: dict[str, list[Any]] = {name: [] for name in LEDGER.names}
        self._writer: pq.ParquetWriter | None = None
        self.readings = 0
        self.refused = 0

    def __enter__(self) -> Self:
        """Create the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._path, LEDGER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what is left and close."""
        assert self._writer is not None
        self._flush()
        self._writer.close()

    def add(self, record: WireRecord, offset: int) -> None:
        """Add every reading of an acknowledged record."""
        columns = self._columns
        source = f"{record.topic}/{record.partition}"
        for ordinal, reading in enumerate(record.readings):
            columns["source"].append(source)
            columns["offset"].append(offset)
            columns["ordinal"].append(ordinal)
            columns["city"].append(record.city)
            columns["device"].append(reading.device)
            columns["property"].append(reading.property)
            columns["event_time"].append(reading.time_us)
            columns["value"].append(reading.value)
            columns["bad"].append(record.refused)
        self.readings += len(record.readings)
        self.refused += record.refused
        if len(columns["source"]) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        assert self._writer is not None
        arrays = []
        for field in LEDGER:
            values = pa.array(self._columns[field.name])
            arrays.append(
                values.cast(field.type) if len(values) else pa.array([], field.type)
            )
            self._columns[field.name] = []
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=LEDGER))
