"""What the demo prints is what it has run."""

import ast
from pathlib import Path
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from streamproc.cli.demo_queries import POLARS, _polars


def root_with_readings(root: Path) -> Path:
    """Return an output root with more (city, property) pairs than the query shows."""
    for city in ("ange", "koeln", "razlog"):
        folder = root / "readings" / f"city={city}" / "date=2026-03-01"
        folder.mkdir(parents=True)
        names = [f"property-{number % 4}" for number in range(40)]
        values = [len(city) + number % 7 / 7 for number in range(40)]
        pl.DataFrame({"property": names, "value": values}).write_parquet(
            folder / "readings.parquet"
        )
    return root


def typed(text: str) -> Any:
    """Return the value of the last line of `text`, as an analyst's prompt does."""
    tree = ast.parse(text)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {}
    exec(compile(tree, "printed", "exec"), names)  # noqa: S102  (our own text)
    return eval(compile(ast.Expression(last.value), "printed", "eval"), names)  # noqa: S307


def test_the_printed_polars_query_returns_what_the_demo_shows(tmp_path: Path) -> None:
    root = root_with_readings(tmp_path)

    answer = typed(POLARS.format(root=root))

    assert answer.height == 8
    assert_frame_equal(answer, _polars(root))
