"""The JSON Schema that editors check and complete a configuration with."""

from typing import Any, Final

from streamproc.config.file import File

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """Return the schema of the TOML file, secrets left out; plain JSON data."""
    schema = File.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": DIALECT,
        "title": "streamproc configuration",
        "description": "One TOML file; every value can be overridden by "
        "STREAMPROC_<SECTION>__<KEY>.",
        "type": "object",
        "additionalProperties": False,
        "required": ["cities", "windows"],
        "properties": _tidy(schema["properties"]),
        "$defs": _tidy(schema["$defs"]),
    }


def _tidy(node: Any) -> Any:
    """Drop what TOML has not (null) and what only repeats the key (titles)."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: value for key, value in node.items() if not _noise(key, value)}
    choices = [c for c in rest.get("anyOf", ()) if c != {"type": "null"}]
    if len(choices) == 1:
        del rest["anyOf"]
        rest = {**choices[0], **rest}
    elif choices:
        rest["anyOf"] = choices
    return {key: _tidy(value) for key, value in rest.items()}


def _noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and value is None
    )
