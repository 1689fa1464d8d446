"""Arrow schemas as text: what `schemas/*.arrow.txt` hold, stable across Arrow versions."""

from typing import Any, Final, cast

import pyarrow as pa

from streamproc.core.schemas import DECODED, PUBLISHED

SCHEMA_FILES: Final = {
    f"{name}.arrow.txt": schema for name, schema in PUBLISHED.items()
}
"""File name → schema, for every published table; `decoded` is added below."""
SCHEMA_FILES["decoded.arrow.txt"] = DECODED


def schema_text(schema: pa.Schema) -> str:
    """Return one line per field: name, type, and `required` or `optional`."""
    width = max(len(field.name) for field in schema)
    return "".join(
        f"{field.name.ljust(width)}  {_type_text(field.type)}"
        f"  {'optional' if field.nullable else 'required'}\n"
        for field in schema
    )


def _type_text(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        pair = cast("pa.DictionaryType[Any, Any]", kind)
        index, value = _type_text(pair.index_type), _type_text(pair.value_type)
        return f"dictionary<{index}, {value}>"
    if pa.types.is_timestamp(kind):
        return f"timestamp[{kind.unit}, {kind.tz}]"
    if pa.types.is_map(kind):
        return f"map<{_type_text(kind.key_type)}, {_type_text(kind.item_type)}>"
    return _PLAIN[kind]


_PLAIN: Final[dict[pa.DataType, str]] = {
    pa.bool_(): "bool",
    pa.int8(): "int8",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.uint16(): "uint16",
    pa.uint64(): "uint64",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date32",
}
