"""Confluent framing: which writer schema a record has, and what to do when it is unknown.

A framed record is the byte 0, the schema id as int32 big endian, and the body (for
Protobuf the body starts with a list of message indexes). The newer form, byte 1 and a
16-byte GUID, is refused with a clear word. Nothing is ever guessed from the bytes: the
operator declares a topic framed, and a record without frame is malformed.

`Framed` is what the Avro and the Protobuf decoder share: it groups a batch by schema id
and lets the `Plan` compiled for each schema decode its rows.
"""

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from streamproc.codecs.columns import I4, I8, U1, Sheet
from streamproc.codecs.strict import RECORD_BYTES_MAX, Reading, Refused, printable
from streamproc.core.payloads import Payloads
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.values import Decoded, Reason, Records, Reject
from streamproc.kernels.frames import HEADER_BYTES, UNFRAMED, read_frames

SCHEMAS_MAX: Final = 4096
"""Schemas and certain problems kept; beyond, the oldest are asked for again."""


class SchemaUnusable(Exception):
    """A writer schema cannot be read into readings; the message says what it uses."""


class Plan(Protocol):
    """One writer schema, compiled."""

    def scan(self, body: Payloads, rows: I4, sheet: Sheet) -> U1:
        """Decode the certain rows into the sheet; return 1 for each doubtful one."""
        ...

    def strict(self, body: bytes) -> list[Reading]:
        """Decode one body. Raises `Refused`."""
        ...


def scan_all(
    scan: Callable[[int], int], body: Payloads, sheet: Sheet, count: int
) -> None:
    """Call a kernel until it is through; the sheet grows whenever it stops for room."""
    done = 0
    while done < count:
        done = scan(done)
        if done < count:
            sheet.grow(int(body.ends[done] - body.starts[done]))


def frame(schema_id: int, body: bytes) -> bytes:
    """Return `body` framed with magic byte 0 and a schema id of 0 to 2**31 - 1."""
    return b"\0" + schema_id.to_bytes(4, "big") + body


class Framed:
    """`Decoder` of Confluent-framed records; `compile_schema` makes a schema's plan."""

    def __init__(self, compile_schema: Callable[[WireSchema], Plan]) -> None:
        self._compile = compile_schema
        self._schemas: dict[int, Plan | Reject] = {}
        self._fleeting: dict[int, Reject] = {}
        self._sheet = Sheet()

    def missing(self, records: Records) -> frozenset[int]:
        """Return the schema ids of well-framed records nobody has told of yet."""
        met, _ = _schema_ids(records.values)
        return frozenset(set(met) - self._schemas.keys() - self._fleeting.keys())

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None:
        """Compile a schema, or keep the reason why its records are refused."""
        if isinstance(schema, SchemaProblem) and not schema.missing:
            detail = printable(f"schema {schema_id}: {schema.detail}")
            self._fleeting[schema_id] = Reject(0, Reason.REGISTRY_UNAVAILABLE, detail)
            return
        self._fleeting.pop(schema_id, None)
        while len(self._schemas) >= SCHEMAS_MAX:
            del self._schemas[next(iter(self._schemas))]
        self._schemas[schema_id] = self._plan(schema_id, schema)

    def _plan(
        self, schema_id: int, schema: WireSchema | SchemaProblem
    ) -> Plan | Reject:
        if isinstance(schema, SchemaProblem):
            detail = schema.detail
        else:
            try:
                return self._compile(schema)
            except SchemaUnusable as unusable:
                detail = str(unusable)
        detail = printable(f"schema {schema_id}: {detail}")
        return Reject(0, Reason.UNKNOWN_SCHEMA, detail)

    def decode(self, records: Records) -> Decoded:
        """Return readings and rejects of the whole batch."""
        payloads = records.values
        met, ids = _schema_ids(payloads)
        rejects = [
            Reject(row, *_why_unframed(payloads, row))
            for row in np.flatnonzero(ids == UNFRAMED).tolist()
        ]
        sheet = self._sheet
        sheet.begin(len(records) + 64)
        strict: list[tuple[int, list[Reading]]] = []
        for schema_id in met:
            rows = np.flatnonzero(ids == schema_id).astype(np.int32)
            plan = self._plan_of(schema_id)
            if isinstance(plan, Reject):
                rejects += [Reject(r, plan.reason, plan.detail) for r in rows.tolist()]
            else:
                body = Payloads(
                    payloads.data,
                    payloads.starts[rows] + HEADER_BYTES,
                    payloads.ends[rows],
                )
                _decode_rows(plan, body, rows, sheet, strict, rejects)
        sheet.add(strict)
        self._fleeting.clear()
        return sheet.decoded(rejects)

    def _plan_of(self, schema_id: int) -> Plan | Reject:
        known = self._schemas.get(schema_id) or self._fleeting.get(schema_id)
        if known is not None:
            return known
        detail = f"schema {schema_id} was not asked for"
        return Reject(0, Reason.REGISTRY_UNAVAILABLE, detail)


def _decode_rows(
    plan: Plan,
    body: Payloads,
    rows: I4,
    sheet: Sheet,
    strict: list[tuple[int, list[Reading]]],
    rejects: list[Reject],
) -> None:
    doubtful = plan.scan(body, rows, sheet)
    for k in np.flatnonzero(doubtful).tolist():
        row = int(rows[k])
        try:
            strict.append((row, plan.strict(body[k] or b"")))
        except Refused as refused:
            rejects.append(Reject(row, refused.reason, refused.detail))


def _schema_ids(payloads: Payloads) -> tuple[list[int], I8]:
    """Return the schema ids met, ascending, and every row's, `UNFRAMED` where it has none."""
    ids = np.empty(len(payloads), np.int64)
    uniform = read_frames(
        payloads.data, payloads.starts, payloads.ends, RECORD_BYTES_MAX, ids
    )
    met: list[int] = np.unique(ids[:1] if uniform else ids).tolist()
    return [schema_id for schema_id in met if schema_id != UNFRAMED], ids


def _why_unframed(payloads: Payloads, row: int) -> tuple[Reason, str]:
    payload = payloads[row]
    if not payload:
        return Reason.EMPTY, "no payload" if payload is None else "0 bytes"
    size = len(payload)
    if size > RECORD_BYTES_MAX:
        return Reason.TOO_LARGE, f"{size} bytes, at most {RECORD_BYTES_MAX} are read"
    if payload[0] == 1:
        detail = "framed by a schema GUID (magic byte 1); only ids are supported"
        return Reason.UNKNOWN_SCHEMA, detail
    if payload[0] == 0 and size >= HEADER_BYTES:
        return Reason.MALFORMED, "the schema id is negative"
    if payload[0] == 0:
        return Reason.MALFORMED, f"{size} bytes end within the schema id"
    return Reason.MALFORMED, f"first byte {payload[0]:#04x} is no Confluent framing"
