"""ChirpStack v4: uplink events in JSON, whose `object` the device profile's codec has decoded.

The device is `deviceInfo.devEui`, the time is `time` cut to µs, and what `ChirpStackOptions`
maps in `object` becomes readings. What kind an event is, its JSON does not say: it is in the
Kafka header `event`, else at the end of the record key (`….event.up`), else an event with a
payload is an uplink. Other events hold no reading and are ignored, and so are uplinks in
which nothing is mapped. An uplink with a payload that no codec has decoded is refused.

One record at a time: msgspec reads what has no escape and each key once, `chirpstack_strict`
all else. There is no kernel for this format yet.
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from streamproc.codecs.chirpstack_strict import (
    DEPTH_MAX,
    OTHER,
    READ,
    UP,
    Answer,
    ChirpStackOptions,
    StrictUplink,
    kind_of,
    without_object,
)
from streamproc.codecs.columns import Sheet
from streamproc.codecs.strict import (
    RECORD_BYTES_MAX,
    Reading,
    Refused,
    name_of,
    rfc3339_time,
)
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Ignored, Reason, Records, Reject

_DOUBTFUL: Final = bytes(range(0x20)) + b"\\"
_MINUS_ZERO: Final = re.compile(rb"-0(?![.eE])")
_FRACTION_UTC: Final = re.compile(r"(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII)
_KEYS: Final = tuple(f'"{name}"'.encode() for name in READ)


class _Doubt(Exception):
    """The strict path has to look."""


class _Info(msgspec.Struct):
    devEui: str | None = None  # noqa: N815  (ChirpStack's word)
    deviceName: str | None = None  # noqa: N815


class _Event(msgspec.Struct):
    time: str
    deviceInfo: _Info  # noqa: N815
    object: msgspec.Raw = msgspec.Raw()
    data: str | msgspec.UnsetType = msgspec.UNSET
    fPort: int | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


_EVENTS: Final = msgspec.json.Decoder(_Event)
_OBJECTS: Final = msgspec.json.Decoder(dict[str, Any])


class ChirpStack:
    """`Decoder` of ChirpStack v4 events in JSON."""

    def __init__(self, options: ChirpStackOptions) -> None:
        self._options = options
        self._strict = StrictUplink(options)
        self._keys = (*_KEYS, f'"{options.device}"'.encode())
        self._sheet = Sheet()

    def missing(self, records: Records) -> frozenset[int]:  # noqa: ARG002  (the port's shape)
        """Return nothing: JSON needs no schema."""
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Take no notice: JSON needs no schema."""

    def decode(self, records: Records) -> Decoded:
        """Return the whole batch."""
        decoded: list[tuple[int, list[Reading]]] = []
        rejects: list[Reject] = []
        ignored: list[Ignored] = []
        headers = records.headers or [()] * len(records)
        for row, (key, payload) in enumerate(
            zip(records.keys, records.values, strict=True)
        ):
            kind = kind_of(headers[row], key)
            if kind is not None and kind != UP:
                ignored.append(Ignored(row, kind))
                continue
            try:
                answer = self._one(payload, kind)
            except Refused as refused:
                rejects.append(Reject(row, refused.reason, refused.detail))
                continue
            if isinstance(answer, str):
                ignored.append(Ignored(row, answer))
            else:
                decoded.append((row, answer))
        sheet = self._sheet
        sheet.begin(sum(len(readings) for _, readings in decoded))
        sheet.add(decoded)
        return sheet.decoded(rejects, ignored)

    def _one(self, payload: bytes | None, kind: str | None) -> Answer:
        if not payload:
            raise Refused(Reason.EMPTY, "no payload" if payload is None else "0 bytes")
        if len(payload) > RECORD_BYTES_MAX:
            detail = f"{len(payload)} bytes, at most {RECORD_BYTES_MAX} are read"
            raise Refused(Reason.TOO_LARGE, detail)
        try:
            return self._fast(payload, kind)
        except (_Doubt, Refused, ValueError, OverflowError, RecursionError):
            # A fault is named by the strict path alone; msgspec's errors are `ValueError`.
            return self._strict.answer(payload, kind)

    def _fast(self, payload: bytes, kind: str | None) -> Answer:
        payload.isascii() or payload.decode()
        if (
            len(payload.translate(None, _DOUBTFUL)) != len(payload)
            or payload.count(b"{") + payload.count(b"[") > DEPTH_MAX
            or max(map(payload.count, self._keys)) > 1
        ):
            raise _Doubt
        event = _EVENTS.decode(payload)
        raw = bytes(event.object)
        if kind is None and not raw and event.data is event.fPort is msgspec.UNSET:
            return OTHER
        info = event.deviceInfo
        device = info.devEui if self._options.device == "devEui" else info.deviceName
        name_of(device, "device")
        assert device is not None
        event_us = _time_us(event.time)
        if not raw:
            return without_object(event.data)
        return self._readings(device, event_us, raw)

    def _readings(self, device: str, event_us: int, raw: bytes) -> Answer:
        content = _OBJECTS.decode(raw)
        if b"-0" in raw and _MINUS_ZERO.search(raw):
            raise _Doubt
        leaves: list[tuple[str, Any]] = []
        members = len(content) + _flatten(content.items(), "", leaves)
        # Without escapes, a quote before a colon ends a key: one a member, unless one comes twice.
        if members != raw.count(b'":'):
            raise _Doubt
        options = self._options
        found: dict[str, float] = {}
        for path, leaf in leaves:
            name = options.properties.get(path)
            if name is None:
                if options.unmapped == "quarantine" and isinstance(leaf, int | float):
                    raise _Doubt
            elif leaf is not None:
                value = self._value(leaf, name)
                if name in found or not math.isfinite(value):
                    raise _Doubt
                found[name] = value
        units = options.units
        return [
            Reading(device, name, units.get(name), event_us, value, 1, 0)
            for name, value in found.items()
        ] or UP

    def _value(self, leaf: Any, name: str) -> float:
        if isinstance(leaf, float):
            return leaf
        if isinstance(leaf, bool):
            if not self._options.booleans:
                raise _Doubt
            return float(leaf)
        if isinstance(leaf, int):
            return float(leaf)
        value = self._options.states.get(name, {}).get(leaf)
        if value is None:
            raise _Doubt
        return value


def _flatten(
    pairs: Iterable[tuple[Any, Any]], path: str, leaves: list[tuple[str, Any]]
) -> int:
    """Append (dotted path, leaf) of everything below; return how many members objects have."""
    members = 0
    for name, value in pairs:
        place = f"{path}{name}"
        if isinstance(value, dict):
            members += len(value) + _flatten(value.items(), f"{place}.", leaves)
        elif isinstance(value, list):
            members += _flatten(enumerate(value), f"{place}.", leaves)
        else:
            leaves.append((place, value))
    return members


@lru_cache(maxsize=1024)
def _second_us(text: str) -> int:
    """Return µs since 1970 of a time's first 19 characters. Raises `Refused`."""
    return rfc3339_time(f"{text}Z", zone_assumed=False)[0]


def _time_us(text: str) -> int:
    """Return µs since 1970 of a time in UTC as ChirpStack writes it, else doubt it."""
    found = _FRACTION_UTC.fullmatch(text, 19)
    if found is None:
        raise _Doubt
    return _second_us(text[:19]) + int((found[1] or "").ljust(6, "0")[:6])
