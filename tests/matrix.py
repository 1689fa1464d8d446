"""`python -m tests.matrix`: the table of faults in docs/reliability.md, made from the tests.

A test says which row of the fault matrix it covers:

```python
@pytest.mark.fault("F4", how="SIGSTOP for 20 s", seen="fenced; nothing doubled")
```

`how` the fault is injected, `seen` what the test asserts. The last reports of pytest
(`build/junit.xml`, `build/junit-long.xml`) tell whether it held, and when. Rows that cannot be
tested here say why. Exit code 1: a row has neither a test nor a reason, or a test failed.
"""

import argparse
import io
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
REPORTS = (ROOT / "build" / "junit.xml", ROOT / "build" / "junit-long.xml")
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"

ROWS: Mapping[str, str] = {
    "F1": "kill -9 at every step of a commit",
    "F2": "kill -9 at random times, again and again",
    "F3": "kill -9 while a partition is taken over",
    "F4": "a process that sleeps beyond its session and wakes",
    "F5": "SIGTERM while a commit is on its way",
    "F6": "a second SIGTERM, SIGINT",
    "F7": "a process that does nothing for 8 s",
    "F8": "members that join and leave all the time",
    "F9": "a drain that takes longer than allowed",
    "F10": "two processes with one instance id",
    "F11": "a state that cannot be restored",
    "F12": "broker down",
    "F13": "the group's coordinator moves",
    "F14": "the broker refuses offset commits",
    "F15": "the leader of a partition moves",
    "F16": "answers that take seconds, lost packets",
    "F17": "half-open connections, packets lost one way",
    "F18": "corrupt bytes from the broker",
    "F19": "retention overtakes",
    "F20": "a topic deleted and created again",
    "F21": "offsets reset by an operator",
    "F22": "partitions added",
    "F23": "aborted transactions, holes of compaction",
    "F24": "disk full",
    "F25": "errors of the disk on write and fsync",
    "F26": "power loss",
    "F27": "a file system that is read-only",
    "F28": "object store: 503 for a while, for long",
    "F29": "object store: an error after the write was done",
    "F30": "object store: races, stale credentials",
    "F31": "a truncated or changed snapshot, record or file",
    "F32": "the wall clock jumps",
    "F33": "event times of 1970 and in ten years",
    "F34": "an idle partition; a broker unreachable while idle",
    "F35": "poisonous records",
    "F36": "decompression bombs",
    "F37": "a native crash while decoding",
    "F38": "invented device names by the million",
    "F39": "one town sends 50 times as much",
    "F40": "memory limit hit",
    "F41": "a schema changes in the middle, and back",
    "F42": "upgrade and downgrade with open windows",
    "F43": "alert topic down, webhook slow",
    "F44": "credentials expire, certificates change",
}

NOT_HERE: Mapping[str, str] = {}
"""Row → why it cannot be tested on the machines the tests run on."""


@dataclass(frozen=True)
class Claim:
    """A test covers a row."""

    row: str
    test: str
    how: str
    seen: str


@dataclass(frozen=True)
class Outcome:
    """What a report says of one test, all its parameters together."""

    passed: int
    failed: int
    skipped: int
    when: str

    def __str__(self) -> str:
        if self.failed:
            return f"**{self.failed} of {self.passed + self.failed} failed**"
        if not self.passed:
            return "skipped"
        return "held" if self.passed == 1 else f"held, {self.passed} cases"


class _Collector:
    """A pytest plugin that keeps the markers of what was collected."""

    def __init__(self) -> None:
        self.claims: dict[Claim, None] = {}

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            test = item.nodeid.partition("[")[0]
            for mark in item.iter_markers("fault"):
                (row,) = mark.args
                claim = Claim(row, test, mark.kwargs["how"], mark.kwargs["seen"])
                self.claims[claim] = None


def collect() -> list[Claim]:
    """Return what the tests claim. Raises `SystemExit` where they cannot be collected."""
    collector = _Collector()
    said = io.StringIO()
    with redirect_stdout(said):
        # Long tests count, too, which an ordinary run leaves out.
        code = pytest.main(
            ["--collect-only", "-q", "-m", "fault", str(ROOT / "tests")],
            plugins=[collector],
        )
    if code:
        sys.exit(f"{said.getvalue()}\nthe tests cannot be collected: {code!r}")
    return list(collector.claims)


def outcomes(reports: Iterable[Path]) -> dict[str, Outcome]:
    """Return by test, without parameters, what the reports say; a later report wins."""
    found: dict[str, Outcome] = {}
    for report in reports:
        if not report.exists():
            continue
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314  (pytest's)
            when = suite.get("timestamp", "")[:16].replace("T", " ")
            cases: dict[str, list[str]] = defaultdict(list)
            for case in suite.iter("testcase"):
                kinds = {child.tag for child in case}
                kind = "failed" if kinds & {"failure", "error"} else "passed"
                name = case.get("name", "").partition("[")[0]
                test = f"{case.get('classname', '').replace('.', '/')}.py::{name}"
                cases[test].append("skipped" if "skipped" in kinds else kind)
            for test, ends in cases.items():
                passed, failed = ends.count("passed"), ends.count("failed")
                found[test] = Outcome(passed, failed, ends.count("skipped"), when)
    return found


def table(claims: Sequence[Claim], found: Mapping[str, Outcome]) -> tuple[str, bool]:
    """Return the table as Markdown, and whether every row has a test that held, or a reason.

    Raises:
        KeyError: a test claims a row that there is not.
    """
    of_row: dict[str, list[Claim]] = {row: [] for row in ROWS}
    for claim in claims:
        of_row[claim.row].append(claim)
    lines = ["| # | fault | how | what was observed | test | last run |"]
    lines += ["|---|---|---|---|---|---|"]
    whole = True
    for row, fault in ROWS.items():
        if not of_row[row]:
            reason = NOT_HERE.get(row)
            whole = whole and reason is not None
            lines.append(f"| {row} | {fault} | — | {reason or '**no test**'} | | |")
        for claim in sorted(of_row[row], key=lambda one: one.test):
            outcome = found.get(claim.test)
            whole = whole and (outcome is None or not outcome.failed)
            held = f"{outcome}, {outcome.when}" if outcome else "not in the last report"
            test = claim.test.removeprefix("tests/")
            where, _, name = test.partition("::")
            lines.append(
                f"| {row} | {fault} | {claim.how} | {claim.seen} | "
                f"`{where}`: {name.removeprefix('test_').replace('_', ' ')} | {held} |"
            )
    return "\n".join(lines), whole


def written(page: str, made: str) -> str:
    """Return the page with the table between its two comments."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    assert BEGIN in page, BEGIN
    assert END in rest, END
    return f"{head}{BEGIN}\n{made}\n{END}{tail}"


def main() -> int:
    """Write the table; tell what is open."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.parse_args()
    made, whole = table(collect(), outcomes(REPORTS))
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    for line in made.splitlines():
        if "**" in line:
            sys.stdout.write(f"{line}\n")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
