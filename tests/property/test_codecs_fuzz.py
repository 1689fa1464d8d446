"""A byte-mutation fuzzer over every format: never a crash, never a wrong value.

Good records are mutated and decoded in batches. Whatever a decoder accepts or refuses has to
be what its strict path reads, and what is read by a reader that shares no code with us.
"""

import json
import os
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from streamproc.codecs.strict import Refused
from tests.support.formats import FORMATS, Format, Strict, some_readings
from tests.support.map_formats import MAPS
from tests.support.wire import (
    PACKED,
    naive_avro,
    naive_json,
    naive_packed,
    naive_protobuf,
    records_of,
    rows_of,
)

# Tracing Python line by line would take half of its time; unit tests cover the same code.
pytestmark = pytest.mark.no_cover

SEED = int(os.environ.get("STREAMPROC_FUZZ_SEED", "20260131"))
BATCH = 500
DOCUMENTS = 100_000
DOCUMENTS_LONG = 1_000_000
"""Of each format, in `make test` and in `make test-long`."""

EVERY = FORMATS | MAPS
EACH = pytest.mark.parametrize("name", EVERY)

TOKENS = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800"),
    *(b"null", b"true", b"0", b"-", b".", b"e9", b"E+999", b"1e", b"00", b"9" * 20),
    *(b"NaN", b"\0", b"\n", b"\xff", b"\x80", b"\xed\xa0\x80", b"\xc3\xa9", b"\x7f"),
    *(b" ", b'"value":1,', b"Z", b'"time":', b'"values":{', b'"units":{', b'"device"'),
    b"\xff\xff\xff\xff\xff\xff",
]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Return `data` with zero to three changes."""
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(6)
        if what == 0:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif what == 1:
            data = data[:at] + rng.choice(TOKENS) + data[at:]
        elif what == 2:
            data = data[:at] + data[at + rng.randrange(1, 9) :]
        elif what == 3:
            data = data[:at]
        elif what == 4:
            other = rng.randrange(len(data) + 1)
            data = data[:at] + data[other : other + rng.randrange(12)] + data[at:]
        elif data:
            place = rng.randrange(len(data))
            flipped = data[place] ^ (1 << rng.randrange(8))
            data = data[:place] + bytes([flipped]) + data[place + 1 :]
    return data


def strictly(strict: Strict, payload: bytes) -> Any:
    """Return readings as tuples, the kind of a record without any, or why it is refused."""
    try:
        answer = strict(payload, None)
    except Refused as refused:
        return refused.reason
    return answer if isinstance(answer, str) else list(map(tuple, answer))


def compare(decoded: Any, batch: list[bytes], strict: Strict) -> dict[int, list[Any]]:
    """Hold a decoder against its strict path; return the accepted readings by row."""
    accepted: dict[int, list[Any]] = {}
    for row, _, *reading in rows_of(decoded):
        accepted.setdefault(row, []).append(tuple(reading))
    found: dict[int, Any] = dict(accepted)
    found |= {reject.row: reject.reason for reject in decoded.rejects}
    found |= {one.row: one.kind for one in decoded.ignored}
    assert sorted(found) == list(range(len(batch)))
    assert len(accepted) + len(decoded.rejects) + len(decoded.ignored) == len(batch)
    for row, payload in enumerate(batch):
        if found[row] in ("empty", "too_large"):
            continue
        assert repr(found[row]) == repr(strictly(strict, payload)), payload
    return accepted


def mutants(form: Format, rng: random.Random) -> list[bytes]:
    """Return a batch of changed records; where there is a frame, it mostly stays whole."""
    documents = form.documents(rng, some_readings(rng, BATCH))
    kept = [form.framed if rng.random() < 0.95 else 0 for _ in documents]
    return [
        document[:size] + mutated(rng, document[size:])
        for document, size in zip(documents, kept, strict=True)
    ]


# --- readers that share no code with us ---------------------------------------------------


def as_msgspec_reads_it(payload: bytes, found: list[Any]) -> None:
    for ours, theirs in zip(found, naive_json(payload), strict=True):
        device, name, unit, event_us, value, _, _ = ours
        known = (device, name, unit, event_us, value)
        if theirs[3] is None:
            known = (device, name, unit, None, value)
        # Not by text: the other reader takes `-0` for an integer without sign.
        assert known == theirs, payload


def as_fastavro_reads_it(payload: bytes, found: list[Any]) -> None:
    ((*ours, _),) = found
    assert repr(tuple(ours)) == repr(naive_avro(payload)), payload


def as_upb_reads_it(payload: bytes, found: list[Any]) -> None:
    ((*ours, _),) = found
    if payload[5] == 0:
        assert repr(tuple(ours)) == repr(naive_protobuf(payload)), payload


def as_numpy_reads_it(payload: bytes, found: list[Any]) -> None:
    assert repr(found) == repr(list(naive_packed(PACKED, payload))), payload


def as_plain_json_has_it(payload: bytes, found: list[Any]) -> None:
    """What is accepted is JSON, and each value stands in it."""
    values = {value for *_, value, _, _ in found}
    assert values <= set(_numbers(json.loads(payload)["object"])), payload


def _numbers(node: Any) -> list[float]:
    if isinstance(node, dict):
        return [one for value in node.values() for one in _numbers(value)]
    if isinstance(node, list):
        return [one for value in node for one in _numbers(value)]
    states = {"free": 0.0, "occupied": 1.0}
    if isinstance(node, str):
        return [states[node]] if node in states else []
    return [] if node is None else [float(node)]


OTHERS: dict[str, Callable[[bytes, list[Any]], None]] = {
    "json": as_msgspec_reads_it,
    "avro": as_fastavro_reads_it,
    "protobuf": as_upb_reads_it,
    "packed": as_numpy_reads_it,
    "chirpstack": as_plain_json_has_it,
}
"""Arrow's strict path is such a reader already."""


def fuzz(name: str, documents: int, seed: int) -> None:
    print("seed", seed)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(f"{name} {seed}")
    form, other = EVERY[name], OTHERS.get(name)
    decoder, strict = form.decoder(), form.strict()
    total = kept = 0
    while total < documents:
        batch = mutants(form, rng)

        accepted = compare(decoder.decode(records_of(batch)), batch, strict)

        if other is not None:
            for row, found in accepted.items():
                other(batch[row], found)
        total += len(batch)
        kept += len(accepted)
    assert total // 8 < kept < total


@EACH
@pytest.mark.fault(
    "F35", how="mutated records of every format", seen="read rightly or refused"
)
def test_mutated_records_are_read_rightly_or_not_at_all(name: str) -> None:
    fuzz(name, DOCUMENTS if name in FORMATS else DOCUMENTS // 4, SEED)


@pytest.mark.long
@EACH
def test_a_million_mutated_records_are_read_rightly_or_not_at_all(name: str) -> None:
    fuzz(name, DOCUMENTS_LONG, SEED + 1)


def test_the_independent_reader_refuses_what_is_no_json() -> None:
    with pytest.raises(msgspec.DecodeError):
        naive_json(b'{"device":NaN}')
