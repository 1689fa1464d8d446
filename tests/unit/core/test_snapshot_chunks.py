"""A snapshot leaves in pieces that hold what the whole does, and none is large."""

from dataclasses import replace

import pyarrow as pa
import pytest

from streamproc.core import snapshot_write
from streamproc.core.definition import RuleSpec, WindowSpec
from streamproc.core.processor import PartitionProcessor
from streamproc.kernels.sketch import BINS
from streamproc.runtime.partition_log import read_tables, write_tables
from tests.support.processors import BASE, MINUTE, ORIGIN, T0, ZONES, S, one, step

DEFINITION = replace(
    BASE,
    windows=(*BASE.windows, WindowSpec("1h", 60 * MINUTE, 60 * MINUTE, 0, (0.5,))),
    rules=(RuleSpec("high", "pm10", None, "value > 50", None, 0, "warning"),),
    dedup=2,
)


def _processor(devices: int) -> PartitionProcessor:
    """Return one with open windows, sketches, late parts and alerts of many devices."""
    processor = PartitionProcessor(ORIGIN, DEFINITION, ZONES)
    records = [
        one(n + 1, T0 + n % 7 * MINUTE, float(n % 90), device=f"d{n % devices}")
        for n in range(3 * devices)
    ]
    step(processor, *records)
    return processor


def _written(processor: PartitionProcessor) -> bytes:
    out = pa.BufferOutputStream()
    write_tables(processor.snapshot_chunks(), out)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize("rows", [1, 3, 50, 51, 10_000])
def test_where_pieces_are_cut_changes_nothing(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = _processor(50)
    whole = processor.snapshot()
    assert all(whole[name].num_rows for name in ("series", "cells", "late"))

    monkeypatch.setattr(snapshot_write, "CHUNK_ROWS", rows)
    pieces = {n: list(parts) for n, parts in processor.snapshot_chunks().items()}
    tables = read_tables(_written(processor))

    for name, table in whole.items():
        assert pa.concat_tables(pieces[name]).equals(table), name
        assert tables[name].equals(table), name
    for name in ("series", "cells", "late"):
        assert max(piece.num_rows for piece in pieces[name]) <= rows
    again = PartitionProcessor.restore(ORIGIN, DEFINITION, ZONES, tables, 0)
    assert {n: t.to_pylist() for n, t in again.snapshot().items()} == {
        n: t.to_pylist() for n, t in whole.items()
    }


def test_an_empty_state_has_every_table() -> None:
    processor = PartitionProcessor(ORIGIN, DEFINITION, ZONES)

    tables = read_tables(_written(processor))

    assert tables.keys() == processor.snapshot().keys()
    again = PartitionProcessor.restore(ORIGIN, DEFINITION, ZONES, tables, 0)
    assert step(again, one(1, T0 + S)).readings.num_rows == 1


def test_no_piece_is_larger_than_64_mib_where_sketches_span_fifty_binades() -> None:
    sketch = 8 * BINS * 50
    ints = 8 * (len(snapshot_write.CELL_INTS) + len(snapshot_write.CELL_FLOATS))

    assert snapshot_write.CHUNK_ROWS * (sketch + ints + 16) <= 64 << 20
