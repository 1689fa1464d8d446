"""Where the rules' state lies: one cell per (rule, series), in series order.

Only series of a rule's property in the rule's cities have cells, so the memory a rule
costs (72 bytes a cell, 136 once deadlines wait) follows the series it is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamproc.core.definition import Definition, RuleSpec, rule_version
from streamproc.core.expressions import (
    READING_VARIABLES,
    Expression,
    compile_expression,
    window_variables,
)
from streamproc.core.series import B1, I4, I8, SeriesNames
from streamproc.kernels import heap
from streamproc.kernels import rules as kernel

U1 = npt.NDArray[np.uint8]

CELLS: Final = "cells"
_SERIES_COUNT: Final = b"series"

_SCHEMA: Final = pa.schema(
    [
        ("rule_version", pa.dictionary(pa.int32(), pa.string())),
        ("city", pa.dictionary(pa.int32(), pa.string())),
        ("series", pa.int64()),
        ("since_us", pa.int64()),
        ("trigger", pa.int64()),
        ("value", pa.float64()),
        ("last_seen", pa.int64()),
        ("silent_since", pa.int64()),
        ("nth", pa.int32()),
        ("state", pa.int8()),
        ("by_timer", pa.bool_()),
    ]
)
_STORED: Final = tuple(_SCHEMA.names[3:])


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule as it is judged; `window` is an index, -1 where readings are judged."""

    spec: RuleSpec
    version: str
    property_code: int
    window: int
    when: Expression | None
    clear: Expression | None

    @property
    def on_readings(self) -> bool:
        """Tell whether `when` is judged on readings."""
        return self.when is not None and self.window < 0

    @property
    def names(self) -> frozenset[str]:
        """Return every variable its expressions read."""
        both = (self.when, self.clear)
        return frozenset().union(*(e.names for e in both if e is not None))

    def truth(self, columns: Mapping[str, npt.NDArray[np.float64]]) -> U1:
        """Return uint8[n] with the bits `WHEN` and `CLEAR`. Only with a `when`."""
        assert self.when is not None, self.spec.name
        when = self.when(columns)
        clear = ~when if self.clear is None else self.clear(columns)
        return when.astype(np.uint8) * np.uint8(kernel.WHEN) | clear.astype(
            np.uint8
        ) * np.uint8(kernel.CLEAR)


class Rulebook:
    """The definition's rules, compiled, and which of them concern which series.

    Raises `ExpressionError` for an expression that `config.py` would have refused.
    """

    def __init__(self, definition: Definition) -> None:
        self.cities: Final = {c.slug: code for code, c in enumerate(definition.cities)}
        self.windows: Final = {w.name: i for i, w in enumerate(definition.windows)}
        self._properties = {p.property: i for i, p in enumerate(definition.properties)}
        self.rules: Final = tuple(
            self._compile(definition, r) for r in definition.rules
        )
        self.table: Final = self._table(definition)
        self._start, self._count, self._flat = self._by_place(definition)
        self.on_readings: Final = self._properties_where(self.table["on_readings"])
        self.seen: Final = self._properties_where(self.table["no_data_us"] >= 0)
        self.row_properties: Final = self._properties_where(
            self.table["on_readings"] | (self.table["no_data_us"] >= 0)
        )

    def window_properties(self, window: int) -> B1:
        """Return by property code whether a rule is on it in this window."""
        return self._properties_where(self.table["window"] == window)

    def layout(self, city: I4, prop: I4) -> tuple[I4, I4]:
        """Return for these series the number of cells, and the cells' rules in a row."""
        key = city.astype(np.int64) * max(len(self._properties), 1) + prop
        count = self._count[key]
        total = int(count.sum())
        within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        return count, self._flat[np.repeat(self._start[key], count) + within]

    def _compile(self, definition: Definition, spec: RuleSpec) -> CompiledRule:
        allowed = READING_VARIABLES
        window = -1
        if spec.window is not None:
            window = self.windows[spec.window]
            allowed = window_variables(definition.windows[window])
        texts = (spec.when, None if spec.when is None else spec.clear)
        when, clear = (
            None if text is None else compile_expression(text, allowed)
            for text in texts
        )
        return CompiledRule(
            spec, rule_version(spec), self._properties[spec.property],
            -1 if when is None else window, when, clear,
        )  # fmt: skip

    def _table(self, definition: Definition) -> npt.NDArray[np.void]:
        table = np.zeros(len(self.rules), kernel.RULE)
        for row, rule in zip(table, self.rules, strict=True):
            silence = rule.spec.no_data_us
            row["for_us"] = rule.spec.for_us
            row["no_data_us"] = -1 if silence is None else silence
            row["on_readings"] = rule.on_readings
            row["window"] = rule.window
            if rule.window >= 0:
                row["every_us"] = definition.windows[rule.window].every_us
        return table

    def _by_place(self, definition: Definition) -> tuple[I8, I4, I4]:
        """Return start, count and the rules themselves by city * properties + property."""
        lists = [
            [
                index
                for index, rule in enumerate(self.rules)
                if rule.property_code == code
                and (not rule.spec.cities or city.slug in rule.spec.cities)
            ]
            for city in definition.cities
            for code in range(len(self._properties))
        ]
        count = np.array([len(one) for one in lists], np.int32)
        flat = np.array([index for one in lists for index in one], np.int32)
        return np.cumsum(count, dtype=np.int64) - count, count, flat

    def _properties_where(self, chosen: B1) -> B1:
        result = np.zeros(max(len(self._properties), 1), np.bool_)
        for rule, wanted in zip(self.rules, chosen, strict=True):
            result[rule.property_code] |= bool(wanted)
        return result


