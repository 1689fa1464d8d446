"""Records that end the process that decodes them are found, and nobody else is blamed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from streamproc.codecs.select import make_decoder
from streamproc.connectors import decode_trial
from streamproc.connectors.decode_trial import DecodeTrial
from streamproc.core.ports import Decoder, SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Records
from streamproc.errors import WorldError
from streamproc.runtime.failpoint import POISON, poisoned
from tests.support.service import traffic
from tests.support.wire import records_of

SOUND = traffic(40)


class Fragile:
    """A JSON decoder that ends or hangs its process at some batches."""

    def __init__(self, ends: Callable[[Records, set[int]], bool], *, by: str) -> None:
        self._decoder = make_decoder("json")
        self._ends = ends
        self._by = by
        self._known: set[int] = set()

    def missing(self, records: Records) -> frozenset[int]:
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        self._known.add(schema_id)

    def decode(self, records: Records) -> Decoded:
        if self._ends(records, self._known):
            if self._by == "hanging":
                time.sleep(3600)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._decoder.decode(records)


def fragile(
    ends: Callable[[Records, set[int]], bool], by: str = "dying"
) -> Callable[[], Decoder]:
    return partial(Fragile, ends, by=by)


def holds_poison(records: Records, _: set[int]) -> bool:
    return any(b"poison" in (value or b"") for value in records.values)


def is_many(records: Records, _: set[int]) -> bool:
    return len(records) > 1


def knows_nothing(_: Records, known: set[int]) -> bool:
    return known != {7, 8}


def poisoned_json() -> Decoder:
    return poisoned(make_decoder("json"), {POISON: "poison"})


@pytest.fixture
def trials() -> Iterator[Callable[[Callable[[], Decoder]], DecodeTrial]]:
    made: list[DecodeTrial] = []

    def trial(make: Callable[[], Decoder], patience_s: float = 60.0) -> DecodeTrial:
        made.append(DecodeTrial(make, patience_s))
        return made[-1]

    yield trial
    for each in made:
        each.close()


Trials = Callable[..., DecodeTrial]


def test_the_records_that_end_a_process_are_found_among_sound_ones(
    trials: Trials,
) -> None:
    values: list[bytes | None] = [*SOUND, None]
    for row in (3, 4, 40):
        values[row] = b"poison"

    found = trials(poisoned_json).deadly(records_of(values))

    assert found == (3, 4, 40)


def test_a_batch_of_several_pieces_is_tried_to_its_end(
    trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_trial, "PIECE", 16)
    values = [*SOUND]
    values[33] = b"poison"

    assert trials(fragile(holds_poison)).deadly(records_of(values)) == (33,)


def test_sound_records_are_tried_by_one_process(trials: Trials) -> None:
    trial = trials(poisoned_json)

    assert trial.deadly(records_of(SOUND)) == ()
    first = trial._child
    assert trial.deadly(records_of(SOUND)) == ()

    assert first is not None
    assert trial._child is first


def test_a_record_that_is_never_decoded_is_as_bad_as_one_that_crashes(
    trials: Trials,
) -> None:
    values = [*SOUND[:3], b"poison"]

    assert trials(fragile(holds_poison, "hanging"), 4.0).deadly(records_of(values)) == (
        3,
    )


def test_every_process_is_told_of_every_schema(trials: Trials) -> None:
    trial = trials(fragile(knows_nothing))
    schema = WireSchema("avro", "{}")
    trial.learn(7, schema)
    trial.learn(8, schema)

    assert trial.deadly(records_of(SOUND)) == ()

    trial.close()
    assert trial.deadly(records_of(SOUND)) == ()


def test_records_that_crash_only_together_are_told_and_none_is_blamed(
    trials: Trials,
) -> None:
    with pytest.raises(WorldError, match=r"offsets 0 to 2 together crashes") as told:
        trials(fragile(is_many)).deadly(records_of(SOUND[:3]))

    assert "accept-gap" in str(told.value)


def test_a_process_that_is_killed_once_for_other_reasons_costs_no_record(
    trials: Trials,
) -> None:
    trial = trials(poisoned_json)
    trial.deadly(records_of(SOUND))
    assert trial._child is not None
    trial._child._process.kill()

    assert trial.deadly(records_of(SOUND[:1])) == ()


def test_a_process_outlives_the_signals_that_stop_a_service(trials: Trials) -> None:
    trial = trials(poisoned_json)
    trial.deadly(records_of(SOUND))
    child = trial._child
    assert child is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child._process.pid or 0, number)

    assert trial.deadly(records_of(SOUND)) == ()
    assert trial._child is child
