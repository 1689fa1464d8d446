"""Mutated events: the kernels say what the strict path says, and what plain JSON says.

Two kinds of documents: whole uplinks, as ChirpStack sends them, and small ones that are all
`object`, so that changes hit what is read.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.chirpstack_strict import ChirpStackOptions, StrictUplink
from streamproc.codecs.encode import encode_uplink
from streamproc.codecs.strict import Refused
from streamproc.core.values import Decoded, Reason, Records
from streamproc.kernels.uplink_scan import DECODED, DOUBTED, EMPTY, UNDECODED
from tests.property.test_codecs_fuzz import BATCH, SEED, mutated
from tests.property.test_json_layouts import CHANGES
from tests.support.wire import UPLINKS, records_of, rows_of

OPTIONS = {
    "usual": UPLINKS,
    "every": replace(
        UPLINKS, device="deviceName", booleans=True, unmapped="quarantine"
    ),
    "nested": replace(
        UPLINKS,
        properties=dict(UPLINKS.properties)
        | {"a.b.c": "c", "a.b": "b", "a": "a", "1": "one", "list.0": "c", "b.1": "b1"}
        | {"air": "air", "b.0": "b0", "air.a.c": "deep", "c": "c", "list.1": "l1"}
        | {"": "none", "a.": "odd", ".b": "dot", "x" * 40: "x40", "b.01": "b01"},
    ),
    "words": replace(
        UPLINKS,
        booleans=True,
        properties={"state": "state", "list.1": "state", "a.0.state": "no2"}
        | {"pm10": "pm10", "air": "air", "c": "state", "open": "open", "0": "0"},
        states={
            "state": {"": 4.0, "occupied": 1.0, "x" * 32: 2.0, "x" * 33: 3.0, "é": 5.0}
        },
    ),
}
FATES = (DECODED, DOUBTED, EMPTY, UNDECODED)
LEAVES: list[Any] = [
    *(0, 1, -1, 12.5, -0.5, -0.0, 23, 101.3, 1e300, 10**20, 1e-7, 5e-324, 10**400),
    *(True, False, None, "free", "occupied", "a:b", "é", "x" * 32, "x" * 33, "", "1.5"),
]
NAMES = ["pm10", "air", "no2", "list", "t", "open", "state", "a", "b", "c", "0", "1"]
TWICE = "#"
"""Behind a name that stands in its object already; taken off when it is written."""
ODD_NAMES = [
    *("air.no2", "", "a.b", "x y", "é", "q" * 17, "01", "-1", "\t", '"', ".", "x" * 40),
    *("a.b.c", "b.1", "a.", "a..b", "list.1.t", "list.0", "b.01"),
]


class Watched(ChirpStack):
    """A decoder that shows what its kernels made of each row."""

    fates: list[int]

    def _scan(self, records: Records) -> Any:
        fates = super()._scan(records)
        self.fates = fates.tolist()
        return fates


def leaf(rng: random.Random) -> Any:
    return rng.choice(LEAVES[:8]) if rng.randrange(12) else rng.choice(LEAVES)


def usual_content(rng: random.Random) -> dict[str, Any]:
    paths = ["pm10", "open", "state", "battery", "x y"]
    made: dict[str, Any] = {
        name: leaf(rng) for name in rng.sample(paths, rng.randrange(4))
    }
    if rng.randrange(2):
        made["air"] = {"no2": leaf(rng)}
    if rng.randrange(3) == 0:
        made["list"] = [{}, {"t": rng.randrange(9)}, [1, {"t": 2}]]
    return made


def any_value(rng: random.Random, depth: int) -> Any:
    what = rng.randrange(6) if depth else 5
    if what == 0:
        return [any_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return any_content(rng, depth - 1) if what < 3 else leaf(rng)


def any_content(rng: random.Random, depth: int) -> dict[str, Any]:
    names = [
        rng.choice(NAMES if rng.randrange(80) else ODD_NAMES)
        for _ in range(rng.randrange(5))
    ]
    if names and rng.randrange(40) == 0:
        names.append(names[0] + TWICE)
    return {name: any_value(rng, depth) for name in names}


AGAIN = b'"2026-01-31T10:00:00Z"'
LESS: list[Callable[[bytes], bytes]] = [
    lambda payload: payload.replace(b'"object":{"', b'"object":{"pm10":3,"'),
    lambda payload: payload.replace(b'"fCnt":10', b'"time":' + AGAIN),
    lambda payload: payload.replace(b'"fCnt":10', b'"\\u0074ime":' + AGAIN),
    lambda payload: payload.replace(b'"fCnt":10', b'"note":"a\nb"'),
    lambda payload: payload.replace(b'"data":"qg==",', b""),
    lambda payload: payload.replace(b'"object":', b'"was":'),
    lambda payload: payload.replace(b'"object":', b'"was":'),
    lambda payload: payload.replace(b'"object":', b'"was":').replace(b'"qg=="', b'""'),
    lambda payload: payload.replace(b'"object":', b'"data":'),
    lambda payload: (
        payload.replace(b'"object":', b'"was":')
        .replace(b'"data":"qg==",', b"")
        .replace(b'"fPort":1', b'"fPort":null')
    ),
    lambda payload: payload.replace(b'"object":', b'"was":').replace(
        b'"data":"qg==",', b""
    ),
    lambda payload: payload.replace(b'"tags":', b'"time":'),
    lambda payload: payload.replace(b'"tags":', b'"devEui":'),
    lambda payload: payload.replace(b',"', b', "'),
    lambda payload: payload.replace(b"-0.0", b"-0"),
    lambda payload: payload.replace(b"10.5", b"1.05E+1"),
    lambda payload: payload.replace(b"Town", b'\\u00e9 \\"\\\\ \\ud800'),
    lambda payload: payload.replace(b'"tags"', b'"\\u0064evEui"'),
    lambda payload: json.dumps(json.loads(payload), indent=1).encode(),
]


def uplink(rng: random.Random) -> bytes:
    payload = encode_uplink(
        f"{rng.randrange(2**64):016x}",
        rng.randrange(-(10**15), 4 * 10**15),
        usual_content(rng),
    )
    return payload if rng.randrange(4) else rng.choice(LESS)(payload)


def small(rng: random.Random) -> bytes:
    members: list[tuple[str, Any]] = [
        ("time", rng.choice(TIMES if rng.randrange(9) == 0 else TIMES[:4])),
        ("deviceInfo", {"devEui": "0101", "deviceName": "d"}),
        *([("object", any_content(rng, 4))] if rng.randrange(6) else []),
        *([("fPort", rng.choice(PORTS))] if rng.randrange(2) else []),
        *([("data", rng.choice(DATA))] if rng.randrange(3) == 0 else []),
    ]
    rng.shuffle(members)
    spaced = (", ", " : ") if rng.randrange(4) == 0 else (",", ":")
    text = json.dumps(
        dict(members), separators=spaced, ensure_ascii=rng.randrange(9) == 0
    )
    return text.replace(TWICE, "").encode()


PORTS = [1, 1, 0, -1, None, "1", True]
DATA: list[Any] = [*("qg==",) * 8, "", "\n", None, 0, 7, [], [0], {}, False, True]
TIMES = [
    *("2026-03-01T00:00:00.123456789+00:00", "2026-03-01T00:00:00.12345678+00:00"),
    *("2026-03-01T23:59:59Z", "2026-03-02T01:02:03.1234567z"),
    *("2026-03-01T00:00:00.1234567890Z", "2026-03-01T00:00:00.1234567890+00:00"),
    *("2026-03-01T00:00:00.5+02:00", "2026-03-01T24:00:00+00:00", "2026-03-01"),
    *("2026-03-01T00:00:00", "2026-03-01T00:00:00.+00:00", "2026-03-01T00:00:00-00:00"),
]


def changed(rng: random.Random, payload: bytes) -> bytes:
    """Return the payload as it is, or with changes of bytes or of whole members."""
    fate = rng.randrange(6)
    if fate < 2 or not payload:
        return payload
    return mutated(rng, payload) if fate < 4 else rng.choice(CHANGES)(rng, payload)


def answer(strict: StrictUplink, payload: bytes) -> object:
    if not payload:
        return Reason.EMPTY, "0 bytes"
    try:
        return strict.answer(payload, None)
    except Refused as refused:
        return refused.reason, refused.detail


def answers(decoded: Decoded) -> dict[int, Any]:
    """Return what became of each record, in the strict path's words."""
    found: dict[int, Any] = {}
    for row, ordinal, *reading in rows_of(decoded):
        assert len(found.setdefault(row, [])) == ordinal
        found[row].append(tuple(reading))
    found |= {one.row: (one.reason, one.detail) for one in decoded.rejects}
    return found | {one.row: one.kind for one in decoded.ignored}


