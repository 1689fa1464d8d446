import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.connectors.files import envelopes as module
from streamproc.connectors.files.envelopes import (
    Envelope,
    EnvelopeWriter,
    all_envelopes,
    is_envelopes,
    open_envelopes,
)
from streamproc.core.payloads import Payloads
from streamproc.core.values import NO_TIME, OffsetSpan, Records, TopicPartition
from streamproc.errors import InputError
from tests.support.files import put

A, B = TopicPartition("t.a", 0), TopicPartition("t.b", 3)


def envelope(
    origin: TopicPartition, offset: int, value: bytes | None = b"v"
) -> Envelope:
    return Envelope(
        origin.topic,
        origin.partition,
        offset,
        b"k",
        [("h", b"\x00")],
        1000 + offset,
        value,
    )


def written(path: Path, *items: Envelope) -> str:
    with EnvelopeWriter(str(path)) as writer:
        writer.write(items)
    return str(path)


def read(
    files: list[str], starts: dict[TopicPartition, int] | None = None
) -> list[Records]:
    known = starts or {}
    return list(open_envelopes(files, lambda origin: known.get(origin, 0)).batches())


def test_a_line_is_the_documented_object(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.ndjson",
        Envelope("t", 0, 12, None, [("h", b"\x00")], 1_700, b"{}"),
    )
    assert Path(path).read_bytes() == (
        b'{"topic":"t","partition":0,"offset":12,"key":null,"headers":[["h","AA=="]],'
        b'"timestamp":1700,"value_base64":"e30="}\n'
    )


