"""Records and state of older programs are read; those of newer ones are refused with advice.

The fixtures are what older programs wrote: `log_v1_oldest` the first one that had a log (its counts
know no `ignored`), `log_v1` the last before checkpoints, `state_v1` the first one with a processor,
together with what that program answered to the records that came next.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from streamproc.core import definition as definitions
from streamproc.core import record_versions, state_versions
from streamproc.core.chain import NO_RECORD, Chain, Draft, Head, next_record
from streamproc.core.definition import STATE_VERSION, Definition
from streamproc.core.processor import PartitionProcessor
from streamproc.core.record import (
    LogRecord,
    SnapshotRef,
    decode_record,
    encode_record,
    sha256_hex,
)
from streamproc.core.record_versions import RECORD_VERSION
from streamproc.core.values import Emission
from streamproc.errors import LogCorrupt
from streamproc.runtime.partition_log import read_tables
from tests.support.logs import identity
from tests.support.processors import MINUTE, ORIGIN, T0, ZONES, S, step
from tests.support.readings import Reading, Record

FIXTURES = Path(__file__).parents[2] / "fixtures"


def _bytes(log: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FIXTURES / log).glob("*.json"))]


@pytest.mark.parametrize("log", ["log_v1_oldest", "log_v1"])
def test_a_log_of_version_1_holds_together_and_goes_on_in_this_version(
    log: str,
) -> None:
    chain = Chain(identity(), NO_RECORD, NO_RECORD)
    for data in _bytes(log):
        chain.append(data, log)

    assert chain.head is not None
    last = chain.head.record
    assert (last.n, last.next, last.version) == (4, 130, RECORD_VERSION)
    assert [len(r.files) for r in chain.unpublished] == [2, 1]
    assert [r.n for r in chain.unsent] == [1]
    assert [r.n for r in chain.since_snapshot] == [4]
    head = Head(last, sha256_hex(_bytes(log)[-1]))
    ours = next_record(identity(), head, Draft("takeover", 130), "new")
    chain.append(encode_record(ours), "ours")


def test_what_version_1_said_comes_through_unchanged() -> None:
    for log in ("log_v1_oldest", "log_v1"):
        for data in _bytes(log):
            old = json.loads(data)
            new = json.loads(encode_record(decode_record(data, log)))
            assert new.pop("squashed") is None
            assert (new.pop("by"), new.pop("partitions")) == ("", 0)
            assert (old.pop("version"), new.pop("version")) == (1, RECORD_VERSION)
            assert new["counts"].pop("ignored") == old["counts"].pop("ignored", 0)
            assert new == old


def _changed(data: bytes, **change: Any) -> bytes:
    return json.dumps({**json.loads(data), **change}).encode()


def test_a_record_of_a_newer_program_is_refused_with_advice() -> None:
    newer = _changed(_bytes("log_v1")[0], version=RECORD_VERSION + 1, colour="blue")

    with pytest.raises(LogCorrupt) as refused:
        decode_record(newer, "log/0")

    told = str(refused.value)
    assert told.startswith("log/0: ")
    assert f"version {RECORD_VERSION + 1}" in told
    assert f"up to {RECORD_VERSION}" in told
    assert "Start that one again" in told


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": -1},
        {"version": "1"},
        {"colour": "blue"},
        {"kind": "checkpoint"},
        {"n": "1"},
    ],
)
def test_what_version_1_never_wrote_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LogCorrupt, match="here"):
        decode_record(_changed(_bytes("log_v1")[0], **change), "here")


def test_there_is_a_step_from_every_version_of_a_record() -> None:
    assert sorted(record_versions.STEPS) == list(range(1, RECORD_VERSION))


def test_there_is_a_step_from_every_version_of_state() -> None:
    versions = list(range(1, STATE_VERSION))

    assert sorted(state_versions.SNAPSHOT_STEPS) == versions
    assert sorted(definitions.STEPS) == versions


# --- state -----------------------------------------------------------------------------


@pytest.mark.fault(
    "F42",
    how="a snapshot of the oldest version with open windows",
    seen="goes on as its program did",
)
def test_the_oldest_snapshot_is_restored_and_goes_on_as_its_program_did() -> None:
    folder = FIXTURES / "state_v1"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    definition = Definition.from_canonical((folder / "definition.json").read_bytes())
    tables = state_versions.up_to_date(
        read_tables((folder / "snapshot.arrow").read_bytes()), 1, "snapshot"
    )
    processor = PartitionProcessor.restore(ORIGIN, definition, ZONES, tables, 0)

    emission = step(processor, *(_record(*given) for given in expected["records"]))

    assert _rows(emission.aggregates) == _sorted(expected["aggregates"])
    assert _rows(processor.cut(1)) == _sorted(expected["late_parts"])
    assert emission.late.num_rows == expected["late"]
    assert _alerts(emission) == expected["alerts"]


def _record(offset: int, minute: int, value: float, device: str, name: str) -> Record:
    at = T0 + minute * MINUTE + offset * S // 2
    return Record(offset, (Reading(device, name, at, value),))


_COLUMNS = ("window", "device", "property", "start", "part", "count", "invalid")
_COLUMNS += ("sum", "last", "close_reason")  # type: ignore[assignment]  # longer


def _rows(batch: Any) -> list[list[Any]]:
    return _sorted(
        [
            [
                row[name].isoformat() if name == "start" else row[name]
                for name in _COLUMNS
            ]
            for row in batch.to_pylist()
        ]
    )


def _sorted(rows: list[list[Any]]) -> list[list[Any]]:
    return sorted(rows, key=lambda row: row[:5])


def _alerts(emission: Emission) -> list[list[Any]]:
    return [
        [a.alert_id, a.transition, a.state, a.rule, a.offset] for a in emission.alerts
    ]


def _snapshot(version: int) -> SnapshotRef:
    return SnapshotRef(
        path="s", sha256="0" * 64, size=1, state_version=version, n=1, next=9
    )


def _log(mine: int, snapshot: int, folded: int | None) -> Chain:
    """Return a log of another program: a snapshot, maybe a commit after it."""
    chain = Chain(identity(state_version=mine), NO_RECORD, NO_RECORD)
    data = _changed(_bytes("log_v1")[0], state_version=snapshot)
    chain.append(data, "0")

    def append(draft: Draft, version: int) -> LogRecord:
        assert chain.head is not None
        theirs = dataclasses.replace(identity(), state_version=version)
        record = next_record(theirs, chain.head, draft, "a")
        chain.append(encode_record(record), "n")
        return record

    append(Draft("commit", 109, snapshot=_snapshot(snapshot)), snapshot)
    if folded is not None:
        append(Draft("commit", 120), folded)
    return chain


def test_a_snapshot_from_a_drain_is_migrated_and_a_refold_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(state_versions.SNAPSHOT_STEPS, 1, lambda tables: tables)

    _log(2, 1, None).check_refold()
    _log(2, 2, 2).check_refold()
    with pytest.raises(LogCorrupt, match="drain with the old program"):
        _log(2, 1, 1).check_refold()


@pytest.mark.fault("F42", how="state of a newer program", seen="refused with advice")
def test_state_without_a_way_from_it_or_from_the_future_is_refused_with_advice() -> (
    None
):
    with pytest.raises(LogCorrupt, match="no migrator from 1"):
        _log(2, 1, None).check_refold()
    with pytest.raises(LogCorrupt, match="version 3, this program reads up to 2"):
        _log(2, 3, None).check_refold()
    with pytest.raises(LogCorrupt, match="version 3, this program reads up to 2"):
        _log(2, 2, 3).check_refold()


def test_steps_are_taken_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = state_versions.SNAPSHOT_STEPS
    one = pa.table({"x": [1]})
    monkeypatch.setitem(steps, 1, lambda tables: {**tables, "one": one})
    monkeypatch.setitem(steps, 2, lambda tables: {**tables, "two": tables["one"]})

    assert dict(state_versions.up_to_date({}, 1, "s", 3)) == {"one": one, "two": one}
    assert dict(state_versions.up_to_date({}, 3, "s", 3)) == {}
    with pytest.raises(LogCorrupt, match="no migrator"):
        state_versions.up_to_date({}, 0, "s", 3)
