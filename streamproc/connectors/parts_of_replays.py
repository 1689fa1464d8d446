"""Files of a replay of dead letters: as any, but its aggregate parts have a source of their own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from streamproc.core.ports import StagedFile, Store, TableWriter
from streamproc.core.values import Emission, OffsetSpan


class ReplayWriter:
    """`core.ports.TableWriter` before another one.

    Readings keep the source and offset of the refused record. Parts get `source`, so that
    they do not share a name with those of the log that refused it; and they are not
    `partial`: a replay ends, but it cuts no window short.
    """

    def __init__(self, writer: TableWriter, source: str) -> None:
        self._writer = writer
        self._source = source

    def append(self, emission: Emission) -> None:
        """See the port."""
        parts = self._own(emission.aggregates)
        self._writer.append(replace(emission, aggregates=parts))

    def append_aggregates(self, aggregates: pa.RecordBatch) -> None:
        """See the port."""
        self._writer.append_aggregates(self._own(aggregates))

    def buffered(self) -> tuple[int, int]:
        """See the port."""
        return self._writer.buffered()

    def write(
        self, store: Store, staging: str, stem: str, span: OffsetSpan
    ) -> Sequence[StagedFile]:
        """See the port."""
        return self._writer.write(store, staging, stem, span)

    def clear(self) -> None:
        """See the port."""
        self._writer.clear()

    def _own(self, parts: pa.RecordBatch) -> pa.RecordBatch:
        count = parts.num_rows
        codes: pa.Int32Array = pa.repeat(pa.scalar(0, pa.int32()), count)
        names: Any = pa.array([self._source], pa.string())
        columns: dict[str, Any] = dict(
            zip(parts.schema.names, parts.columns, strict=True)
        )
        columns["source"] = pa.DictionaryArray.from_arrays(codes, names)
        columns["partial"] = pa.repeat(pa.scalar(False), count)  # noqa: FBT003  (a value)
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=parts.schema)
