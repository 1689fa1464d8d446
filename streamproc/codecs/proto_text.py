"""A strict parser for the part of the .proto language that flat readings need.

The registry serves Protobuf schemas as .proto text and the protobuf package has no
parser for it, so this reads a subset: `syntax = "proto3"`, `package`, simple options,
top-level messages of scalar fields (`optional` or not), `map<string, number>`,
`reserved`, comments. Whatever else stands there is named in `SchemaUnusable`.
"""

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from streamproc.codecs.confluent import SchemaUnusable

TEXT_CHARS_MAX: Final = 256 * 1024
NUMBER_MAX: Final = (1 << 29) - 1
_RESERVED_NUMBERS: Final = range(19_000, 20_000)

NUMERIC: Final = frozenset(
    {
        *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64"),
    }
)
SCALARS: Final = NUMERIC | {"bool", "string", "bytes"}

_TOKEN = re.compile(
    r"\s+|//[^\n]*|/\*.*?\*/"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>0[xX][0-9a-fA-F]+|\d+)"
    r"|(?P<text>\"[^\"\\\n]*\"|'[^'\\\n]*')"
    r"|(?P<sign>[{}=;<>,.()\[\]-])",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ProtoField:
    """One field. `type` is a scalar's name, of a map its values'; `optional` as declared."""

    name: str
    number: int
    type: str
    optional: bool = False
    is_map: bool = False


@dataclass(frozen=True, slots=True)
class ProtoMessage:
    """One flat message."""

    name: str
    fields: tuple[ProtoField, ...]


@dataclass(frozen=True, slots=True)
class ProtoFile:
    """What a .proto text declares; `messages` in the order of the message indexes."""

    package: str
    messages: tuple[ProtoMessage, ...]


def parse_proto(text: str) -> ProtoFile:
    """Parse a .proto text.

    Raises:
        SchemaUnusable: the text is not in the subset, or contradicts itself.
    """
    return _Parser(text).file()


def _unsupported(what: str) -> NoReturn:
    message = f"schema uses {what}, not supported"
    raise SchemaUnusable(message)


def _tokens(text: str) -> list[str]:
    if len(text) > TEXT_CHARS_MAX:
        message = f"more than {TEXT_CHARS_MAX} characters"
        raise SchemaUnusable(message)
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            message = f"no .proto text at {text[at : at + 20]!r}"
            raise SchemaUnusable(message)
        if match.lastgroup is not None:
            found.append(match.group())
        at = match.end()
    return found


