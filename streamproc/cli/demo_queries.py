"""The queries an analyst would type, and their answers: polars and DuckDB."""

from pathlib import Path

import polars as pl
from rich.syntax import Syntax

from streamproc.cli.console import out, table

POLARS = """\
import polars as pl
readings = pl.scan_parquet("{root}/readings/**/*.parquet", hive_partitioning=True)
(readings.group_by("city", "property")
    .agg(pl.len().alias("readings"), pl.col("value").mean().round(2).alias("mean"))
    .sort("city", "property").head(8).collect())
"""

DUCKDB = """\
SELECT city, property, count(*) AS windows, sum(count) AS readings,
       round(sum(sum) / sum(count), 2) AS mean, max(max) AS highest
FROM read_parquet('{root}/aggregates/window=5s/**/*.parquet', hive_partitioning = true)
WHERE property IN ('pm10', 'temperature', 'vehicle_count')
GROUP BY ALL ORDER BY ALL LIMIT 8
"""

ALERTS = """\
SELECT city, rule, severity, state, count(*) AS transitions
FROM read_parquet('{root}/alerts/**/*.parquet', hive_partitioning = true)
GROUP BY ALL ORDER BY ALL LIMIT 8
"""


def show_queries(root: Path) -> None:
    """Print each query and what it returns."""
    out.print("\n[bold]What an analyst would type[/]\n")
    _show(POLARS, "python", _polars(root), root)
    _show(DUCKDB, "sql", _duckdb(DUCKDB, root), root)
    if any((root / "alerts").rglob("*.parquet")):
        _show(ALERTS, "sql", _duckdb(ALERTS, root), root)


def _polars(root: Path) -> pl.DataFrame:
    readings = pl.scan_parquet(f"{root}/readings/**/*.parquet", hive_partitioning=True)
    return (
        readings.group_by("city", "property")
        .agg(pl.len().alias("readings"), pl.col("value").mean().round(2).alias("mean"))
        .sort("city", "property")
        .head(8)
        .collect()
    )


def _duckdb(query: str, root: Path) -> pl.DataFrame:
    import duckdb  # noqa: PLC0415  (only here: a process that loaded it may complain of leaks as it ends)

    answer = duckdb.sql(query.format(root=root))
    assert answer is not None, "a query has an answer"
    return pl.DataFrame(answer.to_arrow_table())


def _show(query: str, language: str, answer: pl.DataFrame, root: Path) -> None:
    out.print(Syntax(query.format(root=root), language, theme="ansi_dark"))
    out.print(table("", answer.columns, answer.rows()))
    out.print()
