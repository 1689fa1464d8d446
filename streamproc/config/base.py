"""What every section of the file is made from."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

REQUIRED: Final = ...
EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_SUFFIX: Final = "_us"


def key_of(name: str) -> str:
    """Return the key in the file of a field: a duration's name loses its unit."""
    return name.removesuffix(_SUFFIX).removesuffix("_")


class Section(BaseModel):
    """A table of the file: frozen, closed, numbers finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=key_of,
        validate_default=False,
    )


def option(
    default: Any,
    text: str,
    shown: str | None = None,
    extra: Mapping[str, Any] = EMPTY,
    **more: Any,
) -> Any:
    """Return a field that has `default` where the file says nothing.

    Args:
        default: the parsed value; `REQUIRED` for none.
        text: what the option does, and its unit.
        shown: the default as one would write it in the file; None means `default` itself.
        extra: further keys for the JSON Schema.
        more: further arguments of `pydantic.Field`.
    """
    if default is REQUIRED:
        return Field(description=f"{text} Required.", **more)
    if default is None:
        return Field(default=None, description=f"{text} Default: none.", **more)
    written = shown if shown is not None else default
    is_list = isinstance(default, tuple)
    return Field(
        default=default,
        description=f"{text} Default: {_written(written)}.",
        json_schema_extra={"default": list(default) if is_list else written, **extra},
        **more,
    )


def table(kind: type[Section], text: str) -> Any:
    """Return a field that holds a table, all defaults where the file has none."""
    return Field(default_factory=kind, description=text)


def several(text: str) -> Any:
    """Return a field that holds a list, empty where the file has none."""
    return Field(default=(), description=text)


def secret(text: str) -> Any:
    """Return a field that the file must not have: secret files or environment fill it."""
    return Field(default=None, description=text, repr=False)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
