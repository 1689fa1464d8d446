"""Names tell who wrote a file, chains what of a folder is valid."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from streamproc.core.record import file_stem
from streamproc.core.settled import LogState
from streamproc.core.swaps import (
    CompactionChain,
    CompactionRecord,
    OutputEntry,
    OutputName,
    SourceName,
    Unit,
    decode_compaction,
    encode_compaction,
    is_at_rest,
    live_names,
)
from streamproc.core.values import OffsetSpan
from streamproc.errors import LogCorrupt

FOLDER = "readings/city=razlog/date=2026-01-01"
TOPICS = st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True).filter(
    lambda topic: topic not in {".", ".."}
)


def output(n: int, k: int = 0, of: int = 1) -> OutputEntry:
    name = str(OutputName("region", n, k, of, "abcdef12"))
    return OutputEntry(staged=f"s/{name}", name=name, size=1, rows=1, sha256="0")


def record(n: int, inputs: tuple[str, ...], **changes: Any) -> CompactionRecord:
    made = CompactionRecord(
        n=n,
        kind="compact",
        prev_sha256="",
        job="region",
        folder=FOLDER,
        attempt="abcdef12",
        owner="me",
        code_version="test",
        inputs=inputs,
        outputs=(output(n),),
        rows=1,
    )
    return replace(made, **changes)


def chain_of(*records: CompactionRecord) -> CompactionChain:
    chain = CompactionChain(FOLDER)
    for made in records:
        chained = replace(made, prev_sha256=chain.head_sha256)
        chain.append(encode_compaction(chained), "here")
    return chain


# --- names ----------------------------------------------------------------------------


@given(topic=TOPICS, partition=st.integers(0, 10**6), n=st.integers(0, 10**9))
def test_a_commits_name_is_read_back_and_is_no_compactors(
    topic: str, partition: int, n: int
) -> None:
    name = file_stem(topic, partition, n, OffsetSpan(3, 9), "0123456789") + ".parquet"

    assert SourceName.of(name) == SourceName(topic, partition, n, "01234567")
    assert OutputName.parsed(name) is None


@given(job=TOPICS, n=st.integers(0, 10**9), k=st.integers(0, 99))
def test_a_compactors_name_is_read_back_and_is_no_commits(
    job: str, n: int, k: int
) -> None:
    name = OutputName(job, n, k, 100, "01234567")

    assert OutputName.parsed(str(name)) == name
    assert SourceName.of(str(name)) is None


@pytest.mark.parametrize(
    ("folder", "unit"),
    [
        (FOLDER, Unit("readings", "", "razlog", date(2026, 1, 1))),
        (
            "aggregates/window=1h/city=_unknown/date=2026-02-28",
            Unit("aggregates", "1h", "_unknown", date(2026, 2, 28)),
        ),
        ("readings/city=razlog/date=2026-02-30", None),
        ("readings/city=razlog", None),
        ("indicators/pack=x/city=razlog/year=2026", None),
    ],
)
def test_a_folder_is_a_unit_or_none(folder: str, unit: Unit | None) -> None:
    assert Unit.of(folder) == unit
    assert unit is None or unit.folder == folder


def test_a_folder_is_at_rest_with_one_whole_compaction_and_nothing_else() -> None:
    two = [output(3, k, 2).name for k in range(2)]

    assert is_at_rest(two)
    assert not is_at_rest([])
    assert not is_at_rest(two[:1])
    assert not is_at_rest([*two, output(4).name])
    assert not is_at_rest([*two, "t-p0-n1-0-1-abcdef12.parquet"])


# --- chains ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n": 2}, "record 2 stands where record 1 belongs"),
        ({"folder": "late/city=a/date=2026-01-01"}, "a record of late"),
        ({"prev_sha256": "0"}, "does not name the bytes of the record before"),
        ({"inputs": (output(0).name, "a")}, "takes out a a second time"),
        ({"inputs": ("c",)}, "leaves .*compact.parquet of the record before as it is"),
        ({"version": 2}, "record version 2, this program reads 1"),
    ],
)
def test_a_record_that_does_not_follow_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    chain = chain_of(record(0, ("a", "b")))
    good = record(1, (output(0).name, "c"), prev_sha256=chain.head_sha256)

    with pytest.raises(LogCorrupt, match=expected):
        chain.append(encode_compaction(replace(good, **changes)), "here")
    chain.append(encode_compaction(good), "here")


def test_what_is_no_record_is_refused_with_its_place() -> None:
    with pytest.raises(LogCorrupt, match="here: not a compaction record"):
        decode_compaction(b"{}", "here")


@pytest.mark.parametrize(
    ("listed", "live", "unseen"),
    [
        (["a", "b", "c"], ["a", "b", "c"], []),
        (["a", "b", "c", "OUT"], ["OUT", "c"], []),
        (["b", "c", "OUT"], ["OUT", "c"], []),
        (["c", "OUT"], ["OUT", "c"], []),
        (["b", "c"], ["c"], ["OUT"]),
    ],
)
def test_inputs_hold_the_rows_until_all_outputs_are_seen(
    listed: list[str], live: list[str], unseen: list[str]
) -> None:
    out = output(0).name
    chain = chain_of(record(0, ("a", "b")))
    names = [out if name == "OUT" else name for name in listed]

    found, missing = live_names(names, [chain])

    assert sorted(found) == sorted(out if name == "OUT" else name for name in live)
    assert missing == [out if name == "OUT" else name for name in unseen]


def test_what_a_retain_record_deletes_is_gone_before_it_is_deleted() -> None:
    chain = chain_of(record(0, ("a", "b"), kind="retain", outputs=()))

    assert live_names(["a", "b", "c"], [chain]) == (["c"], [])


def test_two_jobs_in_one_folder_do_not_hide_each_others_files() -> None:
    mine = chain_of(record(0, ("a",)))
    theirs = OutputName("other", 0, 0, 1, "abcdef12")
    entry = replace(output(0), name=str(theirs))
    other = chain_of(record(0, ("b",), job="other", outputs=(entry,)))

    found, _ = live_names(["c", output(0).name, str(theirs)], [mine, other])

    assert found == sorted(["c", output(0).name, str(theirs)])


# --- what may be taken ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "settled"), [(0, True), (4, True), (5, False), (3, False), (8, False)]
)
def test_settled_is_below_head_and_snapshot_with_nothing_staged(
    n: int, settled: bool
) -> None:
    state = LogState("f", head=8, snapshot=4, staged=frozenset({3}))

    assert state.settled(n) == settled
    assert not LogState("f", head=8).settled(n)
    assert not LogState("f", head=n, snapshot=9).settled(n)
