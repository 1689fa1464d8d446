"""What may follow what in a commit log, what may be swept, how files are named."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.core.chain import (
    NO_RECORD,
    Chain,
    Draft,
    Genesis,
    Head,
    genesis_record,
    next_record,
    parse_hint,
    record_numbers,
    sweepable,
)
from streamproc.core.ports import StagedFile, StoredFile
from streamproc.core.record import (
    LogRecord,
    SnapshotRef,
    encode_record,
    file_stem,
    final_name,
    log_folder,
    record_name,
    sha256_hex,
    topic_label,
)
from streamproc.core.values import OffsetSpan
from streamproc.errors import LogCorrupt, SourceMismatch
from tests.support.logs import identity

GENESIS = genesis_record(identity(), Genesis(100, "start = latest"), "d" * 64, "a0")


def _head(record: LogRecord) -> Head:
    return Head(record, sha256_hex(encode_record(record)))


def _chain(*records: LogRecord) -> Chain:
    chain = Chain(identity(), NO_RECORD, NO_RECORD)
    for record in records:
        chain.append(encode_record(record), record_name(record.n))
    return chain


def _staged(name: str) -> StagedFile:
    return StagedFile(
        staged=f"s/{name}",
        final=f"r/{name}",
        size=1,
        rows=1,
        sha256="0" * 64,
        dataset="readings",
        first_offset=100,
        last_offset=100,
    )


def _snapshot(n: int) -> SnapshotRef:
    return SnapshotRef(
        path=f"snap/{n}-a.arrow", sha256="0" * 64, size=1, state_version=1, n=n, next=0
    )


COMMIT = next_record(
    identity(), _head(GENESIS), Draft("commit", 110, [_staged("x")]), "a1"
)


def test_a_commit_continues_the_record_before_and_carries_what_it_does_not_change() -> (
    None
):
    first = next_record(
        identity(),
        _head(GENESIS),
        Draft("commit", 110, watermarks={"razlog": 5}, snapshot=_snapshot(1)),
        "a1",
    )
    second = next_record(identity("b"), _head(first), Draft("takeover", 110), "b0")

    assert (second.n, second.start, second.next) == (2, 110, 110)
    assert second.owner == "b"
    assert second.watermarks == {"razlog": 5}
    assert second.definition == GENESIS.definition
    assert second.snapshot == msgspec.structs.replace(_snapshot(1), next=110)
    assert second.files == ()


def test_only_commits_and_gaps_move_the_offsets() -> None:
    with pytest.raises(AssertionError):
        next_record(identity(), _head(GENESIS), Draft("timer", 101), "a1")
    with pytest.raises(AssertionError):
        next_record(identity(), _head(GENESIS), Draft("commit", 99), "a1")
    gap = next_record(identity(), _head(GENESIS), Draft("gap", 105), "a1")
    assert (gap.start, gap.next) == (100, 105)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prev_sha256": "0" * 64}, "predecessor"),
        ({"n": 2}, "follows record 0"),
        ({"start": 101}, "starts at offset 101"),
        ({"next": 99}, "go back"),
        ({"kind": "timer"}, "that moves"),
        ({"partition": 1}, "another job"),
        ({"topic_id": "other"}, "another job"),
        ({"version": 3}, "record version 3"),
        ({"kind": "checkpoint", "next": 100}, "what it replaces"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    change: dict[str, object], message: str
) -> None:
    chain = _chain(GENESIS)

    with pytest.raises(LogCorrupt, match=message):
        chain.append(encode_record(msgspec.structs.replace(COMMIT, **change)), "record")


def test_a_log_without_its_beginning_is_refused() -> None:
    with pytest.raises(LogCorrupt, match="records are missing"):
        _chain(COMMIT)


@given(st.integers(0, len(encode_record(GENESIS)) - 1))
def test_a_torn_record_is_refused(length: int) -> None:
    with pytest.raises(LogCorrupt, match="here"):
        Chain(identity(), NO_RECORD, NO_RECORD).append(
            encode_record(GENESIS)[:length], "here"
        )


def test_the_chain_keeps_what_a_start_needs() -> None:
    records = [GENESIS, COMMIT]
    for draft in (
        Draft("commit", 120, snapshot=_snapshot(2)),
        Draft("takeover", 120),
        Draft("commit", 130, [_staged("y")]),
        Draft("timer", 130),
    ):
        records.append(next_record(identity(), _head(records[-1]), draft, "a"))

    chain = _chain(*records)

    assert [r.n for r in chain.since_snapshot] == [4, 5]
    assert [r.n for r in chain.unpublished] == [1, 4]
    assert [ref.n for ref in chain.snapshots] == [2]
    chain.published(3)
    assert [r.n for r in chain.unpublished] == [4]
    behind_hint = Chain(identity(), 3, NO_RECORD)
    for record in records:
        behind_hint.append(encode_record(record), "record")
    assert [r.n for r in behind_hint.unpublished] == [4]


def test_a_hint_that_leads_means_that_records_were_lost() -> None:
    chain = Chain(identity(), 1, NO_RECORD)
    chain.append(encode_record(GENESIS), "record")

    with pytest.raises(LogCorrupt, match="the log ends at 0"):
        chain.check_hints()


def test_another_state_version_is_refused_until_a_snapshot_settles_it() -> None:
    chain = Chain(identity(state_version=2), NO_RECORD, NO_RECORD)
    chain.append(encode_record(GENESIS), "record")
    chain.check_refold()
    chain.append(encode_record(COMMIT), "record")

    with pytest.raises(LogCorrupt, match="state version 1, this program has 2"):
        chain.check_refold()


@pytest.mark.parametrize(
    ("data", "n"),
    [(None, -1), (b"", -1), (b"17\n", 17), (b"17", 17), (b"x", -1), (b"-3\n", -1)],
)
def test_a_hint_is_a_number_or_nothing(data: bytes | None, n: int) -> None:
    assert parse_hint(data) == n


def test_record_numbers_ignore_what_is_not_a_record() -> None:
    files = [StoredFile(f"f/log/{record_name(n)}", 1) for n in (1, 0, 2)]
    other = [StoredFile("f/log/tmp", 1), StoredFile("f/log/3.json", 1)]

    assert record_numbers([*other, *files], "f/log") == [0, 1, 2]


def test_only_decided_numbers_that_nothing_names_are_swept() -> None:
    names = ["5-a/x", "5-b/x", "6-a/y", "7-a/z", "notes/x", "5-a-b/x"]
    files = [StoredFile(f"s/{name}", 1) for name in names]

    swept = sweepable(files, "s", 6, frozenset({"s/5-b/x"}))

    assert swept == ["s/5-a/x", "s/6-a/y", "s/5-a-b/x"]


def test_names_of_published_files() -> None:
    stem = file_stem("telemetry.a", 3, 7, OffsetSpan(10, 20), "0123456789abcdef")

    assert stem == "telemetry.a-p3-n7-10-19-01234567"
    assert file_stem("t", 0, 7, OffsetSpan(10, 10), "a").endswith("-10-10-a")
    assert (
        final_name("readings", (("city", "razlog"), ("date", "2026-01-01")), stem)
        == f"readings/city=razlog/date=2026-01-01/{stem}.parquet"
    )


@pytest.mark.parametrize(
    "topic", ["", ".", "..", "a/b", "a\0", "ä", "a b", "x" * 250, "a\n"]
)
def test_a_name_that_is_no_topic_never_becomes_a_path(topic: str) -> None:
    with pytest.raises(SourceMismatch):
        log_folder("job", topic, "id", 0)
    with pytest.raises(SourceMismatch):
        file_stem(topic, 0, 0, OffsetSpan(0, 1), "a")


@pytest.mark.parametrize("value", ["", "..", "a/b", "a\0b", "=", "%2e", ".hidden"])
def test_a_value_outside_the_closed_lists_never_becomes_a_path(value: str) -> None:
    with pytest.raises(SourceMismatch):
        final_name("readings", (("city", value),), "stem")
    with pytest.raises(SourceMismatch):
        log_folder(value, "topic", "id", 0)


@given(st.text("abc._-", min_size=200, max_size=249), st.integers(0, 2**63 - 2))
def test_even_the_longest_topic_fits_a_file_name(topic: str, offset: int) -> None:
    span = OffsetSpan(offset, offset + 1)
    stem = file_stem(topic, 99_999, 10**12, span, "0" * 32)

    assert len(f"{stem}.parquet") <= 255
    assert topic_label(topic) != topic_label(f"{topic[:-1]}X")


def test_owners_that_have_only_opened_the_log_are_counted_until_one_does_more() -> None:
    records = [GENESIS]
    counts = [_chain(*records).openings]
    for draft in (
        Draft("takeover", 100),
        Draft("takeover", 100),
        Draft("commit", 130),
        Draft("takeover", 130),
    ):
        records.append(next_record(identity(), _head(records[-1]), draft, "a"))
        counts.append(_chain(*records).openings)

    assert counts == [1, 2, 3, 0, 1]
