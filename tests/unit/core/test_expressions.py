"""Rule expressions: what is accepted, what it means, and how a refusal reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamproc.core.definition import WindowSpec
from streamproc.core.expressions import (
    CHARACTERS_MAX,
    READING_VARIABLES,
    ExpressionError,
    compile_expression,
    quantile_variable,
    window_variables,
)

HOUR = WindowSpec("1h", 3600, 3600, 0, (0.5, 0.95, 0.999))
NAMES = window_variables(HOUR)
TOKENS = ("mean", "count", *"()<>+-*/:", "and", "or", "not", "!=", ">=", "1", "2.5")


def holds(text: str, **values: float) -> bool:
    expression = compile_expression(text, NAMES | READING_VARIABLES)
    columns = {name: np.array([value], np.float64) for name, value in values.items()}
    result = expression(columns)
    assert result.dtype == np.bool_
    assert result.shape == (1,)
    return bool(result[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean > 50", True),
        ("mean >= 60 and count > 10", True),
        ("mean > 60 or not count > 11", True),
        ("0 < mean <= 59", False),
        ("10 < count < mean < 70", True),
        ("mean - 2 * count == 38", True),
        ("-mean / 2 < -29.5", True),
        ("--mean == 60", True),
        ("mean != 60", False),
        ("(mean > 1e2 or count > 1_0) and (mean) > 0", True),
        ("  mean\n  > 50\r\n and 1 < 2  # or not\n", True),
        ("1 > 2 or mean > 50", True),
        ("mean / 0 > 1", True),
    ],
)
def test_the_grammar_means_what_it_says(text: str, expected: bool) -> None:
    assert holds(text, mean=60.0, count=11.0) is expected


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
def test_a_value_that_is_missing_satisfies_no_comparison(operator: str) -> None:
    assert not holds(f"coverage {operator} 0.75", coverage=np.nan)
    assert not holds(f"0 / 0 {operator} coverage", coverage=1.0)
    assert holds(f"not coverage {operator} 0.75", coverage=np.nan)


def test_an_expression_knows_its_names_and_the_first_of_them() -> None:
    expression = compile_expression("5 < p95 and count > 3 or p95 > max", NAMES)

    assert expression.names == {"p95", "count", "max"}
    assert expression.first == "p95"


def test_a_window_offers_its_quantiles_by_percent() -> None:
    assert {"p50", "p95", "p99_9", "stddev", "coverage"} <= NAMES
    assert quantile_variable(0.07) == "p7"
    assert "p50" not in window_variables(WindowSpec("1m", 60, 60, 0))


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 1, "empty"),
        (" \n ", 1, "empty"),
        ("count > 3 and maen > 5", 15, "unknown name 'maen'; did you mean mean?"),
        ("  maen > 5", 3, "did you mean mean?"),
        ("maen", 1, "did you mean mean?"),
        ("zzzz > 5", 1, "there are count, coverage"),
        ("ä > 1 and maen > 1", 1, "unknown name 'ä'"),
        ("mean > 1 and ä > 1", 14, "unknown name 'ä'"),
        ("1 > 0", 1, "names no variable"),
        ("mean", 1, "a number, where a comparison is needed"),
        ("mean > 1 and count", 14, "a number, where a comparison is needed"),
        ("mean + (count > 1) > 1", 9, "a condition, where a number is needed"),
        ("mean > True", 8, "True is not a number"),
        ("mean > 'a'", 8, "'a' is not a number"),
        ("mean > 1j", 8, "1j is not a number"),
        ("mean > 1e999", 8, "too large"),
        ("mean > " + "9" * 400, 8, "too large"),
        ("mean >", 1, "invalid syntax"),
        ("5and mean > 1", 1, "invalid decimal literal"),
        ("mean > 1) or (mean > 2", 9, "unmatched ')'"),
        ("mean in (1, 2)", 9, "only comparisons"),
        ("mean is 1", 1, ""),
        ("mean ** 2 > 1", 1, "only comparisons"),
        ("+mean > 1", 1, "only comparisons"),
        ("abs(mean) > 1", 1, "only comparisons"),
        ("mean.real > 1", 1, "only comparisons"),
        ("mean[0] > 1", 1, "only comparisons"),
        ("(mean := 3) > 1", 2, "only comparisons"),
        ("lambda: mean", 1, "only comparisons"),
        ("mean > 1 if mean else 2", 1, "only comparisons"),
        ("__import__('os')", 1, "only comparisons"),
        ("mean > 1; mean", 9, "invalid syntax"),
        ("-" * 40 + "mean > 1", 32, "nested deeper"),
        ("mean > 1\x00", 1, "null bytes"),
        ("mean > \ud800", 1, "cannot be read"),
        ("a" * (CHARACTERS_MAX + 1), CHARACTERS_MAX + 1, "longer than"),
    ],
)
def test_a_refusal_names_the_column_and_the_problem(
    text: str, column: int, problem: str
) -> None:
    with pytest.raises(ExpressionError) as told:
        compile_expression(text, NAMES)

    assert problem in told.value.problem
    assert told.value.column == column
    assert str(told.value).startswith(f"column {column}: ")


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from([*TOKENS, "\n", "\\", "{", "'", ","]),
            max_size=30,
        ).map(" ".join),
    )
)
def test_any_text_compiles_or_is_refused_in_words(text: str) -> None:
    try:
        expression = compile_expression(text, NAMES)
    except ExpressionError:
        return
    columns = {name: np.array([1.0, np.nan, -3.0]) for name in NAMES}
    assert expression(columns).shape == (3,)


@given(st.lists(st.floats(width=64), min_size=2, max_size=40), st.data())
def test_an_answer_depends_on_its_own_row_alone(
    values: list[float], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(values) - 1))
    text = "not (value * 3 - 1) / value != 2 or 0 < value / 7 < 1e300"
    expression = compile_expression(text, READING_VARIABLES)
    column = np.array(values)

    whole = expression({"value": column})

    parts = [expression({"value": column[:cut]}), expression({"value": column[cut:]})]
    assert whole.tolist() == np.concatenate(parts).tolist()
