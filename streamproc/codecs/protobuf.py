"""Protobuf in Confluent framing, read with the writer's own .proto text.

The message has to have the fields `FieldOptions` names: device, property (and unit) as
string; time as an integer or RFC 3339 string; value as any number, or values as
`map<string, number>`; quality as `optional` integer, because proto3 cannot tell a
quality of 0 from none. The same holds for a value that is not `optional`: absent means 0.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from streamproc.codecs.avro import ROLE_CODES, ROLES, kernel_rules, require_roles
from streamproc.codecs.columns import I4, I8, U1, Sheet
from streamproc.codecs.confluent import Framed, SchemaUnusable, scan_all
from streamproc.codecs.proto_text import NUMERIC, ProtoField, ProtoMessage, parse_proto
from streamproc.codecs.protobuf_strict import message_index, read_message
from streamproc.codecs.strict import (
    UNIT_NS,
    FieldOptions,
    FlatRules,
    Reading,
    Refused,
    flat_readings,
)
from streamproc.core.payloads import Payloads
from streamproc.core.ports import WireSchema
from streamproc.core.values import Reason
from streamproc.kernels import bytes_fields, protobuf_scan

OWN_FIELDS: Final = FieldOptions(time="time_us", time_unit="us")
"""The fields of `schemas/reading.proto`: what is read where nothing else is said."""

_INTEGERS: Final = NUMERIC - {"double", "float"}
_TEXT: Final = frozenset({"string"})
_ALLOWED: Final = {
    "device": _TEXT,
    "property": _TEXT,
    "unit": _TEXT,
    "time": _INTEGERS | _TEXT,
    "value": NUMERIC,
    "values": NUMERIC,
    "quality": _INTEGERS,
}
_KINDS: Final = {
    "int": protobuf_scan.INT,
    "sint": protobuf_scan.SINT,
    "uint": protobuf_scan.UINT,
    "double": protobuf_scan.DOUBLE,
    "float": protobuf_scan.FLOAT,
    "fixed": protobuf_scan.FIXED,
    "sfixed": protobuf_scan.SFIXED,
    "string": protobuf_scan.STRING,
    "bytes": protobuf_scan.BYTES,
}
_BITS_32: Final = frozenset(
    {"int32", "uint32", "sint32", "fixed32", "sfixed32", "float"}
)


class ConfluentProtobuf(Framed):
    """`Decoder` of Confluent-framed Protobuf."""

    def __init__(self, options: FieldOptions | None = None) -> None:
        chosen = options or OWN_FIELDS
        super().__init__(lambda schema: ProtobufPlan(schema, chosen))


class ProtobufPlan:
    """One .proto text, compiled: a table for the first message, a reader for each."""

    def __init__(self, schema: WireSchema, options: FieldOptions) -> None:
        if schema.kind != "protobuf":
            detail = f"a schema of kind {schema.kind}, not protobuf"
            raise SchemaUnusable(detail)
        if schema.references:
            detail = "schema uses references, not supported"
            raise SchemaUnusable(detail)
        file = parse_proto(schema.text)
        self._options = options
        self._roles = {getattr(options, role): role for role in ROLES}
        self._messages = [_wanted(message, self._roles) for message in file.messages]
        self._usable: list[FlatRules | SchemaUnusable] = [
            self._rules_of(message) for message in self._messages
        ]
        first = self._usable[0]
        if isinstance(first, SchemaUnusable) and len(self._usable) == 1:
            raise first
        self._table: I8 | None = None
        if isinstance(first, FlatRules):
            self._table = _table(self._messages[0], self._roles)
            self._kernel_rules = kernel_rules(first)
            self._scratch = np.zeros(bytes_fields.SCRATCH_WORDS, np.int64)

    def _rules_of(self, message: ProtoMessage) -> FlatRules | SchemaUnusable:
        try:
            return _rules(message, self._roles, self._options)
        except SchemaUnusable as unusable:
            return unusable

    def scan(self, body: Payloads, rows: I4, sheet: Sheet) -> U1:
        """Decode the certain rows into the sheet; return 1 for each doubtful one."""
        doubtful = np.ones(len(rows), np.uint8)
        table = self._table
        if table is not None:
            scan_all(
                lambda first: protobuf_scan.scan_protobuf(
                    *(body.data, body.starts, body.ends, rows, table),
                    *(self._kernel_rules, self._scratch, sheet.words, doubtful, first),
                ),
                body,
                sheet,
                len(rows),
            )
        return doubtful

    def strict(self, body: bytes) -> list[Reading]:
        """Decode one framed body. Raises `Refused`."""
        indexes, data = message_index(body)
        place = indexes[0]
        if len(indexes) > 1 or not 0 <= place < len(self._messages):
            detail = f"message index {indexes} is not in the schema"
            raise Refused(Reason.UNKNOWN_SCHEMA, detail)
        rules = self._usable[place]
        if isinstance(rules, SchemaUnusable):
            raise Refused(Reason.UNKNOWN_SCHEMA, str(rules))
        message = read_message(data, self._messages[place])
        found = {self._roles.get(name, ""): value for name, value in message.items()}
        return flat_readings(found, rules)


def _wanted(message: ProtoMessage, roles: Mapping[str, str]) -> ProtoMessage:
    """Return the message without the maps nobody reads: they count as unknown fields."""
    kept = [one for one in message.fields if not one.is_map or one.name in roles]
    return ProtoMessage(message.name, tuple(kept))


def _rules(
    message: ProtoMessage, roles: Mapping[str, str], options: FieldOptions
) -> FlatRules:
    """Return how the message's fields are read. Raises `SchemaUnusable`."""
    fields = {roles[one.name]: one for one in message.fields if one.name in roles}
    require_roles(set(fields), options)
    for role, field in fields.items():
        if field.type not in _ALLOWED[role] or field.is_map != (role == "values"):
            kind = f"map<string, {field.type}>" if field.is_map else field.type
            detail = f"the {role} field has type {kind}, not supported"
            raise SchemaUnusable(detail)
    if "quality" in fields and not fields["quality"].optional:
        detail = "the quality field is not optional: 0 cannot be told from absent"
        raise SchemaUnusable(detail)
    value = fields.get("value")
    return FlatRules(
        UNIT_NS[options.time_unit],
        zone_assumed=options.assume_zone == "UTC",
        value_implicit=value is not None and not value.optional,
    )


def _table(message: ProtoMessage, roles: Mapping[str, str]) -> I8 | None:
    """Return the kernel's table, None where a field number is beyond it."""
    size = (protobuf_scan.NUMBER_MAX + 1, protobuf_scan.ROW_WORDS)
    table = np.zeros(size, np.int64)
    for field in message.fields:
        if field.number > protobuf_scan.NUMBER_MAX:
            return None
        role = roles.get(field.name)
        table[field.number] = _table_row(field, role)
    return table.reshape(-1)


def _table_row(field: ProtoField, role: str | None) -> tuple[int, int, int, int]:
    code = bytes_fields.IGNORED if role is None else ROLE_CODES[role]
    bits = 32 if field.type in _BITS_32 else 64
    if field.type == "bool":
        return protobuf_scan.UINT, code, 64, 0
    kind = _KINDS[field.type.rstrip("0123456789")]
    if field.is_map:
        return protobuf_scan.MAP, code, kind, bits
    return kind, code, bits, 0
