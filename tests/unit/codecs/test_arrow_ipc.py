"""Arrow IPC: layouts that are read, streams that are refused."""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamproc.codecs import arrow_ipc
from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.arrow_layout import ArrowOptions, layout_of
from streamproc.codecs.columns import Sheet
from streamproc.codecs.encode import WireReading, encode_arrow
from streamproc.core.values import Flag, Reason
from streamproc.kernels import arrow_columns as kernels
from streamproc.kernels import bytes_dict
from streamproc.kernels.bytes_raw import PAD
from tests.support.wire import records_of, rows_of

READINGS = [
    WireReading("d1", "pm10", 1_769_853_600_000_001, 1.5),
    WireReading("d2", "no2", -1, -2.5, "ug/m3", -3),
    WireReading("d1", "no2", 2, 3.5, None, 2),
]
GOOD = encode_arrow(READINGS)
ROWS = [
    (0, "d1", "pm10", None, 1_769_853_600_000_001, 1.5, 1, 0),
    (1, "d2", "no2", "ug/m3", -1, -2.5, -3, 0),
    (2, "d1", "no2", None, 2, 3.5, 2, 0),
]
BASE: dict[str, Any] = {
    "device": pa.array(["d1", "d2"]),
    "property": pa.array(["p", "p"]),
    "time": pa.array([1, 2], pa.timestamp("us", "UTC")),
    "value": pa.array([1.5, 2.5]),
}


def stream(columns: dict[str, Any], **options: Any) -> bytes:
    batch = pa.RecordBatch.from_pydict(columns)
    return stream_of([batch], **options)


def stream_of(batches: list[pa.RecordBatch], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decode(payload: bytes | None, **options: Any) -> list[Any]:
    """Return the rows of one record between two good ones, or its reject's reason."""
    decoder = ArrowIpc(ArrowOptions(**options))
    decoded = decoder.decode(records_of([GOOD, payload, GOOD]))
    rows = rows_of(decoded)
    assert [row[1:] for row in rows if row[0] != 1] == ROWS + ROWS
    return [row[1:] for row in rows if row[0] == 1] or [
        r.reason for r in decoded.rejects
    ]


@pytest.mark.parametrize("trusted", [False, True])
def test_our_own_layout_is_read(trusted: bool) -> None:
    assert decode(GOOD, trusted_producers=trusted) == ROWS


@pytest.mark.parametrize(
    ("kind", "times", "expected"),
    [
        (pa.timestamp("s", "UTC"), [1, -2], [1_000_000, -2_000_000]),
        (pa.timestamp("ms", "Europe/Sofia"), [1, -2], [1_000, -2_000]),
        (pa.timestamp("ns", "UTC"), [1_999, -1], [1, -1]),
        (pa.int64(), [1, -2], [1_000, -2_000]),
        (pa.uint32(), [1, 2], [1_000, 2_000]),
    ],
)
def test_times_may_have_any_resolution(
    kind: Any, times: list[int], expected: list[int]
) -> None:
    found = decode(stream(BASE | {"time": pa.array(times, kind)}))

    assert [row[4] for row in found] == expected


def test_times_without_zone_need_a_declared_one() -> None:
    payload = stream(BASE | {"time": pa.array([1, 2], pa.timestamp("us"))})

    assert decode(payload) == [Reason.BAD_TIME]
    assert {row[7] for row in decode(payload, assume_zone="UTC")} == {Flag.TZ_ASSUMED}


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.uint32(), pa.large_string()),
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
def test_names_may_be_any_kind_of_string(kind: Any, trusted: bool) -> None:
    columns = BASE | {"device": BASE["device"].cast(kind), "unit": pa.array(["", None])}

    found = decode(stream(columns), trusted_producers=trusted)

    assert [(row[1], row[3]) for row in found] == [("d1", None), ("d2", None)]


@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.float16(), pa.int8(), pa.uint64(), pa.int64()]
)
def test_values_may_be_any_number(kind: Any) -> None:
    payload = stream(BASE | {"value": pa.array([1, 2]).cast(kind)})

    assert [row[5] for row in decode(payload)] == [1.0, 2.0]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_streams_are_read(codec: str) -> None:
    columns = BASE | {
        name: pa.concat_arrays([BASE[name]] * 500) for name in ("device", "property")
    }
    columns |= {
        name: pa.concat_arrays([BASE[name]] * 500) for name in ("time", "value")
    }

    assert len(decode(stream(columns, compression=codec))) == 1000


