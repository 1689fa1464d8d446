"""Passing over JSON: what the kernel skips is what the standard library reads, and as far."""

import json
import os
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamproc.codecs.json_document import Number, decoder_with
from streamproc.codecs.strict import Refused
from streamproc.kernels import json_skip, uplink_content
from streamproc.kernels.bytes_raw import PAD
from tests.property.test_codecs_fuzz import mutated

SEED = int(os.environ.get("STREAMPROC_FUZZ_SEED", "20260131"))
DECODER = decoder_with(Number)


def skipped(text: bytes, behind: bytes = b",") -> int:
    """Return how many bytes of an object or a list the kernel passes over, -1 for doubt."""
    # What lies beyond the end would go on: only the end says that it is not there.
    memory = np.frombuffer(text + (behind + b'0"]}' * PAD)[:PAD], np.uint8)
    at = memory.ctypes.data
    after = json_skip.after_nested(at, at + len(text))
    return after - at if after > 0 else -1


def read(text: bytes) -> int:
    """Return how many bytes the standard library reads, -1 if it refuses."""
    try:
        _, size = DECODER.raw_decode(text.decode())
    except (ValueError, Refused):
        return -1
    return len(text.decode()[:size].encode())


LEAVES: list[Any] = [
    *(0, -1, 10**30, 1.5, -0.0, 1e-300, 1e300, True, False, None, "", "text", "é" * 20),
    *('"\\/\b\f\n\r\t', "\ud800", "x" * 70, "-", "{}[],:"),
]
ODD = [
    *(b"01", b"1.", b".5", b"-", b"+1", b"1e", b"1e+", b"1E-5", b"1.5e5", b"12345678"),
    *(b"123456789.12345678e12345678", b"nul", b"True", b"NaN", b"-Infinity", b"\xff"),
    *(b'"\\u12g4"', b'"\\u00E9"', b'"\\x"', b'"\n"', b'"\x7f"', b"'", b"\xc2\xa0"),
]


def value(rng: random.Random, depth: int) -> Any:
    what = rng.randrange(5) if depth else 4
    if what < 2:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if what < 4:
        names = rng.sample(["a", "key", "é", "q" * 40, "", "x\ny"], rng.randrange(4))
        return {name: value(rng, depth - 1) for name in names}
    return rng.choice(LEAVES)


def document(rng: random.Random) -> bytes:
    found = value(rng, 6)
    while not isinstance(found, list | dict):
        found = value(rng, 6)
    indent = rng.choice([None, None, 1])
    separators = rng.choice([None, (",", ":"), (" ,\t", "\r: ")])
    escaped = rng.randrange(3) == 0 or b"ud800" in json.dumps(found).encode()
    text = json.dumps(
        found, indent=indent, separators=separators, ensure_ascii=escaped
    ).encode()
    if rng.randrange(3) == 0:
        text = text.replace(
            rng.choice([b"1.5", b"true", b"null", b'""']), rng.choice(ODD)
        )
    return mutated(rng, text) if rng.randrange(2) else text


def test_what_is_skipped_is_what_the_standard_library_reads() -> None:
    print("seed", SEED)  # noqa: T201  (pytest shows it when the test fails)
    rng = random.Random(SEED)
    sizes = []
    for _ in range(30_000):
        text = document(rng)
        if text[:1] not in {b"{", b"["}:
            continue
        size = skipped(text)
        sizes.append(size)
        # What is no UTF-8 may stand behind what is skipped.
        if size < 0:
            assert read(text) < 0, text
        else:
            assert read(text[:size]) == size, text
    refused = sizes.count(-1)
    assert len(sizes) // 20 < refused < len(sizes) // 2


@pytest.mark.parametrize("opener", [b"[", b'{"a":', b'[0,{"b":'])
def test_nesting_is_followed_to_its_bound(opener: bytes) -> None:
    closer = {91: b"]", 123: b"}"}
    levels = opener.count(b"[") + opener.count(b"{")
    ends = b"".join(closer[byte] for byte in reversed(opener) if byte in closer)
    for count in range(json_skip.DEPTH_MAX + 9):
        text = opener * count + b"[]" + ends * count

        expected = len(text) if count * levels < json_skip.DEPTH_MAX else -1
        assert skipped(text) == expected, count


@pytest.mark.parametrize("text", [b'["abc', b"[12", b'["\\', b'["\\u00', b"[1,", b"[", b'{"a"', b'{"a":', b"[-", b"[1e", b"[1.", b"[tru", b"[[]"])  # fmt: skip
@pytest.mark.parametrize(
    "behind", [b"]", b'"]', b"e]", b"0]", b"e1]", b'0e9"]', b":1}"]
)
def test_what_lies_beyond_the_end_is_not_taken_for_the_rest(
    text: bytes, behind: bytes
) -> None:
    assert skipped(text, behind) == -1


@pytest.mark.parametrize(
    "text", [b"12", b"-", b"1.", b"-0.5", b"1e", b"1e-", b"12345678"]
)
@pytest.mark.parametrize("behind", [b"0,", b"12345678", b".0,", b"e0,", b"-1,"])
def test_a_number_that_reaches_the_end_is_doubted(text: bytes, behind: bytes) -> None:
    memory = np.frombuffer(text + behind * PAD, np.uint8)
    at = memory.ctypes.data

    assert json_skip.after_leaf(at, at + len(text)) == -1


@given(st.binary(max_size=40) | st.text(max_size=20).map(str.encode))
@example(b"")
@example(b"a.b")
@example(b"\x2d\x2f\x2d")
@example(b"........")
def test_a_hash_tells_dots_and_depends_on_every_byte(key: bytes) -> None:
    memory = np.frombuffer(key + b"." * PAD, np.uint8)

    state, dotted = uplink_content.key_hash(memory.ctypes.data, len(key))

    assert dotted == (b"." in key)
    for at in range(len(key)):
        other = bytearray(key + b"?" * PAD)
        other[at] ^= 1
        changed = np.frombuffer(bytes(other), np.uint8)
        assert uplink_content.key_hash(changed.ctypes.data, len(key))[0] != state
