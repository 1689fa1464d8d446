"""The fault matrix tells what tests claim and what their last reports say."""

from pathlib import Path

import pytest

from tests.matrix import BEGIN, END, PAGE, ROWS, Claim, outcomes, table, written

REPORT = """<testsuites><testsuite timestamp="2026-11-26T10:11:12.5+00:00">
<testcase classname="tests.unit.test_a" name="test_one[x]"/>
<testcase classname="tests.unit.test_a" name="test_one[y]"/>
<testcase classname="tests.unit.test_a" name="test_two"><failure/></testcase>
<testcase classname="tests.unit.test_a" name="test_three"><skipped/></testcase>
</testsuite></testsuites>"""

ONE, TWO, THREE = (
    Claim(row, f"tests/unit/test_a.py::test_{name}", "a signal", "nothing lost")
    for row, name in (("F1", "one"), ("F2", "two"), ("F3", "three"))
)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "junit.xml"
    path.write_text(REPORT, encoding="utf-8")
    return path


def test_cases_of_one_test_count_together_and_say_when(report: Path) -> None:
    made, _ = table([ONE], outcomes([report]))

    (line,) = [line for line in made.splitlines() if line.startswith("| F1 ")]
    assert line == (
        f"| F1 | {ROWS['F1']} | a signal | nothing lost | `unit/test_a.py`: one | "
        "held, 2 cases, 2026-11-26 10:11 |"
    )


def test_what_failed_and_what_was_skipped_is_said(report: Path) -> None:
    made, whole = table([TWO, THREE], outcomes([report]))

    assert "**1 of 1 failed**" in made
    assert "| skipped, 2026" in made
    assert not whole


def test_a_row_without_a_test_is_said_to_have_none() -> None:
    made, whole = table([ONE], {})

    assert f"| F2 | {ROWS['F2']} | — | **no test** | | |" in made
    assert "not in the last report" in made
    assert not whole


def test_every_row_covered_is_whole(report: Path) -> None:
    claims = [Claim(row, ONE.test, "so", "that") for row in ROWS]

    assert table(claims, outcomes([report]))[1]


def test_a_row_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError, match="F99"):
        table([Claim("F99", ONE.test, "so", "that")], {})


def test_only_what_stands_between_the_comments_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    assert written(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert written(PAGE.read_text(encoding="utf-8"), "new").count("new") >= 1