def test_a_stream_of_several_batches_numbers_its_readings_through() -> None:
    one = pa.RecordBatch.from_pydict(
        BASE | {"device": pa.array(["a", "b"]).dictionary_encode()}
    )
    two = pa.RecordBatch.from_pydict(
        BASE | {"device": pa.array(["b", "c"]).dictionary_encode()}
    )

    found = decode(stream_of([one, two]))

    assert [(row[0], row[1]) for row in found] == [
        (0, "a"),
        (1, "b"),
        (2, "b"),
        (3, "c"),
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": pa.array([None, "d"])}, Reason.MISSING_FIELD),
        ({"property": pa.array([None, "d"])}, Reason.MISSING_FIELD),
        (
            {"time": pa.array([None, 1], pa.timestamp("us", "UTC"))},
            Reason.MISSING_FIELD,
        ),
        ({"value": pa.array([None, 1.0])}, Reason.MISSING_FIELD),
        ({"device": pa.array(["", "d"])}, Reason.BAD_TEXT),
        ({"device": pa.array(["a\n", "d"])}, Reason.BAD_TEXT),
        ({"unit": pa.array(["u" * 257, "d"])}, Reason.BAD_TEXT),
        ({"device": pa.array([1, 2])}, Reason.WRONG_TYPE),
        ({"device": pa.array([b"a", b"b"])}, Reason.WRONG_TYPE),
        ({"time": pa.array(["a", "b"])}, Reason.WRONG_TYPE),
        ({"time": pa.array([1.0, 2.0])}, Reason.WRONG_TYPE),
        ({"value": pa.array(["1", "2"])}, Reason.WRONG_TYPE),
        ({"value": pa.array([True, False])}, Reason.WRONG_TYPE),
        ({"value": pa.array([1.0, float("nan")])}, Reason.BAD_VALUE),
        ({"value": pa.array([1.0, float("-inf")])}, Reason.BAD_VALUE),
        ({"quality": pa.array([1.0, 2.0])}, Reason.WRONG_TYPE),
        ({"quality": pa.array([1, 128])}, Reason.BAD_VALUE),
        ({"time": pa.array([1, 2**62])}, Reason.BAD_TIME),
        ({"time": pa.array([1, 2**64 - 1], pa.uint64())}, Reason.BAD_TIME),
        ({"time": pa.array([1, -(2**63)], pa.timestamp("s", "UTC"))}, Reason.BAD_TIME),
    ],
)
def test_a_fault_in_any_row_refuses_the_record(
    change: dict[str, Any], reason: Reason
) -> None:
    assert decode(stream(BASE | change)) == [reason]


@pytest.mark.parametrize("name", ["device", "property", "time", "value"])
def test_a_column_that_is_missing_refuses_the_record(name: str) -> None:
    rest = {key: column for key, column in BASE.items() if key != name}

    assert decode(stream(rest)) == [Reason.MISSING_FIELD]


def test_a_column_that_comes_twice_refuses_the_record() -> None:
    arrays = [*BASE.values(), BASE["value"]]
    batch = pa.RecordBatch.from_arrays(arrays, names=[*BASE, "value"])

    assert decode(stream_of([batch])) == [Reason.MALFORMED]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"x", Reason.MALFORMED),
        (b"ARROW1\0\0", Reason.MALFORMED),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", Reason.MALFORMED),
        (b"\xff\xff\xff\xff\0\0\0\0", Reason.MALFORMED),
        (b"\0" * 8_388_609, Reason.TOO_LARGE),
        (stream({name: column[:0] for name, column in BASE.items()}), Reason.EMPTY),
        (GOOD[:200], Reason.MALFORMED),
        (GOOD[:-60], Reason.MALFORMED),
    ],
    ids=range(10),
)
def test_what_is_no_stream_is_refused(payload: bytes | None, reason: Reason) -> None:
    assert decode(payload) == [reason]


def test_names_that_are_not_utf_8_are_refused() -> None:
    payload = stream(BASE | {"device": pa.array(["dddd", "eeee"])})

    assert decode(payload.replace(b"ddddeeee", b"dddd\xff\xff\xff\xff")) == [
        Reason.MALFORMED
    ]


def test_offsets_that_point_outside_are_refused() -> None:
    payload = stream(BASE | {"device": pa.array(["dddd", "eeee"])})
    offsets = struct.pack("<iii", 0, 4, 8)

    for hostile in ((0, 4, 800), (0, -4, 8), (0, 80, 8), (4, 0, 8)):
        changed = payload.replace(offsets, struct.pack("<iii", *hostile))
        assert changed != payload
        for trusted in (False, True):
            assert decode(changed, trusted_producers=trusted) == [Reason.MALFORMED]


