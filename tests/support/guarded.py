"""Decode what ends next to a page nobody may read: `python -m tests.support.guarded PAD`.

A process of its own, because a read too far kills it. The records lie between two such
pages: they begin where the first ends, or end `PAD` bytes before the second begins.
"""

import ctypes
import mmap
import sys

import numpy as np
import pyarrow as pa

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.core.payloads import Payloads
from streamproc.core.values import OffsetSpan, Records, TopicPartition

PAGES = 4
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
PROT_NONE = 0
REPEATS = 8
"""Records before the one at the page's end: more than the scanner looks ahead."""

DOCUMENTS = [
    b'{"device":"razlog-0000001","property":"pm10","time":"2026-03-01T00:00:00.123Z","value":12.5}',
    b'{"device":"d7","property":"p","time":1772323200123,"value":-7,"fw":"v1","quality":1}\n',
    b'{"value": 1013.25, "time": "2026-03-01 00:00:00+02:00", "device": "a device with a long name", "property": "pm10", "unit": "ug/m3"}',
    b'{"time":"2026-03-01T00:00:00Z","device":"d","values":{"pm10":1.5,"no2":"2"},"units":{"pm10":"x"}}',
    b'{"device":"d\xc3\xa9","property":"p\\u0031","time":0,"value":1e3,"ok":false,"none":null}',
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


def arrow_at_the_end(memory: Guarded) -> None:
    """Decode an Arrow stream, and every beginning of it, with no padding at all behind."""
    batch = pa.RecordBatch.from_pydict(
        {
            "device": pa.array(["d1", "a device with a long name"] * 4),
            "property": pa.array(["pm10"] * 8).dictionary_encode(),
            "time": pa.array(range(8), pa.timestamp("us", "UTC")),
            "value": pa.array([0.5] * 8),
            "unit": pa.array(["ug/m3---"] * 6 + ["ug/m3", "ppb"]),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream = sink.getvalue().to_pybytes()[: -len(END_OF_STREAM)]
    assert stream.endswith(b"ppb"), "the last text ends where the stream does"
    for decoder in (ArrowIpc(), learnt_from(ArrowIpc(), stream)):
        for size in range(1, len(stream) + 1):
            last = memory.payloads([stream[:size]], len(memory.data) - size, b"")
            read = len(decoder.decode(records(last)).readings)
            assert read == (batch.num_rows if size == len(stream) else 0)


def learnt_from(decoder: ArrowIpc, stream: bytes) -> ArrowIpc:
    decoder.decode(records(Payloads.of([stream])))
    return decoder


def main(pad: int) -> None:
    memory = Guarded()
    options = JsonOptions(device_from_key=True, assume_zone="UTC", string_numbers=True)
    learning, plain = FlatJson(options), FlatJson(options)
    decoded = 0
    for document in DOCUMENTS:
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
    arrow_at_the_end(memory)
    print(decoded)  # noqa: T201  (the answer to who started this)


if __name__ == "__main__":
    main(int(sys.argv[1]))
