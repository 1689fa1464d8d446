"""Faults: where each is, what stands there, what is wrong, and what may have been meant.

A line reads `file: key.path = value: message`; for a value that did not come from the
file, the environment variable, secret file or `command line` stands in front instead.
"""

import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from streamproc.config.base import key_of
from streamproc.config.file import File
from streamproc.config.units import listed

KeyPath = tuple[str | int, ...]

SECRET_KEYS: Final = frozenset(
    {
        *("password", "key_password", "secret", "secrets"),
        *("secret_access_key", "session_token"),
    }
)
_SHOWN_MAX: Final = 80
UNKNOWN_KEY: Final = "unknown key"


class _Nothing:
    """Stands for: there is no value at this place."""


NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `value` is what stands at `path`, or `NOTHING`."""

    path: KeyPath
    message: str
    value: object = NOTHING

    def line(self, origin: str) -> str:
        """Return the line an operator reads."""
        where = dotted(self.path)
        shown = "" if self.value is NOTHING else f" = {_shown(self.path, self.value)}"
        middle = f"{where}{shown}: " if where else ""
        return f"{origin}: {middle}{self.message}"


def dotted(path: KeyPath) -> str:
    """Return `windows[0].every`, `source.formats."telemetry.nevers"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part.replace("_", "").replace("-", "").isalnum() and part.isascii()
        text += ("." if text else "") + (part if bare else json.dumps(part))
    return text


def _shown(path: KeyPath, value: object) -> str:
    if path and path[-1] in SECRET_KEYS:
        return "***"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `did you mean …?`, or which names there are."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 4, 0.6)
    if close:
        # Of equally close ones the plainest: ug/m3 before ug/m³.
        likeness = {name: _likeness(name, word) for name in close}
        best = min(n for n in close if likeness[n] == max(likeness.values()))
        return f"did you mean {best}?"
    return f"there are {listed(names)}" if names else "there are none"


def _likeness(name: str, word: str) -> float:
    return difflib.SequenceMatcher(a=name, b=word).ratio()


def value_at(document: object, path: KeyPath) -> object:
    """Return what stands at `path`, or `NOTHING`."""
    for part in path:
        if isinstance(document, str) or not isinstance(document, Mapping | Sequence):
            return NOTHING
        try:
            document = document[part]  # type: ignore[index]  # the wrong kind raises
        except (KeyError, IndexError, TypeError):
            return NOTHING
    return document


def existing(document: object, path: KeyPath) -> KeyPath:
    """Return the beginning of `path` that there is: a text may stand for a list of one."""
    while path and value_at(document, path) is NOTHING:
        path = path[:-1]
    return path


# --- what the models say --------------------------------------------------------------

_TEXTS: Final[Mapping[str, str]] = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false, without quotes",
    "bool_parsing": "must be true or false",
    "string_type": "must be text, in quotes",
    "tuple_type": "must be a list, in brackets",
    "finite_number": "must be a finite number",
}
_TABLES: Final = frozenset({"model_type", "dict_type", "model_attributes_type"})
_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def faults_of(
    error: ValidationError,
    document: Mapping[str, Any],
    model: type[BaseModel] = File,
) -> list[Fault]:
    """Return the faults that `model` found in `document`."""
    details = error.errors(include_url=False)
    return [_fault(detail, document, model) for detail in details]


def _fault(
    detail: ErrorDetails, document: Mapping[str, Any], model: type[BaseModel]
) -> Fault:
    path = detail["loc"]
    if detail["type"] == "missing":
        return Fault(path, "is missing")
    path = existing(document, path)
    return Fault(path, _message(detail, model), value_at(document, path))


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path, kind, facts = detail["loc"], detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{UNKNOWN_KEY}; {nearest(str(path[-1]), keys_at(path[:-1], model))}"
    if kind == "literal_error":
        return f"must be one of {_choices(str(facts['expected']))}"
    if kind in _TABLES:
        return f"must be a table, {_header(path)}"
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        return f"must be {text} {facts[name]}"
    return (
        str(facts["error"])
        if kind == "value_error"
        else _TEXTS.get(kind, detail["msg"])
    )


def _choices(expected: str) -> str:
    return expected.replace("'", "").replace(" or ", ", ")


def _header(path: KeyPath) -> str:
    names = [str(part) for part in path if not isinstance(part, int)]
    repeated = bool(path) and isinstance(path[-1], int)
    return f"[[{'.'.join(names)}]]" if repeated else f"[{'.'.join(names)}]"


def keys_at(path: KeyPath, model: type[BaseModel] = File) -> frozenset[str]:
    """Return the keys of the table at `path`; empty where any key is allowed."""
    kind: Any = model
    for part in path:
        kind = _inside(kind, part)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return frozenset(key_of(name) for name in kind.model_fields) - SECRET_KEYS
    return frozenset()


def _inside(kind: Any, part: str | int) -> Any:
    """Return the type of the value under `part` in a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {key_of(name): field for name, field in kind.model_fields.items()}
        return _plain(fields[part].annotation) if part in fields else None
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is tuple:
        return _plain(arguments[0])
    return _plain(arguments[1]) if origin is dict else None


def _plain(kind: Any) -> Any:
    """Take `Annotated` and `| None` away."""
    if typing.get_origin(kind) is typing.Annotated:
        return _plain(typing.get_args(kind)[0])
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        return _plain(next(a for a in typing.get_args(kind) if a is not type(None)))
    return kind
