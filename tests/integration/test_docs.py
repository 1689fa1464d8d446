"""What the documents print is tried: queries on a real root, commands against the real CLI."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from streamproc.analytics.sql import DAYS, MERGED

ROOT = Path(__file__).parents[2]
CONFIG = """
[job]
name = "docs"
[cities.razlog]
timezone = "Europe/Sofia"
[cities.nevers]
timezone = "Europe/Paris"
[[windows]]
name = "1h"
every = "1h"
quantiles = [0.5, 0.95]
"""


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a root called `data`, as the documents call it."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "town.toml").write_text(CONFIG, encoding="utf-8")
    lines = []
    for minute in range(0, 180, 2):
        for device in ("a", "b"):
            time = f"2026-03-01T{minute // 60 + 8:02d}:{minute % 60:02d}:00Z"
            lines.append(
                f'{{"device":"{device}","time":"{time}","values":{{"pm10":{20 + minute % 7}}}}}'
            )
    (folder / "day.ndjson").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "streamproc", "replay", "town.toml", "day.ndjson"]
    env_free = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"STREAMPROC_FILES__CITY_FIXED": "razlog", "PATH": "/usr/bin:/bin"},
    )
    assert env_free.returncode == 0, env_free.stderr
    return folder


PYTHON = [b for d in ("README.md", "docs/analyst.md") for b in blocks(d, "python")]


# The one line for Spark is not run: PySpark is no requirement. The document says what it was tried with.
@pytest.mark.parametrize("code", [b for b in PYTHON if "spark." not in b])
def test_python_of_the_documents_runs(
    place: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    parts = pl.read_parquet("data/aggregates/**/*.parquet")
    names: dict[str, object] = {
        "list_of_hourly_sketch_bytes": parts["sketch"].drop_nulls().to_list()
    }

    exec(compile(code, "document", "exec"), names)  # noqa: S102  (the document's own code)


@pytest.mark.parametrize("query", blocks("docs/analyst.md", "sql"))
def test_sql_of_the_documents_runs(
    place: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)

    answer = duckdb.sql(query)

    assert answer is not None
    assert answer.to_arrow_table().num_rows


@pytest.mark.parametrize("query", [MERGED, DAYS])
def test_the_sql_constants_the_documents_name_run(place: Path, query: str) -> None:
    answer = duckdb.sql(query.format(root=place / "data", window="1h"))

    assert answer is not None
    assert answer.to_arrow_table().num_rows


def test_every_command_in_the_documents_exists_with_its_options() -> None:
    known = {}
    for document in ("README.md", "docs/operator.md", "CONTRIBUTING.md"):
        for block in blocks(document, "sh"):
            for line in block.splitlines():
                words = shlex.split(line.split("#")[0])
                if not words or not words[0].endswith("streamproc"):
                    continue
                options = [word for word in words if word.startswith("--")]
                known[" ".join(words)] = (words[1], options)
    assert len(known) >= 8
    for line, (command, options) in known.items():
        shown = subprocess.run(
            [sys.executable, "-m", "streamproc", *_help_of(command, line)],
            capture_output=True,
            text=True,
            check=False,
            env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        )
        assert shown.returncode == 0, line
        for option in options:
            assert option in shown.stdout, line


def _help_of(command: str, line: str) -> list[str]:
    words = line.split()
    if command in ("dead-letters", "schema"):
        return [command, words[words.index(command) + 1], "--help"]
    return [command, "--help"]


def test_files_the_documents_link_to_are_there() -> None:
    for document in (
        "README.md",
        "ARCHITECTURE.md",
        "docs/operator.md",
        "docs/analyst.md",
    ):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / document).parent / target).exists(), f"{document}: {target}"