def held_against(
    decoder: Watched, options: ChirpStackOptions, batch: Sequence[bytes]
) -> Counter[int]:
    """Hold a batch against the strict path and plain JSON; count what kernels made of it."""
    strict = StrictUplink(options)
    found = answers(decoder.decode(records_of(batch)))
    assert len(found) == len(batch)
    for row, payload in enumerate(batch):
        expected = answer(strict, payload)
        if isinstance(expected, list):
            expected = [tuple(reading) for reading in expected]
            # What is accepted is JSON, and each value stands in it.
            values = {reading[4] for reading in expected}
            assert values <= set(numbers(json.loads(payload)["object"], options))
        assert repr(found[row]) == repr(expected), payload
    return Counter(decoder.fates)


def numbers(node: Any, options: ChirpStackOptions) -> list[float]:
    if isinstance(node, dict):
        return [one for value in node.values() for one in numbers(value, options)]
    if isinstance(node, list):
        return [one for value in node for one in numbers(value, options)]
    if isinstance(node, str):
        return [known[node] for known in options.states.values() if node in known]
    if isinstance(node, int) and abs(node) > 10**308:
        return []
    return [] if node is None else [float(node)]


def fuzzed(name: str, make: Callable[[random.Random], bytes], batches: int) -> int:
    """Hold so many batches of changed events against the strict path; count the events."""
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(SEED)
    decoder, fates = Watched(OPTIONS[name]), Counter[int]()
    for _ in range(batches):
        batch = [changed(rng, make(rng)) for _ in range(BATCH)]
        fates += held_against(decoder, OPTIONS[name], batch)
    # Every kind of answer came often, so none of them is held for nothing.
    assert min(fates[fate] for fate in FATES) > fates.total() // 150, fates
    return fates.total()


