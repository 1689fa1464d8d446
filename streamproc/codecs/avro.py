"""Avro in Confluent framing, read with the writer's own schema.

The schema's top-level record has to have the fields `FieldOptions` names: device,
property (and unit) as string or enum; time as long or int, with or without a timestamp
logical type, or as RFC 3339 string; value as double, float, long or int; or values as a
map of those. Any of them may be in a union with null. Other fields are ignored, whatever
they are. Flat records are decoded by `kernels.avro_scan`, all else by `avro_strict`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import fastavro
import numpy as np

from streamproc.codecs.avro_strict import Datum
from streamproc.codecs.columns import I4, U1, Sheet
from streamproc.codecs.confluent import Framed, SchemaUnusable, scan_all
from streamproc.codecs.strict import (
    RECORD_BYTES_MAX,
    UNIT_NS,
    FieldOptions,
    FlatRules,
    Reading,
    flat_readings,
)
from streamproc.core.payloads import Payloads
from streamproc.core.ports import WireSchema
from streamproc.core.values import Flag
from streamproc.kernels import avro_scan, bytes_fields

SCHEMA_CHARS_MAX: Final = 256 * 1024

ROLES: Final = ("device", "property", "time", "value", "values", "unit", "quality")
ROLE_CODES: Final = {
    "device": bytes_fields.DEVICE,
    "property": bytes_fields.PROPERTY,
    "time": bytes_fields.TIME,
    "value": bytes_fields.VALUE,
    "values": bytes_fields.VALUES,
    "unit": bytes_fields.UNIT,
    "quality": bytes_fields.QUALITY,
}

_TEXT: Final = frozenset({"string", "enum"})
_INTEGERS: Final = frozenset({"int", "long"})
_NUMBERS: Final = frozenset({"int", "long", "float", "double"})
_ALLOWED: Final = {
    "device": _TEXT,
    "property": _TEXT,
    "unit": _TEXT,
    "time": _INTEGERS | {"string"},
    "value": _NUMBERS,
    "values": frozenset({"map"}),
    "quality": _INTEGERS,
}
_NULL_AND_ONE: Final = 2
_LOGICAL_NS: Final = {
    "timestamp-millis": UNIT_NS["ms"],
    "timestamp-micros": UNIT_NS["us"],
    "timestamp-nanos": UNIT_NS["ns"],
}
_KINDS: Final = {
    "null": avro_scan.NULL,
    "boolean": avro_scan.BOOLEAN,
    "int": avro_scan.INT,
    "long": avro_scan.LONG,
    "float": avro_scan.FLOAT,
    "double": avro_scan.DOUBLE,
    "string": avro_scan.STRING,
    "bytes": avro_scan.BYTES,
    "fixed": avro_scan.FIXED,
    "enum": avro_scan.ENUM,
}


class ConfluentAvro(Framed):
    """`Decoder` of Confluent-framed Avro."""

    def __init__(self, options: FieldOptions | None = None) -> None:
        chosen = options or FieldOptions()
        super().__init__(lambda schema: AvroPlan(schema, chosen))


class AvroPlan:
    """One writer schema, compiled: operations for the kernel, a reader for the rest."""

    def __init__(self, schema: WireSchema, options: FieldOptions) -> None:
        self._names: dict[str, Any] = {}
        self._record = _parse(schema, self._names)
        self._roles = _roles(self._record, options)
        for role, node in self._roles_types():
            _check_role(role, node, self._names)
        self._rules = _flat_rules(dict(self._roles_types()), self._names, options)
        operations = _operations(self._record, self._roles, self._names)
        self._operations = (
            None if operations is None else np.array(operations, np.int64).reshape(-1)
        )
        self._kernel_rules = kernel_rules(self._rules)
        self._scratch = np.zeros(bytes_fields.SCRATCH_WORDS, np.int64)

    def _roles_types(self) -> Iterator[tuple[str, Any]]:
        for field in self._record["fields"]:
            role = self._roles.get(field["name"])
            if role is not None:
                yield role, field["type"]

    def scan(self, body: Payloads, rows: I4, sheet: Sheet) -> U1:
        """Decode the certain rows into the sheet; return 1 for each doubtful one."""
        doubtful = np.ones(len(rows), np.uint8)
        operations = self._operations
        if operations is not None:
            scan_all(
                lambda first: avro_scan.scan_avro(
                    *(body.data, body.starts, body.ends, rows, operations),
                    *(self._kernel_rules, self._scratch, sheet.words, doubtful, first),
                ),
                body,
                sheet,
                len(rows),
            )
        return doubtful

    def strict(self, body: bytes) -> list[Reading]:
        """Decode one datum. Raises `Refused`."""
        record = Datum(body, self._names).read(self._record)
        found = {role: record[name] for name, role in self._roles.items()}
        return flat_readings(found, self._rules)


def kernel_rules(rules: FlatRules) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the rules as `kernels.bytes_fields` takes them."""
    words = np.zeros(bytes_fields.RULES, np.int64)
    words[bytes_fields.TIME_UNIT_NS] = rules.unit_ns
    words[bytes_fields.ZONE_ASSUMED] = rules.zone_assumed
    words[bytes_fields.TIME_FLAGS] = rules.time_flags
    words[bytes_fields.SIZE_MAX] = RECORD_BYTES_MAX
    words[bytes_fields.VALUE_IMPLICIT] = rules.value_implicit
    return words


