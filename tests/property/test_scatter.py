"""Splitting batches into files: every row once, in order, against a dictionary of lists."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streamproc.connectors.parquet_scatter import Route, split
from streamproc.core.schemas import AGGREGATE, READING, ROUTED_AGGREGATE, ROUTED_READING
from streamproc.kernels import scatter
from tests.support.tables import Row, batch, part, reading

CITIES = ("razlog", "nevers", "ange", "_unknown")
DAYS = (date(1969, 12, 31), date(1970, 1, 1), date(2023, 3, 26), date(9999, 12, 31))


def naive_split(rows: Sequence[Row], published: pa.Schema) -> dict[Route, list[Row]]:
    files: defaultdict[Route, list[Row]] = defaultdict(list)
    for row in rows:
        route = Route(row.get("window", ""), row["city"], row["date"])
        files[route].append({name: row[name] for name in published.names})
    return dict(files)


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    casted = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(casted, names=table.column_names).to_pylist()


def _check(
    batches: Sequence[Sequence[Row]], routed: pa.Schema, published: pa.Schema
) -> None:
    made = [batch(rows, routed) for rows in batches if rows]
    found = list(split(made, published))

    expected = naive_split([row for rows in batches for row in rows], published)
    assert [route for route, _ in found] == sorted(expected)
    for route, table in found:
        assert table.schema.equals(published)
        table.validate(full=True)
        assert _plain(table) == expected[route]
        for name in ("device", "property", "source"):
            used = set(table.column(name).to_pylist())
            for chunk in table.column(name).chunks:
                assert isinstance(chunk, pa.DictionaryArray)
                assert set(chunk.dictionary.to_pylist()) == used


place = st.fixed_dictionaries(
    {
        "city": st.sampled_from(CITIES),
        "date": st.sampled_from(DAYS),
        "device": st.sampled_from([f"d{i}" for i in range(6)]),
        "ordinal": st.integers(0, 3),
        "quality": st.integers(-128, 127),
        "flags": st.integers(0, 65535),
        "value": st.floats(allow_nan=False),
    }
)


@given(st.lists(st.lists(place, max_size=12), min_size=1, max_size=6))
def test_readings_are_split_as_the_slow_way_does(drawn: list[list[Row]]) -> None:
    if not any(drawn):
        return
    batches = [[{**reading(i), **row} for i, row in enumerate(rows)] for rows in drawn]

    _check(batches, ROUTED_READING, READING)


spot = st.fixed_dictionaries(
    {
        "window": st.sampled_from(["1m", "1h", "1d"]),
        "city": st.sampled_from(CITIES),
        "date": st.sampled_from(DAYS),
        "device": st.sampled_from(["d1", "d2", "d3"]),
        "mean": st.none() | st.floats(allow_nan=False),
        "sketch": st.none() | st.binary(max_size=5),
        "coverage": st.none() | st.sampled_from([0.0, 0.5, 1.0]),
        "partial": st.booleans(),
        "slots": st.integers(0, 2**64 - 1),
    }
)


@given(st.lists(st.lists(spot, max_size=8), min_size=1, max_size=4))
def test_aggregates_with_nulls_are_split_as_the_slow_way_does(
    drawn: list[list[Row]],
) -> None:
    if not any(drawn):
        return
    batches = [[{**part([1.0]), **row} for row in rows] for rows in drawn]

    _check(batches, ROUTED_AGGREGATE, AGGREGATE)


def test_slices_of_aggregates_with_nulls_are_split_like_what_they_were_cut_from() -> (
    None
):
    rows = [
        part(
            [1.0] * (i % 3),
            city=CITIES[i % 2],
            partial=i % 4 == 0,
            coverage=(None, 0.5)[i % 2],
        )
        for i in range(40)
    ]
    whole = batch(rows, ROUTED_AGGREGATE)

    cut = [whole.slice(3, 9), whole.slice(13, 20)]
    found = {route: _plain(table) for route, table in split(cut, AGGREGATE)}

    assert found == naive_split([*rows[3:12], *rows[13:33]], AGGREGATE)


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=5), st.booleans())
def test_what_is_the_same_in_every_row_is_told_from_what_is_not(
    sources: list[str], both_cities: bool
) -> None:
    cities = CITIES[: 1 + both_cities]
    batches = [
        [reading(2 * n + i, city=c, source=source) for i, c in enumerate(cities)]
        for n, source in enumerate(sources)
    ]

    _check(batches, ROUTED_READING, READING)


def test_many_dates_grow_the_table_of_groups() -> None:
    days = [date(1990, 1, 1) + timedelta(days=i % 700) for i in range(1400)]

    _check(
        [[{**reading(i), "date": day} for i, day in enumerate(days)]],
        ROUTED_READING,
        READING,
    )


def test_a_slice_of_a_batch_is_split_like_the_batch_it_was_cut_from() -> None:
    rows = [reading(i, city=CITIES[i % 2], device=f"d{i % 3}") for i in range(30)]
    cut = batch(rows, ROUTED_READING).slice(7, 11)

    found = {route: _plain(table) for route, table in split([cut], READING)}

    assert found == naive_split(rows[7:18], READING)


def test_a_single_file_copies_no_plain_column() -> None:
    made = batch([reading(i) for i in range(20_000)], ROUTED_READING)

    ((_, table),) = split([made], READING)

    def address(array: Any) -> int:
        return int(array.buffers()[1].address)

    for name in ("event_time", "value", "quality", "flags", "ingest_time", "offset"):
        assert address(table.column(name).chunk(0)) == address(made.column(name)), name


@given(st.integers(1, 3000), st.integers(-1, 2999), st.sampled_from("bhiq"))
def test_constant_sees_a_single_other_value(rows: int, other: int, kind: str) -> None:
    column = np.full(rows, 7, kind)
    if 0 <= other < rows:
        column[other] = 8
    column.flags.writeable = False

    assert scatter.constant(column) == (rows == 1 or not 0 <= other < rows)


@given(
    st.lists(
        st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-3, 3)), max_size=40
    )
)
def test_label_numbers_pairs_in_order_of_appearance(
    pairs: list[tuple[int, int]],
) -> None:
    major = np.array([a for a, _ in pairs], np.int32)
    minor = np.array([b for _, b in pairs], np.int32)
    for column in (major, minor):
        column.flags.writeable = False
    groups = np.empty(len(pairs), np.int32)
    keys, counts = np.empty(64, np.int64), np.zeros(64, np.int64)

    found = scatter.label(
        major, minor, np.full(128, -1, np.int32), keys, counts, 0, groups
    )

    order = list(dict.fromkeys(pairs))
    assert found == len(order)
    assert groups.tolist() == [order.index(pair) for pair in pairs]
    assert counts[:found].tolist() == [pairs.count(pair) for pair in order]
    assert [key >> 32 for key in keys[:found].tolist()] == [a for a, _ in order]


def test_label_goes_on_where_the_call_before_has_stopped() -> None:
    first, second = np.array([5, 6], np.int32), np.array([7, 6, 5], np.int32)
    state = (np.full(128, -1, np.int32), np.empty(64, np.int64), np.zeros(64, np.int64))
    known, found = 0, []
    for column in (first, second):
        column.flags.writeable = False
        groups = np.empty(len(column), np.int32)
        known = scatter.label(column, column, *state, known, groups)
        found.append(groups.tolist())

    assert found == [[0, 1], [2, 1, 0]]
    assert state[2][:known].tolist() == [2, 2, 1]


def test_label_says_when_there_are_more_groups_than_room() -> None:
    rows = np.arange(9, dtype=np.int32)
    rows.flags.writeable = False
    room = np.empty(8, np.int64)

    found = scatter.label(
        rows,
        rows,
        np.full(16, -1, np.int32),
        room,
        np.zeros(8, np.int64),
        0,
        np.empty(9, np.int32),
    )

    assert found == scatter.FULL