@pytest.mark.parametrize("name", ["x.ndjson", "x.ndjson.gz", "x.ndjson.zst"])
def test_records_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    records = Records(
        A,
        np.array([3, 5], np.int64),
        np.array([1_000_000, NO_TIME], np.int64),
        Payloads.of([b"\xff\n", None]),
        Payloads.of([None, b""]),
        OffsetSpan(0, 6),
        [[("h", b"1"), ("h", b"2")], []],
    )
    for turn in ("one", "two"):
        with EnvelopeWriter(str(tmp_path / f"{turn}-{name}")) as writer:
            writer.write_records(records)
    first, second = (tmp_path / f"{turn}-{name}" for turn in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    (found,) = read([str(first)])
    assert found.offsets.tolist() == [3, 5]
    assert found.broker_us.tolist() == [1_000_000, NO_TIME]
    assert list(found.values) == list(records.values)
    assert list(found.keys) == list(records.keys)
    assert found.headers == records.headers
    assert (found.origin, found.span) == (A, OffsetSpan(0, 6))


def test_each_partition_is_a_source_of_its_own_over_several_files(
    tmp_path: Path,
) -> None:
    files = [
        written(tmp_path / "z.ndjson", envelope(A, 0), envelope(B, 7), envelope(A, 2)),
        written(tmp_path / "a.ndjson", envelope(B, 8), envelope(A, 3)),
    ]
    batches = read(files, {A: 1, B: 5})
    assert [(one.origin, one.offsets.tolist(), one.span) for one in batches] == [
        (B, [7], OffsetSpan(5, 8)),
        (A, [2], OffsetSpan(1, 3)),
        (B, [8], OffsetSpan(8, 9)),
        (A, [3], OffsetSpan(3, 4)),
    ]
    assert open_envelopes(files, lambda _: 0).partitions() == {A: 3, B: 2}


def test_what_was_committed_is_not_delivered_again(tmp_path: Path) -> None:
    path = written(tmp_path / "x.ndjson", *(envelope(A, at) for at in range(5)))
    assert read([path], {A: 5}) == []
    (rest,) = read([path], {A: 4})
    assert rest.offsets.tolist() == [4]


@pytest.mark.parametrize("again", [4, 3, -1, 2**63 - 1])
def test_an_offset_that_does_not_rise_is_refused_with_file_and_line(
    tmp_path: Path, again: int
) -> None:
    first = written(tmp_path / "a.ndjson", envelope(A, 4))
    second = written(tmp_path / "b.ndjson", envelope(B, 0), envelope(A, again))
    with pytest.raises(
        InputError, match=rf"b\.ndjson: line 2: offset {again} of t\.a/0 is not above 4"
    ):
        read([first, second], {A: 100})


@pytest.mark.parametrize(
    "broken",
    [
        b"{",
        b"[]",
        b'{"topic":"t"}',
        b'{"topic":"t","partition":0,"offset":1,"key":null,"headers":[],"timestamp":1,"value_base64":"%"}',
        b'{"topic":"t","partition":0,"offset":"1","key":null,"headers":[],"timestamp":1,"value_base64":null}',
        b'{"topic":"t","partition":0,"offset":1,"key":null,"headers":[],"timestamp":1,"value_base64":null,"x":1}',
        b'{"topic":"t","partition":-1,"offset":1,"key":null,"headers":[],"timestamp":1,"value_base64":null}',
        b'{"topic":"","partition":0,"offset":1,"key":null,"headers":[],"timestamp":1,"value_base64":null}',
        b"\xff",
    ],
)
def test_a_line_that_is_no_envelope_is_refused_with_file_and_line(
    tmp_path: Path, broken: bytes
) -> None:
    good = Path(written(tmp_path / "x.ndjson", envelope(A, 0))).read_bytes()
    path = put(tmp_path / "y.ndjson", good + b"\r\n" + broken + b"\n" + good)
    with pytest.raises(InputError, match=r"y\.ndjson: line 3: "):
        read([path])


def test_files_are_all_envelopes_or_none(tmp_path: Path) -> None:
    yes = written(tmp_path / "yes.ndjson.gz", envelope(A, 0))
    lines = put(tmp_path / "no.ndjson", b'{"device":"a"}\n')
    table = put(tmp_path / "no.csv.gz", gzip.compress(b"a,b\n1,2\n"))
    less = json.loads(gzip.decompress(Path(yes).read_bytes()))
    del less["key"]
    partial = put(tmp_path / "part.ndjson", json.dumps(less).encode())
    assert is_envelopes(yes)
    assert all_envelopes([yes, yes])
    assert not all_envelopes([lines, table, partial])
    with pytest.raises(
        InputError, match=r"yes\.ndjson\.gz holds envelopes and .*no\.ndjson does not"
    ):
        all_envelopes([yes, lines])
    with pytest.raises(InputError, match=r"no\.ndjson: line 1: not an envelope"):
        open_envelopes([lines], lambda _: 0)


def test_a_place_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("x.ndjson", "x.ndjson.gz", "x.ndjson.zst"):
        with pytest.raises(InputError, match="cannot be written"):
            EnvelopeWriter(str(tmp_path / "absent" / name))


@given(
    counts=st.lists(st.sampled_from([A, B]), max_size=30),
    block=st.integers(1, 900),
    rows=st.integers(1, 5),
)
def test_blocks_and_batches_never_change_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[TopicPartition],
    block: int,
    rows: int,
) -> None:
    items = [envelope(origin, at, b"%d" % at) for at, origin in enumerate(counts)]
    path = written(
        tmp_path_factory.mktemp("e") / "x.ndjson", envelope(A, 0), *items[1:]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block)
        patch.setattr(module, "_BATCH_ROWS_MAX", rows)
        batches = read([path])
    for origin in (A, B):
        ours = [one for one in batches if one.origin == origin]
        offsets = [offset for one in ours for offset in one.offsets.tolist()]
        expected = [at for at, named in enumerate(counts) if named == origin and at]
        assert offsets == ([0, *expected] if origin == A else expected)
        spans = [(one.span.start, one.span.end) for one in ours]
        assert [start for start, _ in spans] == [0, *[end for _, end in spans]][
            : len(spans)
        ]
        assert all(len(one) <= rows for one in ours)
