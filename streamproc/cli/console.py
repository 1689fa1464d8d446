"""What every command shares: where it prints, how it fails, when it shows progress.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 a verification found a fault.
Results go to standard output, everything about the run to standard error.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

DONE, FAILED, USAGE, FAULT = 0, 1, 2, 3

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def plain(value: Any) -> Any:
    """Turn what JSON does not know (dataclasses, enums, sets, bytes) into what it does."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: getattr(value, field.name) for field in fields}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)


def print_json(value: Any) -> None:
    """Print one JSON document to standard output, for machines."""
    text = json.dumps(value, default=plain, ensure_ascii=False, indent=2)
    sys.stdout.write(text + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """Return a table; numbers are set flush right."""
    shown = Table(title=title, title_justify="left", show_edge=False)
    for index, name in enumerate(columns):
        numbers = all(isinstance(row[index], (int, float)) for row in rows)
        shown.add_column(name, justify="right" if rows and numbers else "left")
    for row in rows:
        shown.add_row(*(text(cell) for cell in row))
    return shown


def text(cell: Any) -> str:
    """Write one cell for people: thousands apart, floats short, None as a dash."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}".replace(",", " ")
    if isinstance(cell, float):
        return f"{cell:,.4g}" if abs(cell) < 1 else f"{cell:,.1f}".replace(",", " ")
    return str(cell)


@contextmanager
def progress(what: str, total: int | None) -> Iterator["Bar"]:
    """Show a bar on standard error while a terminal is there; else do nothing."""
    if not err.is_terminal:
        yield Bar(None, 0)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as shown:
        yield Bar(shown, shown.add_task(what, total=total))


class Bar:
    """A progress bar, or nothing where no terminal is."""

    def __init__(self, shown: Progress | None, task: int) -> None:
        self._shown = shown
        self._task = task

    def to(self, done: int, total: int | None = None) -> None:
        """Move to `done` of `total`."""
        if self._shown is not None:
            self._shown.update(self._task, completed=done, total=total)  # type: ignore[arg-type]  # TaskID is an int