class _Parser:
    """Recursive descent over the tokens; one method per construct."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def file(self) -> ProtoFile:
        self._syntax()
        package = ""
        messages: list[ProtoMessage] = []
        while self._at < len(self._tokens):
            word = self._next()
            if word == "message":
                messages.append(self._message())
            elif word == "package":
                package = self._dotted()
                self._expect(";")
            elif word == "option":
                self._option()
            elif word != ";":
                _unsupported(word)
        if not messages:
            message = "the schema declares no message"
            raise SchemaUnusable(message)
        _all_different([message.name for message in messages], "message")
        return ProtoFile(package, tuple(messages))

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        lexeme = self._peek()
        if not lexeme:
            message = "the .proto text ends too early"
            raise SchemaUnusable(message)
        self._at += 1
        return lexeme

    def _expect(self, *wanted: str) -> None:
        for one in wanted:
            lexeme = self._next()
            if lexeme != one:
                message = f"{lexeme!r} where {one!r} belongs"
                raise SchemaUnusable(message)

    def _word(self) -> str:
        lexeme = self._next()
        if not (lexeme[0].isalpha() or lexeme[0] == "_"):
            message = f"{lexeme!r} where a name belongs"
            raise SchemaUnusable(message)
        return lexeme

    def _number(self) -> int:
        lexeme = self._next()
        if not lexeme[0].isdigit():
            message = f"{lexeme!r} where a number belongs"
            raise SchemaUnusable(message)
        octal = lexeme[0] == "0" and lexeme.isdecimal()
        try:
            return int(lexeme, 8 if octal else 0)
        except ValueError as error:
            message = f"{lexeme[:20]!r} is no number"
            raise SchemaUnusable(message) from error

    def _dotted(self) -> str:
        name = self._word()
        while self._peek() == ".":
            self._next()
            name += "." + self._word()
        return name

    def _syntax(self) -> None:
        word = self._next()
        if word == "edition":
            _unsupported("editions")
        if word != "syntax":
            _unsupported("proto2 (no syntax statement)")
        self._expect("=")
        version = self._next().strip("\"'")
        if version != "proto3":
            _unsupported(version)
        self._expect(";")

    def _option(self) -> None:
        """Skip `name = constant ;`: none of the simple options touches the wire."""
        while self._peek() not in {"=", ""}:
            self._next()
        self._expect("=")
        if self._next() == "{":
            _unsupported("an option with a block")
        while self._next() != ";":
            pass

    def _message(self) -> ProtoMessage:
        name = self._word()
        self._expect("{")
        fields: list[ProtoField] = []
        reserved: list[range] = []
        reserved_names: set[str] = set()
        while (lexeme := self._next()) != "}":
            if lexeme == "reserved":
                self._reserved(reserved, reserved_names)
            elif lexeme == "option":
                self._option()
            elif lexeme != ";":
                fields.append(self._field(lexeme))
        _all_different([field.name for field in fields], "field")
        _all_different([str(field.number) for field in fields], "field number")
        for field in fields:
            taken = any(field.number in numbers for numbers in reserved)
            if taken or field.name in reserved_names:
                message = f"field {field.name} uses what is reserved"
                raise SchemaUnusable(message)
        return ProtoMessage(name, tuple(fields))

    def _field(self, lexeme: str) -> ProtoField:
        if lexeme in {"message", "enum", "oneof", "extensions", "extend", "group"}:
            _unsupported(
                f"a nested {lexeme}" if lexeme in {"message", "enum"} else lexeme
            )
        if lexeme in {"repeated", "required"}:
            _unsupported(f"a {lexeme} field")
        optional = lexeme == "optional"
        kind = self._next() if optional else lexeme
        is_map = kind == "map" and self._peek() == "<"
        if is_map:
            if optional:
                message = "a map cannot be optional"
                raise SchemaUnusable(message)
            kind = self._map_type()
        if kind not in SCALARS or self._peek() == ".":
            _unsupported(f"a field of type {kind}")
        name = self._word()
        self._expect("=")
        number = self._number()
        if not 1 <= number <= NUMBER_MAX or number in _RESERVED_NUMBERS:
            message = f"field {name} has number {number}"
            raise SchemaUnusable(message)
        if self._peek() == "[":
            while self._next() != "]":
                pass
        self._expect(";")
        return ProtoField(name, number, kind, optional, is_map)

    def _map_type(self) -> str:
        self._expect("<")
        key = self._word()
        self._expect(",")
        value = self._word()
        if key != "string" or value not in NUMERIC or self._peek() != ">":
            _unsupported(f"map<{key}, {value}>")
        self._expect(">")
        return value

    def _reserved(self, numbers: list[range], names: set[str]) -> None:
        while True:
            if self._peek()[:1] in {'"', "'"}:
                names.add(self._next()[1:-1])
            else:
                first = last = self._number()
                if self._peek() == "to":
                    self._next()
                    last = NUMBER_MAX
                    if self._peek() == "max":
                        self._next()
                    else:
                        last = self._number()
                numbers.append(range(first, last + 1))
            if self._peek() != ",":
                self._expect(";")
                return
            self._next()


def _all_different(names: list[str], what: str) -> None:
    for name in names:
        if names.count(name) > 1:
            message = f"{what} {name} is declared twice"
            raise SchemaUnusable(message)
