"""The protocol's decisions, fact by fact, without a store."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from streamproc.core.chain import Draft, Genesis, Head, genesis_record, next_record
from streamproc.core.create import UNKNOWN_MAX, create_record
from streamproc.core.effects import (
    Create,
    Effect,
    List,
    Publish,
    Reached,
    Read,
    Replace,
    Settle,
)
from streamproc.core.ports import Created, StagedFile, StoredFile
from streamproc.core.protocol import LogSession
from streamproc.core.record import (
    LogRecord,
    decode_record,
    encode_record,
    record_name,
    sha256_hex,
)
from streamproc.errors import Fenced, LogCorrupt, StoreFault, Unreachable
from tests.support.logs import DEFINITION, FOLDER, attempts, earliest, identity
from tests.support.records import an_alert
from tests.support.shelf import Shelf, play

T = TypeVar("T")
LOG = f"{FOLDER}/log"
RECORD = genesis_record(identity(), Genesis(0, ""), "d", "mine")
OTHERS = genesis_record(identity("b"), Genesis(0, ""), "d", "others")


def _scripted(*facts: Any) -> Callable[[Effect], Any]:
    script = iter(facts)
    return lambda _: next(script)


def _session(owner: str = "a", **change: Any) -> LogSession:
    return LogSession(FOLDER, identity(owner, **change), attempts(owner))


def _open(shelf: Callable[[Effect], Any], session: LogSession) -> list[Effect]:
    return play(session.open(DEFINITION, earliest), shelf)[1]


def _draft(session: LogSession, *names: str) -> Draft:
    files = [
        StagedFile(
            staged=f"{FOLDER}/staging/{session.head.n + 1}-{session.attempt}/{name}",
            final=f"readings/{name}",
            size=1,
            rows=1,
            sha256="0" * 64,
            dataset="readings",
            first_offset=0,
            last_offset=0,
        )
        for name in names
    ]
    return Draft("commit", session.head.next + 1, files)


# --- create ----------------------------------------------------------------------------


def test_created_is_ours() -> None:
    assert play(create_record(LOG, RECORD), _scripted(Created.CREATED))[0] is True


def test_exists_is_ours_if_it_carries_our_attempt() -> None:
    mine = _scripted(Created.EXISTS, encode_record(RECORD))
    others = _scripted(Created.EXISTS, encode_record(OTHERS))

    assert play(create_record(LOG, RECORD), mine)[0] is True
    assert play(create_record(LOG, RECORD), others)[0] is False


def test_unknown_is_read_back_and_tried_again_until_it_is_known() -> None:
    facts = _scripted(
        Created.UNKNOWN, [], None, Created.UNKNOWN, [], encode_record(RECORD)
    )

    ours, effects = play(create_record(LOG, RECORD), facts)

    assert ours is True
    assert [type(effect) for effect in effects] == [
        Create,
        List,
        Read,
        Create,
        List,
        Read,
    ]


def test_unknown_may_turn_out_to_be_another_s() -> None:
    facts = _scripted(Created.UNKNOWN, [], encode_record(OTHERS))

    assert play(create_record(LOG, RECORD), facts)[0] is False


def test_a_store_that_never_tells_is_given_up_on() -> None:
    facts = _scripted(*[Created.UNKNOWN, [], None] * UNKNOWN_MAX)

    with pytest.raises(Unreachable):
        play(create_record(LOG, RECORD), facts)


def test_a_store_that_contradicts_itself_is_not_believed() -> None:
    with pytest.raises(StoreFault):
        play(create_record(LOG, RECORD), _scripted(Created.EXISTS, None, []))


def test_a_record_that_was_squashed_before_it_could_be_read_was_another_s() -> None:
    newer = [StoredFile(f"{LOG}/{record_name(7)}", 1)]
    facts = _scripted(Created.EXISTS, None, newer)

    assert play(create_record(LOG, RECORD), facts)[0] is False


def test_our_attempt_with_other_bytes_is_corruption() -> None:
    changed = encode_record(RECORD).replace(b'"note": ""', b'"note": "x"')

    with pytest.raises(LogCorrupt):
        play(create_record(LOG, RECORD), _scripted(Created.EXISTS, changed))


# --- open ------------------------------------------------------------------------------


def test_a_new_log_begins_with_genesis_after_its_definition() -> None:
    shelf, session = Shelf(), _session()

    effects = _open(shelf, session)

    assert session.head.kind == "genesis"
    assert session.head.definition == DEFINITION.sha256()
    created = [effect.path for effect in effects if isinstance(effect, Create)]
    assert created == [
        f"{FOLDER}/definitions/{DEFINITION.sha256()}.json",
        f"{LOG}/{record_name(0)}",
    ]
    assert play(session.definition(DEFINITION.sha256()), shelf)[0] == DEFINITION


def test_genesis_is_not_asked_where_there_is_a_log() -> None:
    shelf, second = Shelf(), _session("b")
    _open(shelf, _session())

    def refuse() -> Genesis:
        raise AssertionError

    play(second.open(DEFINITION, refuse), shelf)

    assert second.head.kind == "takeover"
    assert second.head.n == 1


def test_a_lost_race_for_the_takeover_starts_over_behind_the_winner() -> None:
    shelf, rival, session = Shelf(), _session("b"), _session("c")
    _open(shelf, _session())

    def overtaken(effect: Effect) -> Any:
        mine = isinstance(effect, Create) and effect.path == f"{LOG}/{record_name(1)}"
        if mine and len(shelf.records()) == 1:
            _open(shelf, rival)
        return shelf(effect)

    _open(overtaken, session)

    assert (rival.head.n, session.head.n) == (1, 2)
    assert not play(rival.still_ours(), shelf)[0]
    assert play(session.still_ours(), shelf)[0]


def test_races_lost_for_ever_end_in_fenced() -> None:
    shelf = Shelf()
    _open(shelf, _session())

    def outrun(effect: Effect) -> Any:
        if isinstance(effect, Create) and effect.path.startswith(f"{LOG}/"):
            last = shelf.files[shelf.records()[-1]]
            record = next_record(
                identity("z"), _head(last), Draft("takeover", 0), f"z{len(shelf.files)}"
            )
            shelf.files[f"{LOG}/{record_name(record.n)}"] = encode_record(record)
        return shelf(effect)

    with pytest.raises(Fenced):
        _open(outrun, _session("b"))


def _head(data: bytes) -> Head:
    return Head(decode_record(data, "test"), sha256_hex(data))


def test_roll_forward_comes_before_the_takeover_and_publishes_every_file() -> None:
    shelf, first, second = Shelf(), _session("a"), _session("b")
    _open(shelf, first)
    play(first.commit(_draft(first, "x", "y", "z")), shelf)

    effects = _open(shelf, second)

    kinds = [
        type(effect) for effect in effects if not isinstance(effect, Reached | Read)
    ]
    assert kinds == [
        List, Publish, Publish, Publish, Settle, Replace, Create, List,
    ]  # fmt: skip
    assert shelf.files[f"{FOLDER}/published"] == b"1\n"


def test_a_log_with_a_hole_or_a_changed_record_is_refused() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    for _ in range(2):
        play(session.commit(_draft(session)), shelf)
    whole = dict(shelf.files)

    del shelf.files[f"{LOG}/{record_name(1)}"]
    with pytest.raises(LogCorrupt, match="missing"):
        _open(shelf, _session("b"))

    shelf.files = whole
    path = f"{LOG}/{record_name(1)}"
    shelf.files[path] = whole[path].replace(b'"note": ""', b'"note": "x"')
    with pytest.raises(LogCorrupt, match="predecessor"):
        _open(shelf, _session("b"))


def test_a_program_of_another_state_version_does_not_even_fence() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    play(session.commit(_draft(session)), shelf)

    with pytest.raises(LogCorrupt, match="drain with the old program"):
        _open(shelf, _session("b", state_version=2))
    assert play(session.still_ours(), shelf)[0]


# --- commit, publish, clean ------------------------------------------------------------


def test_a_fenced_commit_deletes_its_staging_and_ends_the_session() -> None:
    shelf, first, second = Shelf(), _session("a"), _session("b")
    _open(shelf, first)
    draft = _draft(first, "x")
    shelf.files[draft.files[0].staged] = b"x"
    _open(shelf, second)

    with pytest.raises(Fenced, match="record 1"):
        play(first.commit(draft), shelf)

    assert draft.files[0].staged not in shelf.files
    with pytest.raises(Fenced, match="fenced at record 1"):
        play(first.staging(), shelf)
    with pytest.raises(Fenced):
        play(first.commit(_draft(second)), shelf)
    assert not play(first.still_ours(), shelf)[0]


def test_after_a_commit_of_unknown_outcome_only_open_helps() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)

    def deaf(effect: Effect) -> Any:
        return Created.UNKNOWN if isinstance(effect, Create) else shelf(effect)

    with pytest.raises(Unreachable):
        play(session.commit(_draft(session)), deaf)
    with pytest.raises(Fenced, match="open it again"):
        play(session.publish(), shelf)
    _open(shelf, session)
    play(session.commit(_draft(session)), shelf)


def test_each_staging_has_a_fresh_attempt_and_the_commit_carries_it() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)

    first, _ = play(session.staging(), shelf)
    second, _ = play(session.staging(), shelf)
    record, _ = play(session.commit(Draft("timer", 0)), shelf)

    assert first != second
    assert second == f"{FOLDER}/staging/1-{record.attempt}"


def test_the_hint_follows_the_files_and_is_not_written_for_every_commit() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    hints = []
    for _ in range(20):
        play(session.commit(_draft(session, "x")), shelf)
        _, effects = play(session.publish(), shelf)
        kinds = [type(e) for e in effects if not isinstance(e, Reached)]
        assert kinds[:2] == [Publish, Settle]
        hints += [e.data for e in effects if isinstance(e, Replace)]

    assert hints == [b"8\n", b"16\n"]


def test_points_are_reached_in_the_order_the_failpoint_tests_rely_on() -> None:
    shelf, session = Shelf(), _session()
    effects = _open(shelf, session)
    effects += play(session.staging(), shelf)[1]
    effects += play(session.stage_snapshot(b"s", lambda: "0"), shelf)[1]
    effects += play(session.commit(_draft(session, "x", "y")), shelf)[1]
    effects += play(session.publish(), shelf)[1]
    effects += play(session.clean(), shelf)[1]

    assert [effect.name for effect in effects if isinstance(effect, Reached)] == [
        "takeover.before",
        "takeover.after",
        "staging.before",
        "snapshot.after",
        "staging.after",
        "record.before",
        "record.after",
        "publish.before",
        "publish.middle",
        "publish.after",
        "clean.before",
    ]


def test_cleaning_keeps_two_snapshots_and_what_may_still_win() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    refs = []
    for _ in range(4):
        ref, _ = play(session.stage_snapshot(b"s", lambda: "0"), shelf)
        refs.append(ref.path)
        draft = Draft("commit", session.head.next + 1, snapshot=ref)
        play(session.commit(draft), shelf)
    orphans = [f"{FOLDER}/snap/4-orphan.arrow", f"{FOLDER}/staging/4-orphan/x"]
    rivals = [f"{FOLDER}/snap/5-rival.arrow", f"{FOLDER}/staging/5-rival/x"]
    shelf.files.update(dict.fromkeys([*orphans, *rivals], b""))

    play(session.clean(), shelf)

    left = [path for path in shelf.files if "/snap/" in path or "/staging/" in path]
    assert sorted(left) == sorted([*refs[2:], *rivals])
    assert session.head.snapshot is not None
    assert session.head.snapshot.path == refs[3]


def test_a_missing_snapshot_is_corruption_unless_a_newer_owner_took_it() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    ref, _ = play(session.stage_snapshot(b"s", lambda: sha256_hex(b"s")), shelf)
    play(session.commit(Draft("commit", 1, snapshot=ref)), shelf)

    assert play(session.read_snapshot(ref), shelf)[0] == b"s"
    del shelf.files[ref.path]
    with pytest.raises(LogCorrupt, match="not there"):
        play(session.read_snapshot(ref), shelf)
    shelf.files[ref.path] = b"t"
    with pytest.raises(LogCorrupt, match="bytes"):
        play(session.read_snapshot(ref), shelf)
    del shelf.files[ref.path]
    _open(shelf, _session("b"))
    with pytest.raises(Fenced):
        play(session.read_snapshot(ref), shelf)


def test_a_changed_definition_is_refused() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    sha256 = DEFINITION.sha256()
    shelf.files[f"{FOLDER}/definitions/{sha256}.json"] += b" "

    with pytest.raises(LogCorrupt, match=sha256):
        play(session.definition(sha256), shelf)


def test_records_with_an_outbox_stay_unsent_until_noted() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    _commit_outbox(shelf, session)

    assert [r.n for r in session.unsent] == [1]
    again = _session("b")
    _open(shelf, again)
    assert [r.n for r in again.unsent] == [1]
    play(again.note_sent(again.head.n), shelf)
    assert again.unsent == ()
    third = _session("c")
    _open(shelf, third)
    assert third.unsent == ()


def _commit_outbox(shelf: Shelf, session: LogSession) -> LogRecord:
    draft = Draft("timer", 0, outbox=(an_alert(),))
    return play(session.commit(draft), shelf)[0]


def test_a_record_nobody_could_read_is_never_created() -> None:
    shelf, session = Shelf(), _session()
    _open(shelf, session)
    before = dict(shelf.files)
    draft = Draft("commit", 1, watermarks={"razlog": "soon"})  # type: ignore[dict-item]

    with pytest.raises(LogCorrupt, match="watermarks"):
        play(session.commit(draft), shelf)

    assert shelf.files == before
