"""Packed binary: records of fixed size whose layout the operator declares.

A record holds one reading or several, one after the other; there is no header and no
schema. Batches go through `kernels.packed_scan`; what that doubts goes through
`packed_strict`, one record at a time.
"""

from typing import Final

import numpy as np

from streamproc.codecs.columns import I8, U1, Sheet
from streamproc.codecs.packed_strict import (
    DIGITS_MAX,
    SIZES,
    PackedOptions,
    StrictPacked,
)
from streamproc.codecs.strict import RECORD_BYTES_MAX, UNIT_NS, Reading, Refused
from streamproc.core.payloads import Payloads
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Reason, Records, Reject
from streamproc.kernels import bytes_dict, bytes_sheet, packed_scan
from streamproc.kernels.bytes_raw import PAD
from streamproc.kernels.bytes_text import TIME_US_MAX, TIME_US_MIN

_WORD_BITS: Final = 64
_KNOWN_BITS_MIN: Final = 12
_INT64: Final = np.iinfo(np.int64)
_DEVICE_KINDS: Final = {
    "u32": packed_scan.UNSIGNED,
    "u64": packed_scan.UNSIGNED,
    "i64": packed_scan.SIGNED,
    "text": packed_scan.TEXT,
}
_VALUE_KINDS: Final = {
    "i16": packed_scan.INTEGER,
    "i32": packed_scan.INTEGER,
    "f32": packed_scan.SINGLE,
    "f64": packed_scan.DOUBLE,
}


