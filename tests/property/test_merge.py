"""The merge by event time against `sorted`."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.connectors.files.merge import Chunk, Sorted, merged
from streamproc.errors import InputError

Rows = list[int]
Named = list[tuple[int, int, int]]


class Opened:
    """Counts how many inputs are being read at a time."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0


def chunks(
    times: Rows, source: int, sizes: Sequence[int], opened: Opened
) -> Iterator[Chunk]:
    opened.now += 1
    opened.most = max(opened.most, opened.now)
    try:
        at = turn = 0
        while at < len(times):
            end = at + sizes[turn % len(sizes)]
            part = times[at:end]
            rows = pa.RecordBatch.from_pydict(
                {"source": [source] * len(part), "row": list(range(at, at + len(part)))}
            )
            yield Chunk(np.array(part, np.int64), rows)
            at, turn = end, turn + 1
    finally:
        opened.now -= 1


def inputs_of(
    files: Sequence[Rows], sizes: Sequence[int], opened: Opened, slack: int = 0
) -> list[Sorted]:
    return [
        Sorted(
            f"f{source}",
            times[0] - slack if times else 0,
            len(times),
            lambda times=times, source=source: chunks(times, source, sizes, opened),  # type: ignore[misc]  # bound now, not late
        )
        for source, times in enumerate(files)
    ]


def ran(batches: Iterator[pa.RecordBatch], files: Sequence[Rows]) -> Named:
    found = []
    for batch in batches:
        for one in batch.to_pylist():
            time = files[one["source"]][one["row"]]
            found.append((time, one["source"], one["row"]))
    return found


FILES = st.lists(
    st.lists(st.integers(0, 12), max_size=25).map(sorted), min_size=0, max_size=6
)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(FILES, SIZES, st.integers(0, 5))
def test_rows_come_by_time_then_input_then_row_however_they_are_chunked(
    files: list[Rows], sizes: list[int], slack: int
) -> None:
    opened = Opened()
    found = ran(merged(inputs_of(files, sizes, opened, slack)), files)
    assert found == sorted(
        (time, source, row)
        for source, times in enumerate(files)
        for row, time in enumerate(times)
    )
    assert opened.now == 0


@given(FILES, SIZES)
def test_rows_beyond_the_number_an_input_declares_are_left_alone(
    files: list[Rows], sizes: list[int]
) -> None:
    inputs = inputs_of(files, sizes, Opened())
    shorter = [
        Sorted(one.name, one.first_us, one.rows // 2, one.open) for one in inputs
    ]
    cut = [times[: len(times) // 2] for times in files]
    assert ran(merged(shorter), files) == ran(
        merged(inputs_of(cut, sizes, Opened())), cut
    )


def test_files_that_follow_one_another_are_not_open_together() -> None:
    opened = Opened()
    files = [list(range(day * 100, day * 100 + 90)) for day in range(50)]
    assert len(ran(merged(inputs_of(files, [40], opened)), files)) == 50 * 90
    assert opened.most <= 2


def test_an_input_that_ends_early_is_refused_by_name() -> None:
    (source,) = inputs_of([[1, 2, 3]], [2], Opened())
    longer = Sorted("short.csv", 1, 5, source.open)
    with pytest.raises(InputError, match=r"short\.csv: 2 rows fewer"):
        list(merged([longer]))