def test_dictionary_indices_that_point_outside_are_refused() -> None:
    column = pa.array([3, 2, 1, 0] * 2, pa.int32())
    names = pa.DictionaryArray.from_arrays(column, pa.array(["a", "b", "c", "d"]))
    payload = stream(
        {
            "device": names,
            "property": names,
            "time": pa.array(range(8)),
            "value": pa.array(range(8)),
        }
    )
    indices = struct.pack("<8i", *[3, 2, 1, 0] * 2)
    changed = payload.replace(indices, struct.pack("<8i", *[3, 2, 1, 4_000_000] * 2))

    assert changed != payload
    for trusted in (False, True):
        assert decode(changed, trusted_producers=trusted) == [Reason.MALFORMED]


def test_a_decompression_bomb_is_refused_before_it_unpacks() -> None:
    count = 9_000_000
    columns = {
        "device": pa.DictionaryArray.from_arrays(
            pa.Array.from_buffers(pa.int8(), count, [None, pa.py_buffer(bytes(count))]),
            pa.array(["d"]),
        ),
        "value": pa.Array.from_buffers(
            pa.float64(), count, [None, pa.py_buffer(bytes(8 * count))]
        ),
    }
    payload = stream(columns, compression="zstd")
    assert len(payload) < 100_000

    before = pa.total_allocated_bytes()

    assert decode(payload) == [Reason.TOO_LARGE]
    assert pa.total_allocated_bytes() - before < 10_000_000


def test_a_compressed_buffer_that_lies_about_its_size_is_refused() -> None:
    for claimed in (2**40, 2**62, 8008, 8):
        expected = Reason.TOO_LARGE if claimed > 2**32 else Reason.MALFORMED
        assert decode(_claiming(claimed)) == [expected]


def _claiming(size: int) -> bytes:
    """Return a compressed stream whose buffers of 8,000 bytes claim another size."""
    count = 1000
    columns = {
        "device": pa.array(["d"] * count),
        "property": pa.array(["p"] * count),
        "time": pa.array([0] * count),
        "value": pa.array([float(k % 3) for k in range(count)]),
    }
    payload = stream(columns, compression="lz4")
    true = struct.pack("<q", 8 * count)
    assert payload.count(true) >= 2
    return payload.replace(true, struct.pack("<q", size))


def test_memory_that_a_process_has_not_got_is_no_fault_of_a_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # More than any machine has: as if there was none left.
    monkeypatch.setattr(arrow_ipc, "CONTENT_BYTES_MAX", 2**62)

    with pytest.raises(MemoryError):
        decode(_claiming(2**60))


def test_more_rows_than_the_content_has_room_for_are_refused() -> None:
    def packed(rows: int) -> bytes:
        name = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), ["d"])
        number = pa.array([1] * rows, pa.int8())
        return stream(
            {
                "device": name,
                "property": name,
                "time": pa.array([0] * rows, pa.int32()),
                "value": number,
            }
        )

    decoded = ArrowIpc().decode(records_of([packed(3), packed(10_000), packed(4)]))

    assert [row[0] for row in rows_of(decoded)] == [0] * 3 + [2] * 4
    assert [(one.row, one.reason) for one in decoded.rejects] == [(1, Reason.MALFORMED)]


def test_compressed_and_plain_streams_of_one_producer_are_read_alike() -> None:
    plain, packed = stream(BASE), stream(BASE, compression="lz4")

    decoded = ArrowIpc().decode(records_of([plain, packed, plain, packed]))

    assert decoded.rejects == ()
    assert {row[2:] for row in rows_of(decoded) if row[0] == 0} == {
        row[2:] for row in rows_of(decoded) if row[0] == 3
    }


def test_a_column_that_claims_nulls_without_a_map_of_them_is_doubtful() -> None:
    batch = pa.RecordBatch.from_pydict(
        BASE | {"unit": ["u", "u"], "quality": pa.array([1, 1], pa.int8())}
    )
    layout = layout_of(batch.schema, ArrowOptions())
    assert layout is not None
    words = layout.blank()
    assert layout.describe(batch, words)
    columns = words.reshape(kernels.COLUMNS, kernels.COLUMN_WORDS)
    sheet, codes = Sheet(), np.zeros(8, np.int32)
    copy = np.zeros(bytes_dict.NAME_BYTES_MAX + PAD, np.uint8)

    def read() -> int:
        sheet.begin(64)
        return kernels.read_columns(
            words, layout.rules, batch.num_rows, 0, codes, copy, sheet.words
        )

    assert read() == kernels.DONE
    for column in columns:
        column[kernels.NULLS] = 1
        assert read() == kernels.DOUBTFUL
        assert len(sheet) == 0
        column[kernels.NULLS] = 0
