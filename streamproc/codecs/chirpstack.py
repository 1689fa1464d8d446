"""ChirpStack v4: uplink events in JSON, whose `object` the device profile's codec has decoded.

The device is `deviceInfo.devEui`, the time is `time` cut to µs, and what `ChirpStackOptions`
maps in `object` becomes readings. What kind an event is, its JSON does not say: it is in the
Kafka header `event`, else at the end of the record key (`….event.up`), else an event with a
payload is an uplink. Other events hold no reading and are ignored, and so are uplinks in
which nothing is mapped. An uplink with a payload that no codec has decoded is refused.

A batch goes through `kernels.uplink_scan` first; what that doubts goes through
`chirpstack_strict`, one record at a time.
"""

import numpy as np
import numpy.typing as npt

from streamproc.codecs.chirpstack_paths import Paths
from streamproc.codecs.chirpstack_strict import (
    UNDECODED,
    UP,
    Answer,
    ChirpStackOptions,
    StrictUplink,
    kind_of,
)
from streamproc.codecs.columns import Sheet
from streamproc.codecs.strict import RECORD_BYTES_MAX, Reading, Refused
from streamproc.core.payloads import Payloads
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Ignored, Reason, Records, Reject
from streamproc.kernels import json_parts, uplink_content, uplink_scan

U1 = npt.NDArray[np.uint8]


class ChirpStack:
    """`Decoder` of ChirpStack v4 events in JSON. Keeps names and a day; no answer depends on it."""

    def __init__(self, options: ChirpStackOptions) -> None:
        self._strict = StrictUplink(options)
        self._paths = Paths(options)
        self._scratch = np.full(uplink_content.SCRATCH_WORDS, -1, np.int64)
        # No day yet: the two words overlap, and no text fits both.
        self._scratch[json_parts.DAY] = 0
        self._sheet = Sheet()

    def missing(self, records: Records) -> frozenset[int]:  # noqa: ARG002  (the port's shape)
        """Return nothing: JSON needs no schema."""
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Take no notice: JSON needs no schema."""

    def decode(self, records: Records) -> Decoded:
        """Return the whole batch."""
        sheet = self._sheet
        sheet.begin(len(records) * self._paths.readings + 64)
        self._paths.know_names(sheet)
        fates = self._scan(records)
        decoded: list[tuple[int, list[Reading]]] = []
        rejects: list[Reject] = []
        ignored: list[Ignored] = []
        told = np.flatnonzero(fates)
        for row, fate in zip(told.tolist(), fates[told].tolist(), strict=True):
            try:
                answer = self._answer(records, row, fate)
            except Refused as refused:
                rejects.append(Reject(row, refused.reason, refused.detail))
                continue
            if isinstance(answer, str):
                ignored.append(Ignored(row, answer))
            else:
                decoded.append((row, answer))
        sheet.add(decoded)
        return sheet.decoded(rejects, ignored)

    def _scan(self, records: Records) -> U1:
        """Return what became of each record; its readings are in the sheet."""
        payloads, keys = records.values, records.keys
        count = len(payloads)
        fates = np.zeros(count, np.uint8)
        if records.headers is not None:
            # The kernel knows keys only, and headers go before them.
            fates[:] = [_kind(records, row) not in {None, UP} for row in range(count)]
            fates *= uplink_scan.DOUBTED
            keys = Payloads.nulls(count)
        done = 0
        while done < count:
            done = uplink_scan.scan_uplinks(
                payloads.data,
                payloads.starts,
                payloads.ends,
                keys.data,
                keys.starts,
                keys.ends,
                self._paths.rules,
                self._scratch,
                self._sheet.words,
                fates,
                done,
            )
            if done < count:
                self._sheet.grow(int(payloads.ends[done] - payloads.starts[done]))
        return fates

    def _answer(self, records: Records, row: int, fate: int) -> Answer:
        """Return what a record holds whose readings are not in the sheet. Raises `Refused`."""
        if fate == uplink_scan.EMPTY:
            return UP
        if fate == uplink_scan.UNDECODED:
            raise Refused(Reason.MISSING_FIELD, UNDECODED)
        kind = _kind(records, row)
        if kind is not None and kind != UP:
            return kind
        payload = records.values[row]
        if not payload:
            raise Refused(Reason.EMPTY, "no payload" if payload is None else "0 bytes")
        if len(payload) > RECORD_BYTES_MAX:
            detail = f"{len(payload)} bytes, at most {RECORD_BYTES_MAX} are read"
            raise Refused(Reason.TOO_LARGE, detail)
        return self._strict.answer(payload, kind)


def _kind(records: Records, row: int) -> str | None:
    headers = () if records.headers is None else records.headers[row]
    return kind_of(headers, records.keys[row])
