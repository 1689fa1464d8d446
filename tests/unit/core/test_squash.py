"""Squashing: what a checkpoint replaces, what stays, and what a start then reads."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from streamproc.core.archive import ArchiveWriter, read_archive, read_header
from streamproc.core.chain import Draft
from streamproc.core.effects import Create, Effect, Read
from streamproc.core.locate import checkpoint_of
from streamproc.core.ports import StagedFile
from streamproc.core.protocol import LogSession
from streamproc.core.record import (
    ArchiveRef,
    LogRecord,
    RecordCounts,
    decode_record,
    record_name,
    sha256_hex,
)
from streamproc.core.squash import Housekeeping
from streamproc.errors import Fenced, LogCorrupt
from tests.support.logs import DEFINITION, FOLDER, attempts, earliest, identity
from tests.support.records import an_alert
from tests.support.shelf import LOG, Shelf, play

EVERY = 4


def _session(owner: str = "a", every: int = EVERY) -> LogSession:
    return LogSession(FOLDER, identity(owner), attempts(owner), Housekeeping(every))


def _opened(shelf: Shelf, owner: str = "a", every: int = EVERY) -> LogSession:
    session = _session(owner, every)
    play(session.open(DEFINITION, earliest), shelf)
    return session


def _commit(
    shelf: Shelf, session: LogSession, *, snapshot: bool = True, **draft: Any
) -> LogRecord:
    """Commit one offset with one file, publish it, and let the session clean."""
    staging, _ = play(session.staging(), shelf)
    n = session.head.n + 1
    file = StagedFile(
        staged=f"{staging}/x",
        final=f"readings/{n}",
        size=1,
        rows=1,
        sha256="0" * 64,
        dataset="readings",
        first_offset=session.head.next,
        last_offset=session.head.next,
    )
    ref = None
    if snapshot:
        ref, _ = play(session.stage_snapshot(b"s", lambda: sha256_hex(b"s")), shelf)
    counts = RecordCounts(records=1, decoded=1, readings=1)
    given = Draft("commit", session.head.next + 1, [file], counts, ref, **draft)
    record, _ = play(session.commit(given), shelf)
    play(session.publish(), shelf)
    play(session.clean(), shelf)
    return record


def _numbers(shelf: Shelf) -> list[int]:
    return [int(path.removeprefix(f"{LOG}/")[:20]) for path in shelf.records()]


def _checkpoints(shelf: Shelf) -> list[LogRecord]:
    read = [decode_record(shelf.files[path], path) for path in shelf.records()]
    return [record for record in read if record.kind == "checkpoint"]


def _settle(shelf: Shelf, session: LogSession) -> None:
    """Clean until there is nothing left to do."""
    before = None
    while before != dict(shelf.files):
        before = dict(shelf.files)
        play(session.clean(), shelf)


def test_a_checkpoint_replaces_what_is_published_sent_and_in_a_snapshot() -> None:
    shelf = Shelf()
    session = _opened(shelf)
    for _ in range(EVERY - 1):
        _commit(shelf, session)
    (checkpoint,) = _checkpoints(shelf)
    _settle(shelf, session)

    assert checkpoint.n == EVERY
    assert checkpoint.squashed is not None
    assert checkpoint.squashed.through == EVERY - 1
    assert (checkpoint.start, checkpoint.next) == (EVERY - 1, EVERY - 1)
    assert checkpoint.squashed.totals.kinds == {"genesis": 1, "commit": EVERY - 1}
    assert checkpoint.squashed.totals.rows == {"readings": EVERY - 1}
    assert _numbers(shelf) == [0, EVERY], "genesis stays, and the checkpoint"
    assert shelf.files[f"{FOLDER}/squashed"] == b"%d\n" % (EVERY - 1)


def test_the_archive_has_every_record_byte_for_byte() -> None:
    shelf = Shelf()
    session = _opened(shelf, every=3)
    bytes_of: dict[str, bytes] = {}
    for _ in range(12):
        _commit(shelf, session)
        bytes_of |= {p: d for p, d in shelf.files.items() if p.startswith(LOG)}
    _settle(shelf, session)

    newest = _checkpoints(shelf)[-1].squashed
    assert newest is not None
    ref: ArchiveRef | None = newest.archive
    found: dict[int, bytes] = {}
    while ref is not None:
        data = shelf.files[ref.path]
        assert (len(data), sha256_hex(data)) == (ref.size, ref.sha256)
        header, texts = read_archive(data, ref.path)
        assert header == read_header(data, ref.path)
        found |= dict(zip(range(ref.first, ref.last + 1), texts, strict=True))
        ref = header.before
    assert sorted(found) == list(range(newest.through + 1))
    assert all(bytes_of[f"{LOG}/{record_name(n)}"] == d for n, d in found.items())


def test_the_next_owner_begins_at_the_checkpoint_and_knows_what_it_needs() -> None:
    shelf = Shelf()
    session = _opened(shelf)
    for _ in range(EVERY - 1):
        _commit(shelf, session)
    _commit(shelf, session, snapshot=False)
    snapshot, head = session.head.snapshot, session.head

    again = _opened(shelf, "b")

    assert again.began_at_checkpoint
    assert again.head.n == head.n + 1
    assert (again.head.next, again.head.snapshot) == (head.next, snapshot)
    assert [r.n for r in again.since_snapshot] == [head.n]
    _commit(shelf, again)
    with pytest.raises(Fenced):
        _commit(shelf, session)


@pytest.mark.parametrize("what", ["outbox", "snapshot"])
def test_squashing_waits_for_alerts_and_snapshots(what: str) -> None:
    shelf = Shelf()
    session = _opened(shelf)
    if what == "outbox":
        first = _commit(shelf, session, outbox=(an_alert(),))
    else:
        first = _commit(shelf, session, snapshot=False)
    for _ in range(3 * EVERY):
        _commit(shelf, session, snapshot=what == "outbox")
    assert not _checkpoints(shelf)

    play(session.note_sent(first.n), shelf)
    _commit(shelf, session)
    for _ in range(EVERY):
        play(session.clean(), shelf)

    assert _checkpoints(shelf)


def test_squashing_waits_for_what_is_not_published() -> None:
    shelf = Shelf()
    session = _opened(shelf)
    ref, _ = play(session.stage_snapshot(b"s", lambda: sha256_hex(b"s")), shelf)
    file = StagedFile("s/x", "readings/x", 1, 1, "0" * 64, "readings", 0, 0)
    play(session.commit(Draft("commit", 1, [file], snapshot=ref)), shelf)

    assert session.squashable() == -1
    play(session.publish(), shelf)
    assert session.squashable() == 1


def test_takeovers_and_the_records_before_them_are_never_deleted() -> None:
    shelf = Shelf()
    session = _opened(shelf, "a", every=3)
    for owner in "bc":
        for _ in range(5):
            _commit(shelf, session)
        session = _opened(shelf, owner, every=3)
    for _ in range(14):
        _commit(shelf, session)
    _settle(shelf, session)

    newest = _checkpoints(shelf)[-1].squashed
    assert newest is not None
    kept = [n for n in _numbers(shelf) if n <= newest.through]
    kinds = [decode_record(shelf.files[f"{LOG}/{record_name(n)}"], "") for n in kept]
    openings = [r.n for r in kinds if r.kind in {"genesis", "takeover"}]
    assert len(openings) == 3
    assert kept == sorted({*openings, *(n - 1 for n in openings[1:])})


def test_an_owner_that_slept_through_a_squash_is_fenced() -> None:
    shelf = Shelf()
    sleeper = _opened(shelf, "a")
    _commit(shelf, sleeper)
    awake = _opened(shelf, "b")
    for _ in range(4 * EVERY):
        _commit(shelf, awake)
    _settle(shelf, awake)

    with pytest.raises(Fenced):
        _commit(shelf, sleeper)
    assert not play(sleeper.still_ours(), shelf)[0]


def test_an_opening_under_a_squashed_name_is_noticed_and_begun_again() -> None:
    shelf = Shelf()
    owner = _opened(shelf, "a")
    _commit(shelf, owner)
    sleeper = _session("z")
    slept = False

    def overtaken(effect: Effect) -> Any:
        nonlocal slept
        if isinstance(effect, Create) and "/log/" in effect.path and not slept:
            slept = True
            for _ in range(4 * EVERY):
                _commit(shelf, owner)
            _settle(shelf, owner)
            assert effect.path not in shelf.files, "its name is free again"
        return shelf(effect)

    play(sleeper.open(DEFINITION, earliest), overtaken)

    assert sleeper.head.n == owner.head.n + 1
    assert sleeper.began_at_checkpoint
    assert sleeper.head.next == owner.head.next


def test_a_squash_while_the_log_is_read_is_not_corruption() -> None:
    shelf = Shelf()
    owner = _opened(shelf, "a")
    for _ in range(EVERY - 2):
        _commit(shelf, owner)
    busy = False

    def squashing(effect: Effect) -> Any:
        nonlocal busy
        if isinstance(effect, Read) and effect.path.startswith(LOG) and not busy:
            busy = True
            for _ in range(2 * EVERY):
                _commit(shelf, owner)
            _settle(shelf, owner)
        return shelf(effect)

    reader = _session("b")
    play(reader.open(DEFINITION, earliest), squashing)

    assert reader.head.next == owner.head.next


def test_whoever_asks_for_the_checkpoint_meanwhile_gets_the_one_before_or_after() -> (
    None
):
    shelf = Shelf()
    owner = _opened(shelf)
    for _ in range(2 * EVERY):
        _commit(shelf, owner)
    before, _ = play(checkpoint_of(LOG), shelf)
    pending = [1]

    def squashed_meanwhile(effect: Effect) -> Any:
        if isinstance(effect, Read) and pending:
            pending.clear()
            for _ in range(2 * EVERY):
                _commit(shelf, owner)
        return shelf(effect)

    found, _ = play(checkpoint_of(LOG), squashed_meanwhile)

    assert before is not None
    assert found is not None
    assert found == play(checkpoint_of(LOG), shelf)[0]
    assert found.through > before.through
    assert play(checkpoint_of(f"{FOLDER}/nothing"), shelf)[0] is None


def test_a_record_that_is_listed_and_not_there_twice_is_corruption() -> None:
    shelf = Shelf()
    _commit(shelf, _opened(shelf))

    def gone(effect: Effect) -> Any:
        return None if isinstance(effect, Read) else shelf(effect)

    with pytest.raises(LogCorrupt, match="listed, but not there"):
        play(checkpoint_of(LOG), gone)


@pytest.mark.parametrize("crash", range(1, 40))
def test_a_crash_in_the_middle_of_squashing_leaves_a_log_that_opens(crash: int) -> None:
    class Dead(Exception):
        pass

    shelf = Shelf()
    session = _opened(shelf)
    for _ in range(EVERY - 2):
        _commit(shelf, session)
    left = crash

    def dying(effect: Effect) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Dead
        return shelf(effect)

    def live() -> None:
        for _ in range(3):
            play(session.staging(), dying)
            ref, _ = play(session.stage_snapshot(b"s", lambda: sha256_hex(b"s")), dying)
            draft = Draft("commit", session.head.next + 1, snapshot=ref)
            play(session.commit(draft), dying)
            play(session.clean(), dying)

    with pytest.raises(Dead):
        live()

    again = _opened(shelf, "b")
    for _ in range(3 * EVERY):
        _commit(shelf, again)
    _settle(shelf, again)
    newest = _checkpoints(shelf)[-1].squashed
    assert newest is not None
    below = [n for n in _numbers(shelf) if n <= newest.through]
    assert len(below) <= 3, "leftovers of the dead owner are deleted, too"
    archives = [p for p in shelf.files if "/archive/" in p]
    assert len(archives) == len({p.rpartition("/")[2][:20] for p in archives})


def test_a_hole_behind_the_newest_checkpoint_is_refused() -> None:
    shelf = Shelf()
    session = _opened(shelf)
    for _ in range(3 * EVERY):
        _commit(shelf, session, snapshot=session.head.n < EVERY)
    (checkpoint,) = _checkpoints(shelf)
    del shelf.files[f"{LOG}/{record_name(checkpoint.n + 2)}"]

    with pytest.raises(LogCorrupt, match=record_name(checkpoint.n + 2)):
        _opened(shelf, "b")


def test_a_squash_hint_without_its_checkpoint_is_refused() -> None:
    shelf = Shelf()
    _opened(shelf)
    shelf.files[f"{FOLDER}/squashed"] = b"5\n"

    with pytest.raises(LogCorrupt):
        _opened(shelf, "b")


def test_a_start_asks_the_store_as_often_however_long_the_log_is() -> None:
    asked = []
    for commits in (60, 600):
        shelf = Shelf()
        session = _opened(shelf, every=16)
        for _ in range(commits):
            _commit(shelf, session)
        shelf.asked.clear()
        _opened(shelf, "b", every=16)
        asked.append(shelf.asked)

    for counts in asked:
        assert counts["List"] == 2
        assert counts["Read"] <= 3 + 2 * 16 + 3
        assert counts["Create"] == 1


def _texts(writer: ArchiveWriter, records: Iterable[bytes]) -> bytes:
    for record in records:
        writer.add(record)
    return writer.finish()


@pytest.mark.parametrize("cut", [0, 1, 10, -1, -9])
def test_a_torn_archive_is_refused(cut: int) -> None:
    whole = _texts(ArchiveWriter(None), [b"{}", b'{"a": 1}'])
    assert read_archive(whole, "here")[1] == [b"{}", b'{"a": 1}']

    with pytest.raises(LogCorrupt, match="here"):
        read_archive(whole[:cut], "here")
    with pytest.raises(LogCorrupt, match="here"):
        read_archive(whole + b"x", "here")


def test_owners_that_change_often_squash_all_the_same() -> None:
    shelf = Shelf()
    session = _opened(shelf, every=16)
    for n in range(80):
        _commit(shelf, session)
        _commit(shelf, session)
        session = _opened(shelf, f"o{n}", every=16)

    newest = _checkpoints(shelf)[-1].squashed
    assert newest is not None
    assert session.head.n - newest.through < 3 * 16
    tail = [n for n in _numbers(shelf) if n > newest.through]
    assert len(tail) < 3 * 16


def test_equal_records_give_equal_archives() -> None:
    first, second = (_texts(ArchiveWriter(None), [b"{}"]) for _ in range(2))

    assert first == second


def test_a_checkpoint_that_replaces_what_follows_it_is_refused() -> None:
    shelf = Shelf()
    session = _opened(shelf)
    for _ in range(EVERY - 1):
        _commit(shelf, session)
    (checkpoint,) = _checkpoints(shelf)
    assert checkpoint.squashed is not None
    squashed = msgspec.structs.replace(checkpoint.squashed, through=checkpoint.n)
    path = f"{LOG}/{record_name(checkpoint.n)}"
    wrong = msgspec.structs.replace(checkpoint, squashed=squashed)
    shelf.files[path] = msgspec.json.encode(wrong)

    with pytest.raises(LogCorrupt):
        _opened(shelf, "b")


def test_as_many_snapshots_stay_as_is_wanted() -> None:
    shelf = Shelf()
    keeping = Housekeeping(squash_every=EVERY, snapshots=3)
    session = LogSession(FOLDER, identity(), attempts("a"), keeping)
    play(session.open(DEFINITION, earliest), shelf)
    for _ in range(3 * EVERY):
        _commit(shelf, session)
    play(session.clean(), shelf)

    assert len([path for path in shelf.files if "/snap/" in path]) == 3
    again = LogSession(FOLDER, identity("b"), attempts("b"), keeping)
    play(again.open(DEFINITION, earliest), shelf)
    _commit(shelf, again)
    assert len([path for path in shelf.files if "/snap/" in path]) == 3
