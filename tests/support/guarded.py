"""Decode what ends next to a page nobody may read: `python -m tests.support.guarded FORMAT PAD`.

A process of its own, because a read too far kills it. The records lie between two such
pages: they begin where the first ends, or end `PAD` bytes before the second begins.
"""

import ctypes
import mmap
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.encode import encode_uplink
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from tests.support.wire import UPLINKS

PAGES = 4
PROT_NONE = 0
REPEATS = 8
"""Records before the one at the page's end: more than the scanner looks ahead."""

JSON = [
    b'{"device":"razlog-0000001","property":"pm10","time":"2026-03-01T00:00:00.123Z","value":12.5}',
    b'{"device":"d7","property":"p","time":1772323200123,"value":-7,"fw":"v1","quality":1}\n',
    b'{"value": 1013.25, "time": "2026-03-01 00:00:00+02:00", "device": "a device with a long name", "property": "pm10", "unit": "ug/m3"}',
    b'{"time":"2026-03-01T00:00:00Z","device":"d","values":{"pm10":1.5,"no2":"2"},"units":{"pm10":"x"}}',
    b'{"device":"d\xc3\xa9","property":"p\\u0031","time":0,"value":1e3,"ok":false,"none":null}',
]

UPLINK_EVENTS = [
    encode_uplink("0101010101010101", 1_772_323_200_123_000, {"pm10": 1.5, "x": 7}),
    b'{"object":{"pm10":-7,"a":[true,{"\\u00e9":"\\u00e9"},1e-5],"state":"free"},"time":"2026-03-01T00:00:00.123456789+00:00","deviceInfo":{"x":[[1]],"devEui":"a device with a long name"}}\n',
    b'{"deviceInfo":{"devEui":"d\xc3\xa9"},"time":"2026-03-01 00:00:00+02:00","object":{"list":[0,{"t":12345678}],"state":"occupied","air.no2":12345678.12345678,"open":null},"x":12345678e12345678}',
]


class Guarded:
    """Memory between two pages that may not be read."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, (PAGES + 2) * mmap.PAGESIZE)
        whole = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        for page in (0, PAGES + 1):
            address = whole.ctypes.data + page * mmap.PAGESIZE
            failed = libc.mprotect(
                ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE
            )
            if failed:
                raise OSError(ctypes.get_errno(), "mprotect")
        self.data = whole[mmap.PAGESIZE : -mmap.PAGESIZE]

    def payloads(self, values: list[bytes], start: int, behind: bytes) -> Payloads:
        """Place the values one after another from index `start` on, and `behind` after them."""
        joined = (b"".join(values) + behind)[: len(self.data) - start]
        self.data[start : start + len(joined)] = np.frombuffer(joined, np.uint8)
        ends = start + np.cumsum([len(value) for value in values], dtype=np.int64)
        starts = np.concatenate([np.array([start], np.int64), ends[:-1]])
        return Payloads(self.data, starts, ends)


def records(payloads: Payloads) -> Records:
    count = len(payloads)
    return Records(
        TopicPartition("telemetry.razlog", 0),
        np.arange(count, dtype=np.int64),
        np.full(count, -1, np.int64),
        payloads,
        payloads,  # keys, too, may end at the page
        OffsetSpan(0, count),
    )


def flat_json() -> Decoder:
    return FlatJson(
        JsonOptions(device_from_key=True, assume_zone="UTC", string_numbers=True)
    )


def uplinks() -> Decoder:
    return ChirpStack(replace(UPLINKS, booleans=True))


FORMATS: dict[str, tuple[Callable[[], Decoder], list[bytes]]] = {
    "json": (flat_json, JSON),
    "chirpstack": (uplinks, UPLINK_EVENTS),
}


def main(name: str, pad: int) -> None:
    memory = Guarded()
    make, documents = FORMATS[name]
    learning, plain = make(), make()
    decoded = 0
    for document in documents:
        for size in range(len(document) + 1):
            values = [document] * REPEATS + [document[:size]]
            room = len(memory.data) - pad - sum(map(len, values))
            # Behind it the document seems to go on, or there is nothing to stop at.
            for behind in (document[size:], b"0" * pad, b"x" * pad):
                last = memory.payloads(values, room, behind)
                learning.decode(records(last))
                plain.decode(records(last.between(REPEATS, REPEATS + 1)))
            values.reverse()
            learning.decode(records(memory.payloads(values, 0, document)))
            decoded += 1
    print(decoded)  # noqa: T201  (the answer to who started this)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
