import numpy as np

from streamproc.core.fingerprint import fingerprint_of
from streamproc.core.payloads import Payloads
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.kernels.crc32c import TABLE, crc32c


def slow_crc32c(data: bytes) -> int:
    """The definition, bit by bit."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = (rest >> 1) ^ (0x82F63B78 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


def records(key: bytes | None, value: bytes | None) -> Records:
    return Records(
        TopicPartition("t", 0),
        np.array([7], np.int64),
        np.array([1000], np.int64),
        Payloads.of([value]),
        Payloads.of([key]),
        OffsetSpan(7, 8),
    )


def test_the_kernel_gives_the_check_value_of_the_standard() -> None:
    data = np.frombuffer(b"123456789", np.uint8)

    assert crc32c(data, TABLE) == 0xE3069283


def test_the_kernel_agrees_with_its_slow_twin() -> None:
    rng = np.random.default_rng(1)
    for size in range(65):
        data = rng.integers(0, 256, size, dtype=np.uint8)

        assert crc32c(data, TABLE) == slow_crc32c(data.tobytes())


def test_null_and_empty_have_different_fingerprints() -> None:
    prints = {
        fingerprint_of(records(key, value), 0).crc32c
        for key in (None, b"", b"ab")
        for value in (None, b"", b"ab")
    }

    assert len(prints) == 9


def test_a_fingerprint_names_offset_and_broker_time() -> None:
    fingerprint = fingerprint_of(records(b"k", b"v"), 0)

    assert (fingerprint.offset, fingerprint.broker_us) == (7, 1000)
