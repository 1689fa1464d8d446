"""Bytes to a JSON document that keeps what a dict and a double would lose.

Objects keep keys that come twice, numbers their own text. UTF-8 only, no NaN or Infinity;
what else a document may be is up to each format.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn

from streamproc.codecs.strict import Refused
from streamproc.core.values import Reason


class Number(str):
    """A number's own text: it becomes a double or an exact time, once that is known."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object as the document wrote it, doubles included."""

    __slots__ = ()


def _refuse_constant(text: str) -> NoReturn:
    raise Refused(Reason.MALFORMED, f"{text} is not JSON")


def decoder_with(number: Callable[[str], Number]) -> json.JSONDecoder:
    """Return a decoder to `Pairs`, lists, texts, what `number` makes of numbers, bool and None."""
    return json.JSONDecoder(
        object_pairs_hook=Pairs,
        parse_float=number,
        parse_int=number,
        parse_constant=_refuse_constant,
    )


def document_of(payload: bytes, decoder: json.JSONDecoder) -> Any:
    """Return what `decoder` makes of a payload.

    Raises:
        Refused: no UTF-8, no JSON, or nested too deeply for the interpreter.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise Refused(Reason.BAD_TEXT, f"not UTF-8: {error.reason}") from error
    try:
        return decoder.decode(text)
    except RecursionError as error:
        raise Refused(Reason.MALFORMED, "nested too deeply") from error
    except ValueError as error:
        raise Refused(Reason.MALFORMED, f"not JSON: {error}") from error
