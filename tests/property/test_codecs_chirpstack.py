"""Mutated events: the fast path says what the strict one says, and what plain JSON says."""

import json
import random
from dataclasses import replace
from typing import Any

from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.chirpstack_strict import ChirpStackOptions, StrictUplink
from streamproc.codecs.encode import encode_uplink
from streamproc.codecs.strict import Refused
from tests.property.test_codecs_fuzz import BATCH, SEED, mutated
from tests.support.wire import UPLINKS, records_of, rows_of

EVERY = replace(UPLINKS, device="deviceName", booleans=True, unmapped="quarantine")
LEAVES = (0, 1, -1, 12.5, -0.5, -0.0, 1e300, 10**20, True, None, "free", "a:b", "é")


def content(rng: random.Random) -> dict[str, Any]:
    paths = ["pm10", "open", "state", "battery", "x y"]
    made: dict[str, Any] = {
        name: rng.choice(LEAVES) for name in rng.sample(paths, rng.randrange(4))
    }
    if rng.randrange(2):
        made["air"] = {"no2": rng.choice(LEAVES[:8])}
    if rng.randrange(3) == 0:
        made["list"] = [{}, {"t": rng.randrange(9)}, [1, {"t": 2}]]
    return made


def event(rng: random.Random) -> bytes:
    payload = encode_uplink(
        f"{rng.randrange(2**64):016x}",
        rng.randrange(-(10**15), 4 * 10**15),
        content(rng),
    )
    return payload if rng.randrange(4) else rng.choice(LESS)(payload)


AGAIN = b'"2026-01-31T10:00:00Z"'
LESS = [
    lambda payload: payload.replace(b'"object":{"', b'"object":{"pm10":3,"'),
    lambda payload: payload.replace(b'"fCnt":10', b'"time":' + AGAIN),
    lambda payload: payload.replace(b'"fCnt":10', b'"\\u0074ime":' + AGAIN),
    lambda payload: payload.replace(b'"fCnt":10', b'"note":"a\nb"'),
    lambda payload: payload.replace(b'"data":"qg==",', b""),
    lambda payload: payload.replace(b'"object":', b'"was":'),
    lambda payload: payload.replace(b'"tags":', b'"time":'),
    lambda payload: payload.replace(b',"', b', "'),
    lambda payload: payload.replace(b"-0.0", b"-0"),
]


def answer(strict: StrictUplink, payload: bytes) -> object:
    try:
        return strict.answer(payload, None)
    except Refused as refused:
        return refused.reason, refused.detail


def held_against(options: ChirpStackOptions, batches: int, seed: int) -> int:
    rng = random.Random(seed)
    decoder, strict = ChirpStack(options), StrictUplink(options)
    kept = 0
    for _ in range(batches):
        batch = [mutated(rng, event(rng)) for _ in range(BATCH)]
        decoded = decoder.decode(records_of(batch))
        found: dict[int, Any] = {}
        for row, _, *reading in rows_of(decoded):
            found.setdefault(row, []).append(tuple(reading))
        kept += len(found)
        for row, readings in found.items():
            # What is accepted is JSON, and each value stands in it.
            values = [value for *_, value, _, _ in readings]
            assert set(values) <= set(numbers(json.loads(batch[row])["object"]))
        found |= {one.row: (one.reason, one.detail) for one in decoded.rejects}
        found |= {one.row: one.kind for one in decoded.ignored}
        for row, payload in enumerate(batch):
            if not payload:
                continue
            expected = answer(strict, payload)
            if isinstance(expected, list):
                expected = [tuple(reading) for reading in expected]
            assert repr(found[row]) == repr(expected), payload
    return kept


def numbers(node: Any) -> list[float]:
    if isinstance(node, dict):
        return [one for value in node.values() for one in numbers(value)]
    if isinstance(node, list):
        return [one for value in node for one in numbers(value)]
    states = {"free": 0.0, "occupied": 1.0}
    if isinstance(node, str):
        return [states[node]] if node in states else []
    return [] if node is None else [float(node)]


def test_mutated_uplinks_are_read_rightly_or_not_at_all() -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)

    assert held_against(UPLINKS, 16, SEED) > 16 * BATCH // 8
    assert held_against(EVERY, 16, SEED) > 0
