"""What the offsets of a stream of files mean: pure decisions over facts about the files.

Theory of operation
-------------------
A plan gives the offsets `[base, base + total)` to the rows of some files, merged. Plans
follow one another without holes. A file is known by its content, not by its name:

* the same content as a known file: nothing to do, wherever it lies;
* it begins with the whole lines of a known file: its rows behind those are new;
* anything else is new, unless its path belonged to a known file: then somebody changed
  rows that may be published, and the replay is refused.

While a plan is unfinished (the log's `next` is inside it) it alone goes on: its files must
be among those given, grown at most, because the rows that are left only have their offsets
by merging all of them again. New files wait for the plan after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from streamproc.connectors.files.content import FileFacts
from streamproc.core.record import InputFile, InputPlan
from streamproc.errors import InputError, SourceMismatch


@dataclass(frozen=True, slots=True)
class Part:
    """A file's share of a plan: rows from `start_row` on of its first `size` bytes.

    `start_byte` is the length of the known content those rows follow; `rows` is None
    until they were counted.
    """

    path: str
    sha256: str
    size: int
    start_row: int = 0
    start_byte: int = 0
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be read, and which of the given paths hold nothing new."""

    parts: tuple[Part, ...]
    skipped: tuple[str, ...]


def known_sizes(known: Sequence[InputPlan]) -> tuple[int, ...]:
    """Return the lengths at which a file's beginning has to be hashed."""
    return tuple(sorted({file.size for plan in known for file in plan.files}))


def unfinished(known: Sequence[InputPlan], next_offset: int) -> InputPlan | None:
    """Return the plan that `next_offset` is inside of, None when all are done.

    Raises:
        SourceMismatch: the log's position and its plans contradict each other.
    """
    reached = 0
    for plan in known:
        if plan.base != reached:
            msg = f"plan at offset {plan.base} should begin at {reached}"
            raise SourceMismatch(msg)
        reached += plan.total
    if next_offset == reached:
        return None
    if known and known[-1].base <= next_offset < reached:
        return known[-1]
    msg = f"the log stands at {next_offset}, its plans end at {reached}"
    raise SourceMismatch(msg)


def resumed(plan: InputPlan, facts: Sequence[FileFacts], order: str) -> Selection:
    """Find the files of an unfinished plan again, in the plan's order.

    Raises:
        InputError: one is missing, or other options order the rows now.
    """
    if plan.order not in {"", order}:
        msg = (
            "the last replay was interrupted and used other options for reading times and "
            "rows; complete it with those options before changing them"
        )
        raise InputError(msg)
    parts = []
    missing = []
    for file in plan.files:
        fact = next((fact for fact in facts if _holds(fact, file)), None)
        if fact is None:
            missing.append(file.path)
            continue
        start_byte = 0  # known rows were checked when the plan was made
        parts.append(
            Part(
                fact.path, file.sha256, file.size, file.start_row, start_byte, file.rows
            )
        )
    if missing:
        msg = (
            "the last replay was interrupted; give these files again, unchanged, so that "
            f"it can be completed: {', '.join(missing)}"
        )
        raise InputError(msg)
    used = {part.path for part in parts}
    return Selection(
        tuple(parts), tuple(fact.path for fact in facts if fact.path not in used)
    )


def _holds(fact: FileFacts, file: InputFile) -> bool:
    if fact.sha256 == file.sha256:
        return True
    prefix = fact.prefixes.get(file.size)
    return prefix is not None and prefix.sha256 == file.sha256


def selected(known: Sequence[InputPlan], facts: Sequence[FileFacts]) -> Selection:
    """Choose what is new in the given files, ordered by path.

    Raises:
        InputError: a known path holds something else now.
    """
    files = [file for plan in known for file in plan.files]
    by_content = {file.sha256: file for file in files}
    by_path = {file.path: file for file in files}
    parts: list[Part] = []
    skipped: list[str] = []
    taken: set[str] = set()
    for fact in sorted(facts, key=lambda fact: fact.path):
        if fact.sha256 in by_content or fact.sha256 in taken:
            skipped.append(fact.path)
            continue
        taken.add(fact.sha256)
        before = _grown_from(fact, files)
        if before is not None:
            start_row, start_byte = before.rows, before.size
        elif fact.path in by_path:
            raise InputError(_changed(fact, by_path[fact.path]))
        else:
            start_row, start_byte = 0, 0
        parts.append(Part(fact.path, fact.sha256, fact.size, start_row, start_byte))
    return Selection(tuple(parts), tuple(skipped))


def _grown_from(fact: FileFacts, files: Sequence[InputFile]) -> InputFile | None:
    """Return the longest known file whose whole lines this one begins with."""
    best: InputFile | None = None
    for file in files:
        prefix = fact.prefixes.get(file.size)
        if prefix is None or prefix.sha256 != file.sha256 or not prefix.whole_lines:
            continue
        if best is None or file.size > best.size:
            best = file
    return best


def _changed(fact: FileFacts, file: InputFile) -> str:
    prefix = fact.prefixes.get(file.size)
    if fact.size < file.size:
        what = f"it is shorter now: {fact.size} bytes, {file.size} when it was read"
    elif prefix is None:
        what = f"its content differs, at the same length of {file.size} bytes"
    elif prefix.sha256 != file.sha256:
        what = f"its first {file.size} bytes, already read, are not the same any more"
    else:
        what = f"its last line, already read as row {file.rows - 1}, was continued"
    return (
        f"{fact.path}: changed since it was read; {what}. Rows that were published cannot "
        "change: restore the file, or give corrected data another name"
    )


def planned(base: int, parts: Sequence[Part], order: str) -> InputPlan | None:
    """Return the plan for counted parts; None where they hold no row."""
    files = []
    for part in parts:
        assert part.rows is not None, part
        if part.rows > part.start_row:
            files.append(
                InputFile(
                    path=part.path,
                    sha256=part.sha256,
                    size=part.size,
                    rows=part.rows,
                    start_row=part.start_row,
                )
            )
    total = sum(file.rows - file.start_row for file in files)
    if total == 0:
        return None
    return InputPlan(base=base, total=total, files=tuple(files), order=order)