def _parse(schema: WireSchema, names: dict[str, Any]) -> Any:
    """Return the parsed top-level record; `names` gets every named type."""
    if schema.kind != "avro":
        message = f"a schema of kind {schema.kind}, not avro"
        raise SchemaUnusable(message)
    texts = [text for _, text in schema.references] + [schema.text]
    if sum(map(len, texts)) > SCHEMA_CHARS_MAX:
        message = f"more than {SCHEMA_CHARS_MAX} characters"
        raise SchemaUnusable(message)
    parsed: Any = None
    try:
        for text in texts:
            parsed = fastavro.parse_schema(json.loads(text), named_schemas=names)
    except (
        *(ValueError, TypeError, KeyError, AttributeError, RecursionError),
        *(fastavro.schema.SchemaParseException, fastavro.schema.UnknownType),
    ) as error:
        message = f"no valid Avro schema: {error}"
        raise SchemaUnusable(message) from error
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        message = "the top level is no record"
        raise SchemaUnusable(message)
    return parsed


def _roles(record: Any, options: FieldOptions) -> dict[str, str]:
    """Return field name → role of the fields the options name.

    Raises:
        SchemaUnusable: a field that every reading needs is not there.
    """
    fields = {field["name"] for field in record["fields"]}
    roles = {getattr(options, role): role for role in ROLES}
    require_roles({role for name, role in roles.items() if name in fields}, options)
    return {name: role for name, role in roles.items() if name in fields}


def require_roles(present: set[str], options: FieldOptions) -> None:
    """Raise `SchemaUnusable` unless a schema has what every reading needs."""
    needed = ["device", "time"]
    if "values" not in present:
        needed += ["property", "value"]
    absent = [getattr(options, role) for role in needed if role not in present]
    if absent:
        message = f"field {' and '.join(absent)} is not in the schema"
        raise SchemaUnusable(message)


def _resolved(node: Any, names: Mapping[str, Any]) -> Any:
    """Return a type node as dict or list: names looked up, wrappers taken off."""
    while True:
        if isinstance(node, list):
            return node
        if isinstance(node, str):
            if node in _KINDS and node not in {"fixed", "enum"}:
                return {"type": node}
            node = names[node]
        elif isinstance(node["type"], str) and node["type"] not in names:
            return node
        else:
            node = node["type"]


def _branches(node: Any, names: Mapping[str, Any]) -> list[Any]:
    """Return what a field may hold besides null."""
    node = _resolved(node, names)
    nodes = (
        [_resolved(one, names) for one in node] if isinstance(node, list) else [node]
    )
    return [one for one in nodes if one["type"] != "null"]


def _check_role(role: str, node: Any, names: Mapping[str, Any]) -> None:
    for branch in _branches(node, names):
        kind = branch["type"]
        if kind not in _ALLOWED[role]:
            message = f"the {role} field has type {kind}, not supported"
            raise SchemaUnusable(message)
        inner = _branches(branch["values"], names) if kind == "map" else []
        for item in inner:
            if item["type"] not in _NUMBERS:
                detail = f"the {role} field maps to {item['type']}, not supported"
                raise SchemaUnusable(detail)


def _flat_rules(
    roles: Mapping[str, Any], names: Mapping[str, Any], options: FieldOptions
) -> FlatRules:
    units: set[int] = set()
    local = False
    for branch in _branches(roles["time"], names):
        logical = branch.get("logicalType", "")
        local = local or logical.startswith("local-")
        if logical.removeprefix("local-") in _LOGICAL_NS:
            units.add(_LOGICAL_NS[logical.removeprefix("local-")])
        elif logical and branch["type"] != "string":
            message = f"the time field is a {logical}, not supported"
            raise SchemaUnusable(message)
        elif branch["type"] in _INTEGERS:
            units.add(UNIT_NS[options.time_unit])
    zone_assumed = options.assume_zone == "UTC"
    if local and not zone_assumed:
        message = "the time field is local, and no zone is assumed"
        raise SchemaUnusable(message)
    if len(units) > 1:
        message = "the time field is a union of different units"
        raise SchemaUnusable(message)
    flags = int(Flag.TZ_ASSUMED) if local else 0
    return FlatRules(units.pop() if units else 0, flags, zone_assumed)


def _operations(
    record: Any, roles: Mapping[str, str], names: Mapping[str, Any]
) -> list[list[int]] | None:
    """Return the kernel's operations, None where the schema is beyond it."""
    operations = []
    for field in record["fields"]:
        role = roles.get(field["name"])
        operation = _operation(field["type"], role, names)
        if operation is None:
            return None
        operations.append(operation)
    return operations


def _operation(
    node: Any, role: str | None, names: Mapping[str, Any]
) -> list[int] | None:
    code = bytes_fields.IGNORED if role is None else ROLE_CODES[role]
    node = _resolved(node, names)
    null_branch = -1
    if isinstance(node, list):
        kinds = [_resolved(one, names)["type"] for one in node]
        if len(node) != _NULL_AND_ONE or kinds.count("null") != 1:
            return None
        null_branch = kinds.index("null")
        node = _resolved(node[1 - null_branch], names)
    kind = node["type"]
    detail = 0
    if kind == "map" and role == "values":
        items = _resolved(node["values"], names)
        if isinstance(items, list):
            return None
        return [avro_scan.MAP, code, _KINDS[items["type"]], null_branch]
    if kind not in _KINDS or (kind == "enum" and role is not None):
        return None
    if kind == "fixed":
        detail = node["size"]
        if not isinstance(detail, int) or not 0 <= detail <= RECORD_BYTES_MAX:
            return None
    elif kind == "enum":
        detail = len(node["symbols"])
    return [_KINDS[kind], code, detail, null_branch]
