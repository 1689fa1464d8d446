"""Layouts learnt, the scanner alone, the strict path: three readers, one answer.

Fleets of a few producers send records that a layout fits, and records changed just where
a layout would not notice if it were careless. Nothing may depend on what was learnt.
"""

import json
import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions, StrictJson
from streamproc.codecs.strict import Refused
from streamproc.core.payloads import Payloads
from streamproc.kernels import json_layout
from tests.support.wire import records_of, rows_of

SEED = int(os.environ.get("STREAMPROC_FUZZ_SEED", "20260131"))
BATCH = 500
BATCHES = 80
OPTIONS = [
    JsonOptions(),
    JsonOptions(assume_zone="UTC", string_numbers=True, device_from_key=True),
    JsonOptions(time_unit="us", states={"pm10": {"on": 1.0}}, string_numbers=True),
]

TIMES: list[Any] = [
    *(
        "2026-03-01T00:00:00.123Z",
        "2026-03-01T23:59:59Z",
        "2026-03-02T10:00:00.000001Z",
    ),
    *("2026-03-01T00:00:00.1234567Z", "2026-03-01 07:08:09z", "2026-03-01T24:00:00Z"),
    *("2026-03-01T00:60:00Z", "2026-02-29T00:00:00Z", "2026-03-01T00:00:00+02:00"),
    *("2026-03-01T00:00:00", "2026-03-01T00:00:00.Z", "0001-01-01T00:00:00Z"),
    *("9999-12-31T00:00:00Z", "2026-03-01T00:00:0AZ", 1_772_323_200_123, 0, -5, 17.5),
]
VALUES: list[Any] = [
    *(12.5, 0.0, -0.0, 27.36, 1013.25, 3, -7, 0.1, 1e22, 1e-9, 0.30000000000000004),
    *(123456.7, 1234567.8, 12345678, 9007199254740993, "12.5", "on", None, True),
    *([], {"a": 1}, [1, "x"]),
]
NAMES: list[Any] = [
    *("razlog-0000001", "d7", "x" * 16, "x" * 17, "x" * 31, "x" * 32, "x" * 33),
    *("dé7", "\u8857", "a b", "", "q\\", "tab\t", "\x7f", "y" * 257, 5, None),
]
NOTES: list[Any] = [
    *("v" * 20, "v" * 70, "", "é" * 9, "1.0\n", 123, -1.5, True, False, None, [], {}),
]


def pick(rng: random.Random, choices: list[Any], usual: int) -> Any:
    """Return one of the first `usual` choices, rarely any of them."""
    return rng.choice(choices if rng.random() < 0.04 else choices[:usual])


def single(rng: random.Random) -> dict[str, Any]:
    return {
        "device": pick(rng, [f"razlog-{rng.randrange(300):07d}", *NAMES], 1),
        "property": pick(rng, ["pm10", "pm2_5", "no2", "temperature", *NAMES], 4),
        "time": pick(rng, TIMES, 3),
        "value": pick(rng, VALUES, 8),
    }


def tailed(rng: random.Random) -> dict[str, Any]:
    fields = {"quality": pick(rng, [1, 0, -3, 127, 128, 1.5, "1"], 4)}
    return {
        **single(rng),
        **fields,
        "seq": rng.randrange(10**6),
        "fw": pick(rng, NOTES, 2),
    }


def with_unit(rng: random.Random) -> dict[str, Any]:
    return {"unit": pick(rng, ["ug/m3", "Cel", "", None, "\t"], 2), **single(rng)}


def epoch(rng: random.Random) -> dict[str, Any]:
    return {**single(rng), "time": 1_772_323_200_000 + rng.randrange(10**9)}


def keyed(rng: random.Random) -> dict[str, Any]:
    found = {**single(rng), "a key nobody asked for, longer than one block": 1}
    del found["device"]
    return found


def many(rng: random.Random) -> dict[str, Any]:
    names = ["pm10", "no2", "o3", pick(rng, NAMES, 2)]
    chosen = [str(name) for name in names[: rng.randrange(1, 5)]]
    found = {
        "device": f"d{rng.randrange(20)}",
        "time": pick(rng, TIMES, 3),
        "values": {name: pick(rng, VALUES, 8) for name in chosen},
    }
    if rng.random() < 0.5:
        found["units"] = dict.fromkeys(chosen, "ug/m3")
    return found


def written(found: dict[str, Any], style: int) -> bytes:
    """Return the document as one of several producers would write it."""
    if style == 0:
        text = json.dumps(found, separators=(",", ":"), ensure_ascii=False)
    elif style == 1:
        text = json.dumps(found)
    elif style == 2:
        text = json.dumps(found, indent=9, ensure_ascii=False) + "\n"
    else:
        text = json.dumps(found, separators=(" ,", " : "), sort_keys=True)
    return text.encode()


