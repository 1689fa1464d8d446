"""A root against the ledger of what was sent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (writes a ledger)
import pytest

from streamproc.analytics.ledger import compare
from streamproc.core.schemas import LEDGER
from streamproc.errors import InputError
from tests.support.tables import Row, batch, emission, reading, refused, town


def _ledger(path: Path, rows: list[Row]) -> Path:
    table = pa.Table.from_batches([batch(rows, LEDGER)])
    pq.write_table(table, path)
    return path


def _good(offset: int, **changes: Any) -> Row:
    return {"bad": False, **reading(offset), **changes}


def _bad(offset: int) -> Row:
    nothing = dict.fromkeys(("device", "property", "event_time", "value"))
    return {**_good(offset), **nothing, "bad": True}


LEDGER_ROWS = [_good(0), _good(1), _good(1, ordinal=1), _bad(2), _good(3), _bad(4)]
SOUND = emission(
    [reading(0), reading(1), reading(1, ordinal=1), reading(3)],
    quarantine=[refused(2), refused(4)],
)


def _root(tmp_path: Path, made: Any) -> Path:
    town(tmp_path / "root").commit(made, records=10)
    return tmp_path / "root"


def test_a_root_that_holds_what_was_sent_has_no_difference(tmp_path: Path) -> None:
    found = compare(
        _root(tmp_path, SOUND), _ledger(tmp_path / "l.parquet", LEDGER_ROWS)
    )

    assert found.ok
    assert (found.expected, found.refused, found.found, found.quarantined) == (
        4,
        2,
        4,
        2,
    )


Change = Callable[[list[Row], list[Row]], Any]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda r, q: r.pop(0), {"missing": ("telemetry.razlog/0@0.0",)}),
        (lambda r, q: r.pop(2), {"missing": ("telemetry.razlog/0@1.1",)}),
        (lambda r, q: r.append(reading(9)), {"extra": ("telemetry.razlog/0@9.0",)}),
        (lambda r, q: r.append(reading(3)), {"double": ("telemetry.razlog/0@3.0",)}),
        (
            lambda r, q: q.append({**refused(3), "x": r.pop(3)}),
            {"quarantined": ("telemetry.razlog/0@3.0",)},
        ),
        (lambda r, q: r[0].update(value=0.5), {"value": ("telemetry.razlog/0@0.0",)}),
        (
            lambda r, q: r[1].update(device="d9"),
            {"device": ("telemetry.razlog/0@1.0",)},
        ),
        (
            lambda r, q: r[1].update(property="no2"),
            {"property": ("telemetry.razlog/0@1.0",)},
        ),
        (
            lambda r, q: r[1].update(city="nevers"),
            {"city": ("telemetry.razlog/0@1.0",)},
        ),
        (
            lambda r, q: r[3].update(event_time=r[3]["event_time"] + 1),
            {"event_time": ("telemetry.razlog/0@3.0",)},
        ),
        (lambda r, q: q.pop(), {"accepted": ("telemetry.razlog/0@4",)}),
        (
            lambda r, q: q.append(refused(4)),
            {"double_quarantine": ("telemetry.razlog/0@4",)},
        ),
        (lambda r, q: q.append(refused(8)), {}),
        (lambda r, q: r.append(reading(2)), {"extra": ("telemetry.razlog/0@2.0",)}),
    ],
)
def test_every_difference_is_named_with_its_place(
    tmp_path: Path, change: Change, expected: dict[str, tuple[str, ...]]
) -> None:
    readings = [
        dict(row) for row in (reading(0), reading(1), reading(1, ordinal=1), reading(3))
    ]
    quarantine = [dict(refused(2)), dict(refused(4))]
    change(readings, quarantine)  # type: ignore[arg-type]  # rows are changed in place

    root = _root(tmp_path, emission(readings, quarantine=quarantine))
    found = compare(root, _ledger(tmp_path / "l.parquet", LEDGER_ROWS))

    assert {d.kind: d.examples for d in found.differences} == expected
    assert found.ok == (not expected)
    assert all(d.count == 1 for d in found.differences)


def test_an_empty_root_misses_everything(tmp_path: Path) -> None:
    found = compare(tmp_path / "nothing", _ledger(tmp_path / "l.parquet", LEDGER_ROWS))

    assert {d.kind: d.count for d in found.differences} == {"missing": 4, "accepted": 2}


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")

    for name in ("text", "other.parquet", "missing"):
        with pytest.raises(InputError, match="not a ledger"):
            compare(tmp_path, tmp_path / name)


def test_a_ledger_that_lists_a_reading_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="twice"):
        compare(tmp_path, _ledger(tmp_path / "l.parquet", [_good(0), _good(0)]))
