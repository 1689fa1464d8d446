"""Flat JSON: one reading a record, or one device with many properties.

```json
{"device": "d7", "property": "pm10", "time": "2026-01-31T10:00:00Z", "value": 12.5,
 "unit": "ug/m3", "quality": 1}
{"device": "d7", "time": 1769853600000, "values": {"pm10": 12.5, "no2": 31},
 "units": {"pm10": "ug/m3"}}
```

`unit`, `units` and `quality` (1 if absent) may be left out; a null counts as absent; the
two forms do not mix; other keys are ignored. An epoch number is milliseconds unless
`JsonOptions.time_unit` says otherwise: its magnitude is never looked at. A record is
decoded whole or refused whole.

A batch goes through `kernels.json_scan` first; what that doubts goes through
`json_strict`, one record at a time.
"""

import numpy as np

from streamproc.codecs.columns import Sheet
from streamproc.codecs.json_strict import JsonOptions, StrictJson
from streamproc.codecs.strict import RECORD_BYTES_MAX, UNIT_NS, Reading, Refused
from streamproc.core.payloads import Payloads
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Reason, Records, Reject
from streamproc.kernels import json_layout, json_parts, json_scan


class FlatJson:
    """`Decoder` of flat JSON. Keeps names, layouts and a day; no answer depends on it."""

    def __init__(self, options: JsonOptions | None = None) -> None:
        self._options = options or JsonOptions()
        self._strict = StrictJson(self._options)
        self._keys = _key_words(self._options)
        self._rules = _rules(self._options)
        self._scratch = np.full(json_parts.SCRATCH_WORDS, -1, np.int64)
        # No day yet: the two words overlap, and no text fits both.
        self._scratch[json_parts.DAY] = 0
        self._layouts = np.zeros(json_layout.WORDS, np.int64)
        self._layouts[json_layout.USED] = json_layout.NODE_BYTES
        self._sheet = Sheet()

    def missing(self, records: Records) -> frozenset[int]:  # noqa: ARG002  (the port's shape)
        """Return nothing: JSON needs no schema."""
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Take no notice: JSON needs no schema."""

    def decode(self, records: Records) -> Decoded:
        """Return readings and rejects of the whole batch."""
        payloads = records.values
        keys = (
            records.keys
            if self._options.device_from_key
            else Payloads.nulls(len(records))
        )
        sheet = self._sheet
        sheet.begin(len(records) + 64)
        doubtful = self._scan(payloads, keys, sheet)
        decoded: list[tuple[int, list[Reading]]] = []
        rejects: list[Reject] = []
        for row in np.flatnonzero(doubtful).tolist():
            try:
                decoded.append((row, self._one(payloads[row], keys[row])))
            except Refused as refused:
                rejects.append(Reject(row, refused.reason, refused.detail))
        sheet.add(decoded)
        return sheet.decoded(rejects)

    def _scan(
        self, payloads: Payloads, keys: Payloads, sheet: Sheet
    ) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        count = len(payloads.starts)
        doubtful = np.zeros(count, np.uint8)
        rows = np.arange(count, dtype=np.int32)
        done = 0
        while done < count:
            done = json_scan.scan_json(
                payloads.data,
                payloads.starts,
                payloads.ends,
                keys.data,
                keys.starts,
                keys.ends,
                rows,
                self._keys,
                self._rules,
                self._scratch,
                self._layouts,
                sheet.words,
                doubtful,
                done,
            )
            if done < count:
                sheet.grow(int(payloads.ends[done] - payloads.starts[done]))
        return doubtful

    def _one(self, payload: bytes | None, key: bytes | None) -> list[Reading]:
        if not payload:
            raise Refused(Reason.EMPTY, "no payload" if payload is None else "0 bytes")
        if len(payload) > RECORD_BYTES_MAX:
            detail = f"{len(payload)} bytes, at most {RECORD_BYTES_MAX} are read"
            raise Refused(Reason.TOO_LARGE, detail)
        return self._strict.readings(payload, key)


def _key_words(
    options: JsonOptions,
) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    words = np.zeros((json_parts.FIELDS, json_parts.KEY_WORDS), np.uint64)
    for field, name in enumerate(options.keys()):
        quoted = f'"{name}"'.encode()
        words[field, 0] = len(quoted)
        padded = quoted.ljust(json_parts.KEY_BYTES_MAX, b"\0")
        words[field, 1:] = np.frombuffer(padded, np.uint64)
    return words


def _rules(options: JsonOptions) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    rules = np.zeros(json_parts.RULES, np.int64)
    rules[json_parts.TIME_UNIT_NS] = UNIT_NS[options.time_unit]
    rules[json_parts.ZONE_ASSUMED] = options.assume_zone == "UTC"
    rules[json_parts.DEVICE_FROM_KEY] = options.device_from_key
    # A state may be spelled like a number, so only the strict path may read strings.
    rules[json_parts.STRING_NUMBERS] = options.string_numbers and not options.states
    rules[json_parts.SIZE_MAX] = RECORD_BYTES_MAX
    return rules