MAKERS: list[Callable[[random.Random], dict[str, Any]]] = [
    *(single, tailed, with_unit, epoch, keyed, many),
]
STRUCTURE = b'{}[]:,"\\ \t\n\0.-+eEZz0519a\x7f\xc3\xff'


def one_byte(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    byte = rng.choice([rng.choice(STRUCTURE), data[at] ^ (1 << rng.randrange(8))])
    return data[:at] + bytes([byte]) + data[at + 1 :]


def inserted(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return (
        data[:at]
        + bytes([rng.choice(STRUCTURE)]) * rng.choice([1, 1, 2, 40])
        + data[at:]
    )


def shortened(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice([1, 1, 2, 8]) :]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def twice(rng: random.Random, data: bytes) -> bytes:
    """Repeat a piece of the document: often a member, so a key that comes twice."""
    pieces = data.split(b",")
    at = rng.randrange(len(pieces))
    return b",".join(pieces[: at + 1] + pieces[at:])


def swapped(rng: random.Random, data: bytes) -> bytes:
    pieces = data.split(b",")
    rng.shuffle(pieces)
    return b",".join(pieces)


CHANGES = [one_byte, one_byte, inserted, shortened, cut, twice, swapped]


def fleet(rng: random.Random, count: int) -> list[bytes]:
    """Return records of a few producers taking turns, every third of them changed.

    Some records are cut in two, so that what follows in the buffer is their own end.
    """
    producers = [
        (rng.choice(MAKERS), rng.randrange(4)) for _ in range(rng.randrange(1, 5))
    ]
    batch: list[bytes] = []
    while len(batch) < count:
        maker, style = rng.choice(producers)
        data = written(maker(rng), style)
        fate = rng.random()
        if fate < 0.03:
            at = rng.randrange(len(data) + 1)
            batch += [data[:at], data[at:]]
        else:
            batch.append(rng.choice(CHANGES)(rng, data) if fate < 0.35 else data)
    return batch[:count]


class Watched(FlatJson):
    """A decoder that shows which rows its kernels doubted."""

    doubted: list[int]

    def _scan(self, payloads: Payloads, keys: Payloads, sheet: Any) -> Any:
        doubtful = super()._scan(payloads, keys, sheet)
        self.doubted = doubtful.tolist()
        return doubtful

    def names(self) -> list[list[str | None]]:
        return [table.strings().to_pylist() for table in self._sheet._names.values()]


def never_learning(options: JsonOptions | None = None) -> Watched:
    decoder = Watched(options)
    decoder._layouts[json_layout.PATIENCE] = 1 << 60
    return decoder


def found(
    decoder: FlatJson, batch: Sequence[bytes], keys: Sequence[bytes | None]
) -> Any:
    decoded = decoder.decode(records_of(batch, keys))
    rejects = [(r.row, r.reason, r.detail) for r in decoded.rejects]
    return repr(rows_of(decoded)), rejects


def strictly(
    strict: StrictJson, batch: Sequence[bytes], keys: Sequence[bytes | None]
) -> Any:
    rows: list[Any] = []
    rejects: list[tuple[int, str, str]] = []
    for row, (data, key) in enumerate(zip(batch, keys, strict=True)):
        try:
            readings = strict.readings(data, key) if data else []
        except Refused as refused:
            rejects.append((row, refused.reason, refused.detail))
        else:
            rows += [(row, k, *reading) for k, reading in enumerate(readings)]
            if not data:
                rejects.append((row, "empty", "0 bytes"))
    return repr(rows), rejects


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_layouts_scanner_and_strict_path_agree(options: JsonOptions) -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(SEED)
    learning, plain, strict = (
        Watched(options),
        never_learning(options),
        StrictJson(options),
    )
    total = walked = 0
    for _ in range(BATCHES):
        batch = fleet(rng, BATCH)
        keys = [rng.choice([b"k1", b"k1", None, b"", b"\xff"]) for _ in batch]

        answer = found(learning, batch, keys)

        assert answer == found(plain, batch, keys)
        assert learning.doubted == plain.doubted
        assert learning.names() == plain.names()
        assert answer == strictly(strict, batch, keys)
        total += len(batch)
        walked += len(batch) - sum(learning.doubted)
    assert total == BATCH * BATCHES == 40_000
    assert total // 3 < walked < total
    # Fleets come and go, so the tree has been full and was forgotten.
    assert learning._layouts[json_layout.PATIENCE] > 0
    assert plain._layouts[json_layout.USED] == json_layout.NODE_BYTES


def test_every_byte_of_a_known_record_may_change() -> None:
    documents = [
        written(maker(random.Random(7)), style)
        for maker in MAKERS
        for style in range(4)
    ]
    strict, learning = StrictJson(JsonOptions()), Watched()
    total = 0
    for document in documents:
        changed = [
            document[:at] + bytes([byte]) + document[at + 1 :]
            for at in range(len(document))
            for byte in (*b'"\\ ,:}0', document[at] ^ 1, document[at] ^ 0x80)
        ]
        batch = [document, document, *changed]
        keys: list[bytes | None] = [None] * len(batch)

        assert found(learning, batch, keys) == strictly(strict, batch, keys)
        total += len(batch)
    assert total > 20_000


def forgotten(decoder: FlatJson) -> int:
    """Return how often the tree was full, from the patience that grew with it."""
    return (int(decoder._layouts[json_layout.PATIENCE]) + 1).bit_length() - 1


def misses(decoder: FlatJson) -> int:
    return int(decoder._layouts[json_layout.MISSES])


@pytest.mark.parametrize("style", range(4))
@pytest.mark.parametrize("maker", MAKERS)
def test_a_record_like_one_before_is_walked_to_its_end(maker: Any, style: int) -> None:
    usual = {"device": "d", "property": "p", "time": TIMES[0], "value": 1.5}
    options = JsonOptions(device_from_key=True)
    decoder = Watched(options)
    first = maker(random.Random(11)) | (usual if maker is not many else {})
    later = first | {"device": "another device", "time": TIMES[1]}
    found(decoder, [written(first, style)], [b"k"])
    used = int(decoder._layouts[json_layout.USED])
    assert used > json_layout.NODE_BYTES
    decoder._layouts[json_layout.PATIENCE] = 1 << 60

    found(decoder, [written(later, style)] * 3, [b"k"] * 3)

    assert decoder.doubted == [0, 0, 0]
    assert misses(decoder) == 0


@pytest.mark.parametrize("size", [29, 30, 31, 32, 61, 62, 63, 64, 65, 95, 96, 200])
def test_a_literal_of_several_blocks_is_compared_to_its_last_byte(size: int) -> None:
    """Between two values, and behind the last one."""
    start = b'{"device":"d","property":"p","time":0,"value":1,"%s":' % (b"k" * size)
    document = start + b"2" + b" " * size + b"}"
    strict, learning = StrictJson(JsonOptions()), Watched()
    found(learning, [document], [None])

    found(learning, [document], [None])

    assert misses(learning) == 0
    assert learning.doubted == [0]
    learning._layouts[json_layout.PATIENCE] = 1 << 60  # nothing more is learnt
    batch = [
        document[:at] + bytes([byte]) + document[at + 1 :]
        for at in range(len(document))
        for byte in (*b'"}, ', document[at] ^ 1)
    ] + [document[:at] for at in range(1, len(document))]
    none: list[bytes | None] = [None] * len(batch)
    assert found(learning, batch, none) == strictly(strict, batch, none)
    assert misses(learning) >= len(batch) // 2


@pytest.mark.parametrize("order", [1, -1])
def test_producers_that_take_turns_are_all_known(order: int) -> None:
    makers, rng = [single, tailed, with_unit], random.Random(3)
    usual = {"device": "d", "property": "p", "time": TIMES[0], "value": 1.5}
    tail = {"quality": 1, "fw": "v"}
    documents = [
        written(
            {**maker(rng), **usual, **(tail if maker is tailed else {"unit": "u"})},
            style,
        )
        for maker in makers
        for style in range(4)
    ]
    decoder = Watched()
    found(decoder, documents[::order], [None] * len(documents))
    decoder._layouts[json_layout.PATIENCE] = 1 << 60

    found(decoder, documents * 2, [None] * 2 * len(documents))

    assert misses(decoder) == 0


def test_documents_that_never_repeat_are_learnt_ever_more_rarely() -> None:
    batch = [
        b'{"key %d":1,"device":"d","property":"p","time":0,"value":%d}' % (k, k)
        for k in range(20_000)
    ]
    decoder = Watched()

    found(decoder, batch, [None] * len(batch))

    assert sum(decoder.doubted) == 0
    assert 8 <= forgotten(decoder) <= 12
    assert decoder._layouts[json_layout.PATIENCE] <= json_layout.PATIENCE_MAX


def test_a_document_with_more_values_than_a_trace_is_read_but_not_learnt() -> None:
    extra = b"".join(b'"k%d":%d,' % (k, k) for k in range(40))
    document = b'{%s"device":"d","property":"p","time":0,"value":1}' % extra
    decoder = Watched()

    found(decoder, [document] * 3, [None] * 3)

    assert decoder.doubted == [0, 0, 0]
    assert decoder._layouts[json_layout.USED] == json_layout.NODE_BYTES


def test_a_key_met_in_a_walk_and_again_where_the_scanner_reads_on_is_refused() -> None:
    good = b'{"device":"d","time":0,"values":{"a":1},"x":1}'
    bad = b'{"device":"d","time":0,"values":{"a":1,"a":1},"x":1}'
    again = b'{"device":"d","time":0,"values":{"a":1},"x":1,"values":{"b":1}}'
    decoder = Watched()

    answer = found(decoder, [good, good, bad, again], [None] * 4)

    assert decoder.doubted == [0, 0, 1, 1]
    assert [row for row, *_ in answer[1]] == [2, 3]
