"""The merged document as a model, even where parts of it are wrong.

All faults are to be listed at once, also those that only show between sections. So what a
model refuses is reported and taken out, until the rest is valid; checks between sections
look at the rest, and forgive names of parts that were taken out.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from streamproc.config.faults import (
    NOTHING,
    UNKNOWN_KEY,
    Fault,
    KeyPath,
    existing,
    faults_of,
    value_at,
)
from streamproc.config.file import File
from streamproc.config.layers import Layers

_ATTEMPTS_MAX: Final = 8


@dataclass(slots=True)
class Parsed:
    """The valid part of the document, and the faults found so far.

    Attributes:
        file: what is valid.
        document: everything, as it was written.
        faults: in the order they were found.
        refused: those of them that a model found, unknown keys aside.
        places: per list of tables, the original index of each entry of `file`.
    """

    file: File
    document: dict[str, Any]
    faults: list[Fault]
    refused: tuple[Fault, ...] = ()
    places: dict[str, list[int]] = field(default_factory=dict)

    def report(self, path: KeyPath, message: str) -> None:
        """Add a fault about the value at `path` of `file`.

        Says nothing where a model has refused what is there, or a part of it: the check
        then saw a default in its place.
        """
        place = path
        if len(path) > 1 and isinstance(path[1], int):
            index = self.places.get(str(path[0]), [])[path[1]]
            place = (path[0], index, *path[2:])
        if any(fault.path[: len(place)] == place for fault in self.refused):
            return
        value = value_at(self.document, place)
        if isinstance(value, dict | list):
            value = NOTHING
        self.faults.append(Fault(place, message, value))

    def touched(self, key: str, index: int) -> bool:
        """Tell whether a model refused a part of an entry of a list of tables."""
        entry = (key, self.places[key][index])
        return any(fault.path[:2] == entry for fault in self.refused)

    def written(self, key: str, name: str) -> frozenset[str]:
        """Return the `name` of every entry of a list of tables, valid or not."""
        entries = self.document.get(key)
        rows = entries if isinstance(entries, list) else []
        found = (row.get(name) for row in rows if isinstance(row, dict))
        return frozenset(text for text in found if isinstance(text, str))

    def slugs(self) -> frozenset[str]:
        """Return the slug of every city, valid or not."""
        cities = self.document.get("cities")
        return frozenset(cities if isinstance(cities, dict) else ())


def parse(layers: Layers) -> Parsed:
    """Return the valid part of the merged document and what its models refuse."""
    rest = copy.deepcopy(layers.document)
    places = {
        key: list(range(len(value)))
        for key, value in rest.items()
        if isinstance(value, list)
    }
    faults: list[Fault] = []
    for attempt in range(_ATTEMPTS_MAX):
        try:
            file = File.model_validate(rest)
        except ValidationError as error:
            if attempt == 0:
                faults = faults_of(error, layers.document)
            _prune(rest, places, error)
        else:
            break
    else:
        file, places = File(), {key: [] for key in places}
    return Parsed(file, layers.document, faults, _refused(faults), places)


def _refused(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    return tuple(fault for fault in faults if not fault.message.startswith(UNKNOWN_KEY))


def _prune(
    rest: dict[str, Any], places: dict[str, list[int]], error: ValidationError
) -> None:
    """Take out what the model refuses; of a table that lacks a key, the table."""
    paths = {
        existing(rest, d["loc"][:-1] if d["type"] == "missing" else d["loc"])
        for d in error.errors(include_url=False)
    }
    for path in _last_first(paths):
        if not path:
            continue
        holder = value_at(rest, path[:-1])
        del holder[path[-1]]  # type: ignore[attr-defined]  # it holds something there
        if len(path) == 2 and isinstance(path[1], int):  # noqa: PLR2004  (an entry of a list)
            del places[str(path[0])][path[1]]


def _last_first(paths: Iterable[KeyPath]) -> list[KeyPath]:
    """Return paths so that taking one out leaves the indices of the next ones alone."""
    return sorted(
        paths,
        key=lambda path: [(isinstance(part, int), part) for part in path],
        reverse=True,
    )
