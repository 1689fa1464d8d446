"""The expressions of alert rules: parsed once, evaluated over whole columns.

Grammar: comparisons (`> >= < <= == !=`, chained too), `and`, `or`, `not`, parentheses,
`+ - * /`, unary minus, decimal numbers and the names of variables. Python's parser reads
the text; every node that is not on that list is refused, so nothing can be called, looked
up or indexed.

NaN (a variable that has no value, 0/0) makes every comparison false, `!=` included; so
`not (coverage < 0.75)` is true where there is no coverage. Arithmetic is float64, element
by element: an answer depends on its own row alone, never on the batch it came with.
"""

import ast
import difflib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from streamproc.core.definition import WindowSpec

F8 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]
Columns = Mapping[str, F8]

CHARACTERS_MAX: Final = 500
DEPTH_MAX: Final = 32

READING_VARIABLES: Final = frozenset({"value"})
"""What a rule on readings may name."""

_AGGREGATE_VARIABLES: Final = (
    *("count", "invalid", "sum", "min", "max", "mean", "m2", "variance", "stddev"),
    *("first", "last", "coverage"),
)

_Kind = Literal["number", "condition"]
_Step = Callable[[Columns], npt.NDArray[np.generic]]


class ExpressionError(ValueError):
    """The text is not an expression we accept.

    Attributes:
        column: 1-based character of the text where the trouble starts.
        problem: what is wrong, with a suggestion where there is one.
    """

    def __init__(self, problem: str, column: int) -> None:
        self.problem = problem
        self.column = column
        super().__init__(f"column {column}: {problem}")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition.

    Attributes:
        text: as the operator wrote it.
        names: every variable it reads.
        first: the one named first in the text.
    """

    text: str
    names: frozenset[str]
    first: str
    _step: _Step = field(repr=False, compare=False)

    def __call__(self, columns: Columns) -> B1:
        """Return bool[n]: where the condition holds.

        `columns` has float64[n] for each of `names`; more do no harm.
        """
        with np.errstate(all="ignore"):
            return np.asarray(self._step(columns), np.bool_)


def quantile_variable(quantile: float) -> str:
    """Return the variable of a quantile: 0.5 → `p50`, 0.05 → `p5`, 0.999 → `p99_9`."""
    return f"p{quantile * 100:.10g}".replace(".", "_")


def window_variables(spec: WindowSpec) -> frozenset[str]:
    """Return what a rule on this window may name, its quantiles included."""
    quantiles = (quantile_variable(q) for q in spec.quantiles)
    return frozenset((*_AGGREGATE_VARIABLES, *quantiles))


def compile_expression(text: str, allowed: frozenset[str]) -> Expression:
    """Return the compiled condition.

    Raises:
        ExpressionError: not in the grammar, too long or deep, an unknown name, no
            variable at all, or a result that is a number.
    """
    tree = _parse(text)
    compiler = _Compiler(text, allowed)
    step = compiler.condition(tree, 1)
    if not compiler.used:
        msg = f"names no variable; there are {_listed(allowed)}"
        raise ExpressionError(msg, 1)
    first = min(compiler.used, key=lambda name: compiler.used[name])
    return Expression(text, frozenset(compiler.used), first, step)


def _parse(text: str) -> ast.expr:
    line = _one_line(text)
    indent = len(text) - len(line)
    if len(text) > CHARACTERS_MAX:
        msg = f"longer than {CHARACTERS_MAX} characters"
        raise ExpressionError(msg, CHARACTERS_MAX + 1)
    if not line:
        msg = "empty"
        raise ExpressionError(msg, 1)
    try:
        with warnings.catch_warnings():
            # Python only warns of `5and x`; the operator shall see it.
            warnings.simplefilter("error")
            return ast.parse(line, mode="eval").body
    except SyntaxError as error:
        column = min(max(error.offset or 1, 1), len(line) + 1)
        raise ExpressionError(error.msg, indent + column) from error
    except (ValueError, MemoryError, RecursionError) as error:
        msg = "cannot be read"
        raise ExpressionError(msg, 1) from error


def _one_line(text: str) -> str:
    """Return `text` without its indent, line ends as spaces, so that columns stay."""
    return text.replace("\r", " ").replace("\n", " ").lstrip()


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _less_or_greater(left: F8, right: F8) -> B1:
    # IEEE says NaN != NaN; here a missing value satisfies nothing.
    return np.less(left, right) | np.greater(left, right)


_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[F8, F8], B1]]] = {
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Eq: np.equal,
    ast.NotEq: _less_or_greater,
}
_ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[F8, F8], F8]]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}


class _Compiler:
    """Walks the tree once; `used` keeps where each name stands first."""

    def __init__(self, text: str, allowed: frozenset[str]) -> None:
        line = _one_line(text)
        self._bytes = line.encode(errors="replace")
        self._indent = len(text) - len(line)
        self._allowed = allowed
        self.used: dict[str, int] = {}

    def condition(self, node: ast.expr, depth: int) -> _Step:
        """Compile a node whose value is true or false."""
        self._check_depth(node, depth)
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self.condition(value, depth + 1) for value in values]
                return _all_of(parts) if isinstance(op, ast.And) else _any_of(parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.condition(operand, depth + 1)
                return lambda columns: np.logical_not(inner(columns))
            case ast.Compare():
                return self._comparison(node, depth)
        self.number(node, depth)  # a misspelt name in it is the better message
        raise self._error(node, "a number, where a comparison is needed")

    def number(self, node: ast.expr, depth: int) -> _Step:
        """Compile a node whose value is a float64."""
        self._check_depth(node, depth)
        match node:
            case ast.Name(id=name):
                return self._variable(node, name)
            case ast.Constant(value=value):
                constant = self._constant(node, value)
                return lambda _: constant
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.number(operand, depth + 1)
                return lambda columns: np.negative(_f8(inner(columns)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                apply = _ARITHMETIC[type(op)]
                one, two = self.number(left, depth + 1), self.number(right, depth + 1)
                return lambda columns: apply(_f8(one(columns)), _f8(two(columns)))
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(op=ast.Not()):
                raise self._error(node, "a condition, where a number is needed")
        raise self._error(node, "only comparisons, and/or/not, + - * / and names")

    def _comparison(self, node: ast.Compare, depth: int) -> _Step:
        operands = [
            self.number(operand, depth + 1)
            for operand in (node.left, *node.comparators)
        ]
        for op in node.ops:
            if type(op) not in _COMPARE:
                raise self._error(node, "only > >= < <= == != compare")
        pairs = [
            _compare(_COMPARE[type(op)], left, right)
            for op, (left, right) in zip(node.ops, pairwise(operands), strict=True)
        ]
        return _all_of(pairs)

    def _variable(self, node: ast.expr, name: str) -> _Step:
        if name not in self._allowed:
            close = difflib.get_close_matches(name, sorted(self._allowed), 1, 0.5)
            hint = f"did you mean {close[0]}?" if close else "there are "
            more = "" if close else _listed(self._allowed)
            raise self._error(node, f"unknown name {name!r}; {hint}{more}")
        column = self._column(node)
        self.used[name] = min(column, self.used.get(name, column))
        return lambda columns: columns[name]

    def _constant(self, node: ast.expr, value: object) -> F8:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(node, f"{value!r} is not a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(node, "too large for a float64")
        return np.asarray(number, np.float64)

    def _check_depth(self, node: ast.expr, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise self._error(node, f"nested deeper than {DEPTH_MAX}")

    def _column(self, node: ast.expr) -> int:
        # Python counts UTF-8 bytes from 0.
        before = self._bytes[: node.col_offset].decode(errors="replace")
        return self._indent + len(before) + 1

    def _error(self, node: ast.expr, problem: str) -> ExpressionError:
        return ExpressionError(problem, self._column(node))


def _f8(column: npt.NDArray[np.generic]) -> F8:
    return column.astype(np.float64, copy=False)


def _compare(apply: Callable[[F8, F8], B1], left: _Step, right: _Step) -> _Step:
    return lambda columns: apply(_f8(left(columns)), _f8(right(columns)))


def _all_of(parts: list[_Step]) -> _Step:
    return lambda columns: _reduce(np.logical_and, parts, columns)


def _any_of(parts: list[_Step]) -> _Step:
    return lambda columns: _reduce(np.logical_or, parts, columns)


def _reduce(
    apply: Callable[[npt.NDArray[np.generic], npt.NDArray[np.generic]], B1],
    parts: list[_Step],
    columns: Columns,
) -> npt.NDArray[np.generic]:
    result = parts[0](columns)
    for part in parts[1:]:
        result = apply(result, part(columns))
    return result
