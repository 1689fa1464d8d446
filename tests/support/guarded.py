"""Kernels on memory next to pages nobody may touch: `python -m tests.support.guarded PAD CASE …`.

A process of its own, because an access too far kills it. What is read lies between two such
pages: it begins where the first ends, or ends `PAD` bytes before the second begins. Sheets are
written as tightly: each column and table ends where a guarded page begins, and has room for
nothing but what a kernel asked for.
"""

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.columns import _TABLES, Sheet, _Names
from streamproc.codecs.encode import WireReading, encode_uplink
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.codecs.packed import Packed
from streamproc.core.payloads import Payloads
from streamproc.core.ports import Decoder
from streamproc.core.values import OffsetSpan, Records, TopicPartition
from streamproc.kernels import (
    bytes_dict,
    bytes_fields,
    bytes_sheet,
    bytes_text,
    record_batch,
)
from tests.support.batches import Batch, Rec
from tests.support.formats import FORMATS
from tests.support.map_formats import MAPS, avro_of, protobuf_of
from tests.support.wire import PACKED_WORDS, UPLINKS, encoded

PAGES = 4
PROT_NONE = 0
ROOMY = 1 << 14
REPEATS = 8
"""Records before the one at the page's end: more than a scanner looks ahead."""


class Guarded:
    """Memory between two pages that may not be touched."""

    def __init__(self, pages: int = PAGES) -> None:
        self._map = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
        whole = np.frombuffer(self._map, np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        for page in (0, pages + 1):
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

    def last(self, data: bytes, pad: int) -> int:
        """Place bytes `pad` bytes before the end of the memory; return their index."""
        start = len(self.data) - pad - len(data)
        self.payloads([data], start, b"9" * pad)
        return start


def at_the_end(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a copy whose last byte is the last one before a guarded page."""
    memory = Guarded(array.nbytes // mmap.PAGESIZE + 1).data
    copy: npt.NDArray[Any] = memory[len(memory) - array.nbytes :].view(array.dtype)
    copy[:] = array
    return copy


class TightNames(_Names):
    """A table of names that ends at a guarded page."""

    def _allocate(self, entries: int, size: int) -> None:
        super()._allocate(entries, size)
        self._slots = at_the_end(self._slots)
        self.offsets = at_the_end(self.offsets)
        self.data = at_the_end(self.data)
        places = [bytes_dict.SLOTS, bytes_dict.OFFSETS, bytes_dict.DATA]
        memory = (self._slots, self.offsets, self.data)
        self.words[places] = [array.ctypes.data for array in memory]


class TightSheet(Sheet):
    """A sheet at guarded pages that begins with room for so many readings and bytes of names.

    One of the two is never enough, so that each bound is met by itself.
    """

    def __init__(self, readings: int, name_bytes: int) -> None:
        self._readings, self._name_bytes = readings, name_bytes
        super().__init__()

    def _forget(self) -> None:
        self.vocabulary = object()
        self._names = {
            table: TightNames(
                self.words[table : table + bytes_dict.WORDS], 1, self._name_bytes
            )
            for table in _TABLES
        }

    def begin(self, readings: int) -> None:
        super().begin(self._readings)

    def _allocate(self, capacity: int) -> None:
        super()._allocate(capacity)
        self._columns = [at_the_end(column) for column in self._columns]
        self.words[: len(self._columns)] = [c.ctypes.data for c in self._columns]

    def _reserve_seen(self) -> None:
        before = self._seen
        super()._reserve_seen()
        if self._seen is not before:
            self._seen = at_the_end(self._seen)
            self.words[bytes_sheet.SEEN] = self._seen.ctypes.data


# --- decoders -------------------------------------------------------------------------

LONG = "a key nobody asked for, and so long that a block does not hold it, nor do two"
JSON = [
    b'{"device":"razlog-0000001","property":"pm10","time":"2026-03-01T00:00:00.123Z","value":12.5}',
    b'{"device":"d7","property":"p","time":1772323200123,"value":-7,"fw":"v1","quality":1}\n',
    b'{"value": 1013.25, "time": "2026-03-01 00:00:00+02:00", "device": "a device with a long name", "property": "pm10", "unit": "ug/m3"}',
    b'{"time":"2026-03-01T00:00:00Z","device":"d","values":{"pm10":1.5,"no2":"2"},"units":{"pm10":"x"}}',
    b'{"device":"d\xc3\xa9","property":"p\\u0031","time":0,"value":1e3,"ok":false,"none":null}',
    # Literals of two and of three blocks, the last one at the end of the document.
    b'{"device":"d","%s":0,"property":"p","time":0,"value":1}' % LONG.encode(),
    b'{"%s":1,"device":"d","property":"p","time":0,"value":1%s}'
    % (LONG.encode() * 2, b" " * 80),
    b'{"device":"d","time":0,"values":{%s}}'
    % b",".join(b'"%c":%d' % (65 + k, k % 10) for k in range(26)),
]
UPLINKS_SENT = [
    encode_uplink("0101010101010101", 1_772_323_200_123_000, {"pm10": 1.5, "x": 7}),
    b'{"object":{"pm10":-7,"a":[true,{"\\u00e9":"\\u00e9"},1e-5],"state":"free"},"time":"2026-03-01T00:00:00.123456789+00:00","deviceInfo":{"x":[[1]],"devEui":"a device with a long name"}}\n',
    b'{"deviceInfo":{"devEui":"d\xc3\xa9"},"time":"2026-03-01 00:00:00+02:00","object":{"list":[0,{"t":12345678}],"state":"occupied","air.no2":12345678.12345678,"open":null},"x":12345678e12345678}',
]
JSON_OPTIONS = JsonOptions(device_from_key=True, assume_zone="UTC", string_numbers=True)
ONE_BYTE_NAMES = [chr(code) for code in range(0x20, 0x7F)]
"""The shortest entries there are: three bytes in Avro."""


def _all_of_avro() -> list[bytes]:
    time = "2026-03-01T00:00:00Z"
    return [
        avro_of("d", time, dict.fromkeys(names, 3), raw)
        for names, raw in ((["p", "no2"], b"\0\xff"), (ONE_BYTE_NAMES, None))
    ]


def _devices_of_protobuf() -> list[bytes]:
    """Return messages that name their device again and again: each time another one."""
    payloads = []
    for number in range(4):
        names = [b"%d-%d" % (number, k) for k in range(40)]
        fields = b"".join(b"\x0a" + bytes([len(name)]) + name for name in names)
        payloads += [payload + fields for payload in _few("protobuf")[:1]]
    return payloads


def _few(kind: str) -> list[bytes]:
    readings = [
        WireReading("d1", "pm10", 1_772_323_200_000_000, 1.5, "ug/m3", 3),
        WireReading("a device with quite a long name", "no2", -7, -0.1),
    ]
    return encoded(kind, readings)


DECODERS: dict[str, Callable[[], tuple[Decoder, list[bytes]]]] = {
    "json": lambda: (FlatJson(JSON_OPTIONS), JSON),
    "avro": lambda: (FORMATS["avro"].decoder(), _few("avro")),
    "avro-all": lambda: (MAPS["avro map"].decoder(), _all_of_avro()),
    "protobuf-map": lambda: (
        MAPS["protobuf map"].decoder(),
        [protobuf_of(WireReading("d", "", 7, 1.5), {"pm10": 1.5, "x": 2.0})],
    ),
    "protobuf": lambda: (FORMATS["protobuf"].decoder(), _few("protobuf")),
    "protobuf-devices": lambda: (
        FORMATS["protobuf"].decoder(),
        _devices_of_protobuf(),
    ),
    "packed": lambda: (FORMATS["packed"].decoder(), _packed("packed")),
    "packed-words": lambda: (
        Packed(replace(PACKED_WORDS, device_prefix="")),
        _packed("packed-words"),
    ),
    "chirpstack": lambda: (
        ChirpStack(replace(UPLINKS, booleans=True)),
        UPLINKS_SENT,
    ),
}


def _packed(kind: str) -> list[bytes]:
    few = _few(kind)
    return [*few, b"".join(few)]


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


def decode(name: str, pad: int) -> Iterator[int]:
    """Let a decoder that has met a document before read it cut off anywhere, and alone."""
    memory = Guarded()
    usual, documents = DECODERS[name]()
    bounds = ((1, 1), (1, ROOMY), (ROOMY, ROOMY))
    tight = [_tight(name, *bound) for bound in bounds]
    for document in documents:
        repeats = min(REPEATS, len(memory.data) // len(document) - 2)
        values = [document] * ((len(memory.data) - pad) // len(document))
        room = len(memory.data) - pad - sum(map(len, values))
        for decoder in tight:
            # More readings than the sheet begins with: it has to grow in time.
            decoder.decode(records(memory.payloads(values, room, b"")))
        for size in range(len(document), -1, -1):  # first all of it, all at once
            values = [document] * repeats + [document[:size]]
            room = len(memory.data) - pad - sum(map(len, values))
            # Behind it the document seems to go on, or there is nothing to stop at.
            for behind in (b"0" * pad, b"x" * pad, document[size:]):
                usual.decode(records(memory.payloads(values, room, behind)))
            last = memory.payloads(values, room, b"").between(repeats, repeats + 1)
            # What is written depends on whole values, so some of the cuts will do.
            for decoder in tight if (len(document) - size) % 8 == 0 else ():
                decoder.decode(records(last))
            values.reverse()
            usual.decode(records(memory.payloads(values, 0, document)))
            yield 1


def _tight(name: str, readings: int, name_bytes: int) -> Decoder:
    decoder, _ = DECODERS[name]()
    decoder._sheet = TightSheet(readings, name_bytes)  # type: ignore[attr-defined]  # each has one
    return decoder


# --- kernels that are called by themselves ----------------------------------------------


def batches(pad: int) -> Iterator[int]:
    """Scan and walk record batches cut off anywhere, and with every byte damaged."""
    memory = Guarded()
    rows = [Rec(n, b"v" * n * 9, b"k" * n, n, [("h", b"x")]) for n in range(5)]
    good = Batch(7, rows).encode() + Batch(20, rows[:2]).encode()
    lengths = struct.pack(">i", 1 << 30)
    changed = [good[:k] + bytes([good[k] ^ bit]) + good[k + 1 :]
               for k in range(len(good)) for bit in (1, 0x7F, 0x80)]  # fmt: skip
    for data in (
        *(good[:size] for size in range(len(good) + 1)),
        *(good[:size] + lengths for size in range(len(good))),
        *changed,
    ):
        start = memory.last(data, pad)
        table = np.zeros((4, record_batch.COLUMNS), np.int64)
        frozen = memory.data.view()
        frozen.flags.writeable = False
        count, _, _ = record_batch.scan(frozen, start, len(memory.data) - pad, table)
        table = table[:count]
        bodies = np.ascontiguousarray(table[:, [record_batch.START, record_batch.END]])
        bodies[:, 0] += record_batch.HEADER_BYTES
        sizes = np.maximum(bodies[:, 1] - bodies[:, 0], 0)
        room = int(np.minimum(table[:, record_batch.COUNT], sizes // 7).sum())
        window = np.array([0, record_batch.OFFSET_END], np.int64)
        times = np.empty((2, room), np.int64)
        record_batch.walk(
            *(frozen, bodies, table, window, times[0], times[1]),
            np.empty((4, room), np.int64),
        )
        yield 1


TEXTS = [
    *(b"-123456.789012", b"12345678901234567", b"0.1234567890123456789", b"1e5"),
    *(b"2026-03-01T00:00:00.123456789+02:00", b"2026-03-01t23:59:59Z"),
    *(b'a text with an end"', "é街🌳".encode(), b"\xf0\x9f\x8c\xb3" * 9, b"x" * 70),
]


def texts(pad: int) -> Iterator[int]:
    """Read texts cut off anywhere by every kernel of texts."""
    memory, day = Guarded(), np.array([0, -1, 0], np.int64)
    for text in TEXTS:
        for size in range(len(text) + 1):
            at = memory.data.ctypes.data + memory.last(text[:size], pad)
            end = at + size
            for kernel in (
                *(bytes_text.number, bytes_text.short_number, bytes_text.digits),
                *(bytes_text.rfc3339_us, bytes_text.is_clean),
                *(bytes_text.closing_quote, bytes_text.skip_space),
            ):
                kernel(at, end)
            bytes_dict.is_utf8(at, size)
            bytes_dict.is_name(at, size)
            if bytes_text.rfc3339_us(at, end)[0] >= 0:
                bytes_text.remember_day(at, day.ctypes.data)
            bytes_text.known_day_us(at, end, day.ctypes.data)
            yield 1


def names(pad: int) -> Iterator[int]:
    """Give codes to names of every size, new and known, into tables without room to spare."""
    memory = Guarded()
    for size in range(1, 300):
        table = TightNames(np.zeros(bytes_dict.WORDS, np.int64), 1, 1)
        for byte in (b"a", b"b", b"a"):
            start = memory.last(byte * size, pad)
            table.intern(
                Payloads(memory.data, np.array([start]), np.array([start + size]))
            )
        yield 1


def varints(pad: int) -> Iterator[int]:
    """Read varints that end nowhere."""
    memory = Guarded()
    for size in range(12):
        at = memory.data.ctypes.data + memory.last(b"\xff" * size, pad)
        bytes_fields.varint(at, at + size)
        yield 1


END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def arrow(pad: int) -> Iterator[int]:
    """Decode an Arrow stream, and every beginning of it."""
    memory = Guarded()
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
    fresh, learnt = ArrowIpc(), ArrowIpc()
    learnt.decode(records(Payloads.of([stream])))
    for decoder in (fresh, learnt):
        for size in range(1, len(stream) + 1):
            start = len(memory.data) - pad - size
            last = memory.payloads([stream[:size]], start, b"")
            read = len(decoder.decode(records(last)).readings)
            assert read == (batch.num_rows if size == len(stream) else 0)
            yield 1


def beyond(pad: int) -> Iterator[int]:
    """Touch the guarded page, to see that it is one."""
    memory = Guarded()
    at = memory.data.ctypes.data + len(memory.data) + pad
    yield bytes_text.skip_space(at, at + 1)


CASES: dict[str, Callable[[int], Iterator[int]]] = {
    "batches": batches,
    "texts": texts,
    "names": names,
    "varints": varints,
    "arrow": arrow,
    "beyond": beyond,
}


def main(pad: int, names: list[str]) -> None:
    for name in names:
        print(name, end=" ", flush=True)  # noqa: T201  (the last word of one that is killed)
        print(sum(CASES[name](pad) if name in CASES else decode(name, pad)))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