class Packed:
    """`Decoder` of packed records. Keeps names and devices' numbers; no answer depends on it."""

    def __init__(self, options: PackedOptions) -> None:
        self._options = options
        self._strict = StrictPacked(options)
        self._plan = _plan(options)
        self._text = _text_buffer(options)
        self._known: I8 = np.zeros(0, np.int64)
        self._codes: I8 = np.zeros(0, np.int64)
        self._vocabulary: object = None
        self._sheet = Sheet()

    def missing(self, records: Records) -> frozenset[int]:  # noqa: ARG002  (the port's shape)
        """Return nothing: the configuration is the schema."""
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Take no notice: the configuration is the schema."""

    def decode(self, records: Records) -> Decoded:
        """Return readings and rejects of the whole batch."""
        payloads = records.values
        sheet = self._sheet
        sheet.begin(payloads.nbytes // self._options.size + 64)
        if self._vocabulary is not sheet.vocabulary:
            self._know_names()
        self._know_devices()
        doubtful = self._scan(payloads)
        decoded: list[tuple[int, list[Reading]]] = []
        rejects: list[Reject] = []
        for row in np.flatnonzero(doubtful).tolist():
            try:
                decoded.append((row, self._one(payloads[row])))
            except Refused as refused:
                rejects.append(Reject(row, refused.reason, refused.detail))
        sheet.add(decoded)
        return sheet.decoded(rejects)

    def _scan(self, payloads: Payloads) -> U1:
        count = len(payloads)
        doubtful = np.zeros(count, np.uint8)
        done = 0
        while done < count:
            done = packed_scan.scan_packed(
                payloads.data,
                payloads.starts,
                payloads.ends,
                self._plan,
                self._options.value_scale,
                self._codes,
                self._known,
                self._text,
                self._sheet.words,
                doubtful,
                done,
            )
            if done < count:
                self._grow(int(payloads.ends[done] - payloads.starts[done]))
        return doubtful

    def _grow(self, size: int) -> None:
        readings = size // self._options.size
        names = readings * int(self._plan[packed_scan.DEVICE_MAX])
        self._sheet.grow(max(names, readings * bytes_sheet.MEMBER_BYTES_MIN))

    def _know_names(self) -> None:
        """Give the configuration's names the codes they have in the sheet's tables."""
        options, sheet = self._options, self._sheet
        names = list(options.properties.values())
        units = [options.units.get(name) for name in names]
        self._codes = _code_table(
            list(options.properties),
            sheet.codes(bytes_sheet.PROPERTIES, names).tolist(),
            sheet.codes(bytes_sheet.UNITS, units).tolist(),
        )
        self._plan[packed_scan.CODE_BITS] = (
            len(self._codes) // packed_scan.CODE_WORDS
        ).bit_length() - 1
        self._known = np.zeros(0, np.int64)
        self._vocabulary = sheet.vocabulary

    def _know_devices(self) -> None:
        """Have four slots for each device met so far, and some; empty ones if there are more."""
        names = int(self._sheet.words[bytes_sheet.DEVICES + bytes_dict.COUNT])
        slots = len(self._known) // 2
        if not slots or 2 * names > slots:
            bits = max(_KNOWN_BITS_MIN, (4 * names).bit_length())
            self._plan[packed_scan.KNOWN_BITS] = bits
            self._known = np.full(2 << bits, -1, np.int64)

    def _one(self, payload: bytes | None) -> list[Reading]:
        if not payload:
            raise Refused(Reason.EMPTY, "no payload" if payload is None else "0 bytes")
        if len(payload) > RECORD_BYTES_MAX:
            detail = f"{len(payload)} bytes, at most {RECORD_BYTES_MAX} are read"
            raise Refused(Reason.TOO_LARGE, detail)
        return self._strict.readings(payload)


def _plan(options: PackedOptions) -> I8:
    """Return the layout as the kernel takes it; `CODE_BITS` comes with the names."""
    text = options.device_type == "text"
    prefix = len(options.device_prefix.encode())
    unit_ns = UNIT_NS[options.time_unit]
    factor = packed_scan.NANOSECONDS if unit_ns == 1 else unit_ns // UNIT_NS["us"]
    words = {
        packed_scan.SIZE: options.size,
        packed_scan.BIG: int(options.byte_order == "big"),
        packed_scan.RECORD_MAX: RECORD_BYTES_MAX,
        packed_scan.DEVICE_AT: options.device_at,
        packed_scan.DEVICE_SHIFT: 0 if text else _shift(options.device_type),
        packed_scan.DEVICE_KIND: _DEVICE_KINDS[options.device_type],
        packed_scan.DEVICE_LENGTH: options.device_length,
        packed_scan.PREFIX: prefix,
        packed_scan.DEVICE_MAX: prefix
        + (options.device_length if text else DIGITS_MAX),
        packed_scan.CODE_AT: options.property_at,
        packed_scan.CODE_SHIFT: _shift(options.property_type),
        packed_scan.TIME_AT: options.time_at,
        packed_scan.TIME_SHIFT: _shift(options.time_type),
        packed_scan.TIME_SIGNED: int(options.time_type == "i64"),
        packed_scan.TIME_FACTOR: factor,
        # Both bounds are whole seconds. In nanoseconds, no int64 reaches them.
        packed_scan.TIME_LOW: TIME_US_MIN // factor if factor else _INT64.min,
        packed_scan.TIME_HIGH: TIME_US_MAX // factor if factor else _INT64.max,
        packed_scan.VALUE_AT: options.value_at,
        packed_scan.VALUE_SHIFT: _shift(options.value_type),
        packed_scan.VALUE_KIND: _VALUE_KINDS[options.value_type],
        packed_scan.QUALITY_AT: -1
        if options.quality_at is None
        else options.quality_at,
    }
    plan = np.zeros(packed_scan.PLAN_WORDS, np.int64)
    plan[list(words)] = list(words.values())
    return plan


def _shift(kind: str) -> int:
    return _WORD_BITS - 8 * SIZES[kind]


def _text_buffer(options: PackedOptions) -> U1:
    prefix = np.frombuffer(options.device_prefix.encode(), np.uint8)
    room = len(prefix) + max(options.device_length, DIGITS_MAX) + PAD
    buffer = np.zeros(packed_scan.DIGITS + room, np.uint8)
    buffer[packed_scan.DIGITS : packed_scan.DIGITS + len(prefix)] = prefix
    return buffer


def _code_table(keys: list[int], names: list[int], units: list[int]) -> I8:
    """Return the hash table of property codes, a quarter full at most."""
    bits = max(2, (4 * len(keys) - 1).bit_length())
    table = np.zeros((1 << bits, packed_scan.CODE_WORDS), np.int64)
    table[:, packed_scan.KEY] = -1
    for entry in zip(keys, names, units, strict=True):
        word = entry[0] * int(packed_scan.MIX) % (1 << _WORD_BITS)
        slot = word >> (_WORD_BITS - bits)
        while table[slot, packed_scan.KEY] >= 0:
            slot = (slot + 1) % len(table)
        table[slot, :3] = entry
    return table.reshape(-1)
