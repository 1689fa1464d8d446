from dataclasses import replace

import pytest

from streamproc.connectors.files.content import FileFacts, Prefix
from streamproc.connectors.files.plan import (
    Part,
    known_sizes,
    planned,
    resumed,
    selected,
    unfinished,
)
from streamproc.core.record import InputFile, InputPlan
from streamproc.errors import InputError, SourceMismatch


def file(name: str, size: int = 100, rows: int = 10, start_row: int = 0) -> InputFile:
    return InputFile(
        path=f"/in/{name}",
        sha256=f"sha-{name}-{size}",
        size=size,
        rows=rows,
        start_row=start_row,
    )


def plan(base: int, *files: InputFile, order: str = "o") -> InputPlan:
    total = sum(one.rows - one.start_row for one in files)
    return InputPlan(base=base, total=total, files=files, order=order)


def facts(one: InputFile, path: str | None = None) -> FileFacts:
    return FileFacts(path or one.path, one.sha256, one.size)


def grown(
    one: InputFile, *, whole_lines: bool = True, sha256: str | None = None
) -> FileFacts:
    prefix = Prefix(sha256 or one.sha256, whole_lines)
    return FileFacts(one.path, "sha-grown", one.size + 50, {one.size: prefix})


A, B = file("a"), file("b", size=200, rows=20)
KNOWN = [plan(0, A), plan(10, B)]


def test_a_known_content_is_skipped_whatever_its_path() -> None:
    chosen = selected(KNOWN, [facts(A, "/elsewhere/z.csv"), facts(B)])
    assert chosen.parts == ()
    assert chosen.skipped == ("/elsewhere/z.csv", "/in/b")


def test_the_same_content_twice_in_one_run_is_read_once() -> None:
    chosen = selected([], [facts(A), facts(A, "/in/copy")])
    assert chosen.parts == (Part("/in/a", A.sha256, 100),)
    assert chosen.skipped == ("/in/copy",)


def test_a_grown_file_goes_on_behind_its_known_rows() -> None:
    chosen = selected(KNOWN, [grown(A)])
    assert chosen.parts == (
        Part("/in/a", "sha-grown", 150, start_row=10, start_byte=100),
    )


def test_the_longest_known_beginning_counts() -> None:
    longer = file("a2", size=120, rows=12, start_row=10)
    fact = FileFacts(
        "/in/new",
        "sha-new",
        150,
        {
            100: Prefix(A.sha256, whole_lines=True),
            120: Prefix(longer.sha256, whole_lines=True),
        },
    )
    assert selected([plan(0, A), plan(10, longer)], [fact]).parts[0].start_row == 12


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        (
            grown(A, sha256="other"),
            "its first 100 bytes, already read, are not the same",
        ),
        (
            grown(A, whole_lines=False),
            "its last line, already read as row 9, was continued",
        ),
        (FileFacts(A.path, "other", 100), "at the same length of 100 bytes"),
        (
            FileFacts(A.path, "other", 60),
            "it is shorter now: 60 bytes, 100 when it was read",
        ),
    ],
)
def test_any_other_change_to_a_known_path_is_refused(
    fact: FileFacts, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        selected(KNOWN, [fact])
    assert "/in/a: changed" in str(caught.value)


def test_new_files_are_ordered_by_path() -> None:
    chosen = selected(KNOWN, [facts(file("d")), facts(file("c"))])
    assert [part.path for part in chosen.parts] == ["/in/c", "/in/d"]


def test_a_plan_is_unfinished_while_the_position_is_inside_it() -> None:
    assert unfinished([], 0) is None
    assert unfinished(KNOWN, 30) is None
    assert unfinished(KNOWN, 29) == KNOWN[1]
    assert unfinished(KNOWN, 10) == KNOWN[1]


@pytest.mark.parametrize(
    ("known", "position"),
    [
        (KNOWN, 9),
        (KNOWN, 31),
        ([], 1),
        ([plan(5, A)], 15),
        ([plan(0, A), plan(11, B)], 31),
    ],
)
def test_plans_and_position_that_contradict_each_other_stop(
    known: list[InputPlan], position: int
) -> None:
    with pytest.raises(SourceMismatch):
        unfinished(known, position)


def test_an_unfinished_plan_finds_its_files_by_content_in_its_own_order() -> None:
    both = plan(0, B, A)
    moved = facts(B, "/moved/b.gz")
    chosen = resumed(both, [grown(A), moved, facts(file("new"))], "o")
    assert chosen.parts == (
        Part("/moved/b.gz", B.sha256, 200, rows=20),
        Part("/in/a", A.sha256, 100, rows=10),
    )
    assert chosen.skipped == ("/in/new",)


def test_an_unfinished_plan_names_the_files_it_misses() -> None:
    with pytest.raises(
        InputError, match=r"give these files again, unchanged.*: /in/a$"
    ):
        resumed(plan(0, A, B), [facts(B)], "o")


def test_an_unfinished_plan_is_not_continued_in_another_order() -> None:
    with pytest.raises(InputError, match="other options"):
        resumed(plan(0, A), [facts(A)], "p")
    assert resumed(plan(0, A, order=""), [facts(A)], "p").parts


def test_a_plan_leaves_out_files_without_new_rows() -> None:
    full, empty = Part("/in/c", "c", 5, 2, rows=5), Part("/in/d", "d", 5, rows=0)
    assert planned(30, [full, empty], "o") == InputPlan(
        base=30,
        total=3,
        files=(InputFile(path="/in/c", sha256="c", size=5, rows=5, start_row=2),),
        order="o",
    )
    assert planned(30, [replace(full, rows=2), empty], "o") is None


def test_known_sizes_are_those_of_all_files() -> None:
    assert known_sizes(KNOWN) == (100, 200)