class Cells:
    """The cells of one partition and their deadlines.

    `sync` comes before every judgement: it gives cells to the series that are new.
    """

    def __init__(self, book: Rulebook) -> None:
        self._book = book
        self._first = np.zeros(1, np.int64)
        self._cells = np.zeros(0, kernel.CELL)
        self._nodes = np.zeros(0, heap.NODE)
        self._roots = np.full(max(len(book.cities), 1), heap.NO_NODE, np.int64)
        self._count = 0
        self._complete = True
        self._stirred = np.zeros(0, np.bool_)

    @property
    def waiting(self) -> bool:
        """Tell whether any deadline waits."""
        return bool((self._roots != heap.NO_NODE).any())

    def stirred(self, series: I4, more: I4) -> B1:
        """Return per entry of `series` whether a reading rule's cell of it is not at rest.

        Series in `more` are on the way to it, and are counted in until `refresh`.
        """
        self._stirred[more] = True
        return self._stirred[series]

    def refresh(self, series: I4, rows: npt.NDArray[np.intp]) -> None:
        """Look again at the cells of the series at `rows`, after they were judged."""
        kernel.look_again(self.state, series, rows, self._stirred)

    @property
    def state(self) -> kernel.State:
        """Return what the kernels work on; valid until the next `sync`."""
        return kernel.State(
            self._first,
            self._cells[: self._count],
            self._nodes[: 2 * self._count],
            self._roots,
            self._book.table,
        )

    def sync(self, names: SeriesNames) -> None:
        """Give cells to every series that has none yet."""
        if not self._complete:
            # Some rules may be new: lay out every cell, then put the restored ones back.
            old = self._cells[: self._count]
            self._reset()
            self._grow(names)
            self._put(old)
        elif names.city.size >= self._first.size:
            self._grow(names)

    def active(self) -> B1:
        """Return by series id whether an episode is open or pending."""
        cells = self._cells[: self._count]
        busy = (cells["state"] != kernel.OK) | (cells["silent_since"] != kernel.NEVER)
        result = np.zeros(self._first.size - 1, np.bool_)
        result[cells["series"][busy]] = True
        return result

    def gone(self, after: Definition, kept: B1) -> B1:
        """Return by cell whether its rule, its city or its series (`kept`) goes."""
        versions = {rule_version(rule) for rule in after.rules}
        slugs = {city.slug for city in after.cities}
        rules = np.array([r.version not in versions for r in self._book.rules], bool)
        cities = np.array([slug not in slugs for slug in self._book.cities], bool)
        cells = self._cells[: self._count]
        result: B1 = (
            rules[cells["rule"]] | cities[cells["city"]] | ~kept[cells["series"]]
        )
        return result

    def table(self) -> pa.Table:
        """Return every cell that differs from a new one."""
        cells = self._cells[: self._count]
        cells = cells[
            (cells["state"] != kernel.OK)
            | (cells["last_seen"] != kernel.NEVER)
            | (cells["trigger"] != kernel.NEVER)
        ]
        versions = [rule.version for rule in self._book.rules]
        columns: dict[str, pa.Array[Any]] = {
            "rule_version": _dictionary(cells["rule"], versions),
            "city": _dictionary(cells["city"], list(self._book.cities)),
        }
        for name in ("series", *_STORED):
            columns[name] = pa.array(np.ascontiguousarray(cells[name]))
        count = str(self._first.size - 1).encode()
        return pa.table(columns, _SCHEMA.with_metadata({_SERIES_COUNT: count}))

    def load(self, table: pa.Table, keep: I8 | None) -> None:
        """Take over what `table` wrote, under the new ids `keep` gives (-1: drop).

        Cells of rules and cities that are no more are dropped.
        """
        assert table.schema.equals(_SCHEMA), table.schema
        count = int((table.schema.metadata or {})[_SERIES_COUNT])
        keep = np.arange(count) if keep is None else keep
        versions = [rule.version for rule in self._book.rules]
        cells = np.zeros(table.num_rows, kernel.CELL)
        cells["rule"] = _codes(table["rule_version"], versions)
        cells["city"] = _codes(table["city"], list(self._book.cities))
        cells["series"] = keep[table["series"].to_numpy()]
        for name in _STORED:
            cells[name] = table[name].to_numpy()
        kept = (cells["rule"] >= 0) & (cells["city"] >= 0) & (cells["series"] >= 0)
        cells = cells[kept]
        self._cells = cells
        self._count = cells.size
        # Only its length counts until `sync` lays the cells out in series order.
        self._first = np.zeros(int(keep.max(initial=-1)) + 2, np.int64)
        self._complete = False
        self._enqueue()

    def _reset(self) -> None:
        self._first = np.zeros(1, np.int64)
        self._cells = np.zeros(0, kernel.CELL)
        self._nodes = np.zeros(0, heap.NODE)
        self._count = 0
        self._complete = True

    def _grow(self, names: SeriesNames) -> None:
        start = self._first.size - 1
        city, prop = names.city[start:], names.property[start:]
        count, rule = self._book.layout(city, prop)
        first = self._first[-1] + np.cumsum(count, dtype=np.int64)
        self._first = np.concatenate((self._first, first))
        at_rest = np.zeros(names.city.size - start, np.bool_)
        self._stirred = np.concatenate((self._stirred[:start], at_rest))
        self._reserve(self._count + rule.size)
        new = self._cells[self._count : self._count + rule.size]
        new[:] = np.zeros(1, kernel.CELL)
        new["rule"] = rule
        new["series"] = np.repeat(np.arange(start, names.city.size), count)
        new["city"] = np.repeat(city, count)
        for name in ("trigger", "last_seen", "silent_since"):
            new[name] = kernel.NEVER
        self._count += rule.size

    def _reserve(self, count: int) -> None:
        if count <= self._cells.size:
            return
        room = max(count, 2 * self._cells.size, 64)
        cells, nodes = np.zeros(room, kernel.CELL), np.zeros(2 * room, heap.NODE)
        cells[: self._count] = self._cells[: self._count]
        if self.waiting:  # else zeros, which stay untouched
            nodes[: 2 * self._count] = self._nodes[: 2 * self._count]
        self._cells, self._nodes = cells, nodes

    def _put(self, old: npt.NDArray[np.void]) -> None:
        width = max(len(self._book.rules), 1)
        cells = self._cells[: self._count]
        here = cells["series"].astype(np.int64) * width + cells["rule"]
        there = old["series"].astype(np.int64) * width + old["rule"]
        at = np.searchsorted(here, there)
        # A version names property and cities, so a kept cell's rule is still on its series.
        assert np.array_equal(here[at], there)
        cells[at] = old
        self._enqueue()

    def _enqueue(self) -> None:
        self._nodes = np.zeros(2 * self._cells.size, heap.NODE)
        self._roots[:] = heap.NO_NODE
        kernel.enqueue_all(self.state)
        cells = self._cells[: self._count]
        self._stirred = np.zeros(self._first.size - 1, np.bool_)
        self._stirred[cells["series"][cells["state"] != kernel.OK]] = True


def _dictionary(codes: I4, words: list[str]) -> "pa.Array[Any]":
    return pa.DictionaryArray.from_arrays(
        np.ascontiguousarray(codes), pa.array(words, pa.string())
    )


def _codes(column: "pa.ChunkedArray[Any]", words: list[str]) -> I4:
    """Return the place of each name among `words`, -1 for one that is not there."""
    known = pa.array(words, pa.string())
    found: Any = pc.index_in(column.cast(pa.string()), value_set=known)
    codes: I4 = found.fill_null(-1).to_numpy().astype(np.int32)
    return codes