@pytest.mark.parametrize("make", [uplink, small])
@pytest.mark.parametrize("name", OPTIONS)
def test_kernels_and_strict_path_agree_on_mutated_events(
    name: str, make: Callable[[random.Random], bytes]
) -> None:
    assert fuzzed(name, make, 25) * 2 * len(OPTIONS) == 100_000


@pytest.mark.long
@pytest.mark.parametrize("make", [uplink, small])
@pytest.mark.parametrize("name", OPTIONS)
def test_kernels_and_strict_path_agree_on_a_million_mutated_events(
    name: str, make: Callable[[random.Random], bytes]
) -> None:
    assert fuzzed(name, make, 250) * 2 * len(OPTIONS) == 1_000_000


def test_every_byte_of_an_uplink_may_change() -> None:
    content = {"pm10": -1.5, "x": [True, "é"], "air": {"no2": 30}, "state": "free"}
    document = encode_uplink("0101010101010101", 1_772_323_200_123_000, content)
    batch = [
        document[:at] + bytes([byte]) + document[at + 1 :]
        for at in range(len(document))
        for byte in (*b'"\\ ,:}]0-.e', document[at] ^ 1, document[at] ^ 0x80)
    ]
    decoder = Watched(UPLINKS)

    fates = held_against(decoder, UPLINKS, [document, *batch])

    assert decoder.fates[0] == DECODED
    assert len(batch) > 10_000
    assert fates[DECODED] > len(batch) // 4
