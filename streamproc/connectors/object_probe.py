"""Does a bucket refuse a second create, also when both come at once?

The whole protocol rests on it, and a service that merely looks whether an object is there
before it writes passes any test that asks one after the other: of s3s-fs, 189 of 200 races had
more than one winner, although it refused every later create. So creators race here, a few
rounds of them: one that lets half of the rounds pass is found out with 255 of 256.
"""

from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from streamproc.connectors.object_client import Client, Missing, Taken, Unsure
from streamproc.core.ports import Created
from streamproc.core.record import sha256_hex
from streamproc.errors import StoreFault, Unreachable

if TYPE_CHECKING:
    from streamproc.connectors.object_store import ObjectStore

SCRATCH: Final = "_streamproc/.tmp"
CREATORS: Final = 8
ROUNDS: Final = 8
_GATE_S: Final = 30.0


class _Answer(StrEnum):
    CREATED = "created"
    TAKEN = "taken"
    UNSURE = "unsure"


def probe(store: "ObjectStore") -> str:
    """Try the store; return what was seen, in a line. Leaves nothing behind if it passes.

    Raises:
        StoreFault: a second create was not refused, or what was written does not come back.
        Unreachable: it does not answer.
    """
    url = store.client.options.url
    folder = f"{SCRATCH}/{uuid4().hex}"
    _create_twice(store, f"{folder}/record")
    _publish_twice(store, folder)
    decided = race(store.client, f"{folder}/race", CREATORS, ROUNDS)
    if not decided:
        msg = f"{url}: none of {ROUNDS} races of creates was decided"
        raise Unreachable(msg)
    for file in store.list(folder):
        store.delete(file.path)
    store.settle()
    return (
        f"a second create is refused; {decided} races of {CREATORS} creates had one "
        "winner each; copies keep size and sha256"
    )


def race(client: Client, folder: str, creators: int, rounds: int) -> int:
    """Let creators race for one name a round; return how many rounds had a winner.

    A round in which every create was put off (409, 503) has none, and proves nothing.

    Raises:
        StoreFault: a round had two winners, or the object is not its winner's.
    """
    decided = 0
    with ThreadPoolExecutor(creators, "object-store-race") as pool:
        for number in range(rounds):
            path = f"{folder}/{number}"
            gate = Barrier(creators, timeout=_GATE_S)
            answers = list(
                pool.map(
                    lambda name: _create(client, path, name, gate),  # noqa: B023  (awaited)
                    [b"creator %d" % n for n in range(creators)],
                )
            )
            decided += _judge(client, path, answers)
    return decided


def _create(client: Client, path: str, name: bytes, gate: Barrier) -> _Answer:
    try:
        gate.wait()
        client.once("create", path, lambda: client.create(path, name, sha256_hex(name)))
    except Taken:
        return _Answer.TAKEN
    except (Unsure, BrokenBarrierError):
        return _Answer.UNSURE
    except Missing as error:
        raise StoreFault(str(error)) from None
    return _Answer.CREATED


def _judge(client: Client, path: str, answers: list[_Answer]) -> bool:
    where = f"{client.options.url}/{path}"
    winners = answers.count(_Answer.CREATED)
    if winners > 1:
        msg = (
            f"{where}: {winners} of {len(answers)} creates at once were told that they "
            "won. This service does not keep conditional creates; several writers would "
            "lose or double readings, so it cannot be used"
        )
        raise StoreFault(msg)
    try:
        found = client.repeat("read", path, lambda: client.get(path))
    except Missing:
        if winners:
            msg = f"{where}: was created, and is not there"
            raise StoreFault(msg) from None
        return False
    number = int(found.removeprefix(b"creator "))
    if winners and answers[number] is not _Answer.CREATED:
        msg = f"{where}: holds the bytes of a create that was refused"
        raise StoreFault(msg)
    return True


def _create_twice(store: "ObjectStore", path: str) -> None:
    where = store.client.options.url
    _known(store, path, b"first")
    second = _known(store, path, b"second")
    if second is not Created.EXISTS or store.read(path) != b"first":
        msg = f"{where}: a second create was not refused; this service cannot be used"
        raise StoreFault(msg)


def _known(store: "ObjectStore", path: str, data: bytes) -> Created:
    """Create until the outcome is known; the store's patience bounds it."""
    while True:
        outcome = store.create(path, data)
        if outcome is not Created.UNKNOWN:
            return outcome


def _publish_twice(store: "ObjectStore", folder: str) -> None:
    data = b"staged"
    digest = sha256_hex(data)
    size = store.stage(f"{folder}/staged", data)
    for _ in range(2):
        store.publish(f"{folder}/staged", f"{folder}/final/a", size, digest)
        store.settle()
    found = [file.path for file in store.list(folder)]
    wanted = [f"{folder}/final/a", f"{folder}/record", f"{folder}/staged"]
    if found != wanted or store.read(f"{folder}/final/a") != data:
        msg = f"{store.client.options.url}: what was written does not come back"
        raise StoreFault(msg)
