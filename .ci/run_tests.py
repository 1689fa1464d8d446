"""Run the suite in two processes side by side: what computes, and what waits for brokers.

Coverage is that of the first: tracing costs the second time, and the code it reports on has unit tests.

Usage: run_tests.py BUILD_FOLDER [pytest arguments]

Writes junit.xml and coverage.xml to the folder; ends with 1 if either half failed. The second
half's output is shown when the first is through.
"""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

HALVES = {
    "computing": (
        "tests/unit",
        "tests/property",
        "tests/simulation",
        "tests/contracts",
        "tests/failpoints",
    ),
    "waiting": ("tests/integration",),
}
COVERED = "computing"


def start(
    name: str, build: Path, more: list[str], out: int | None
) -> "subprocess.Popen[bytes]":
    """Start one half, with a report of its own."""
    environment = {**os.environ, "COVERAGE_FILE": str(build / ".coverage")}
    command = [sys.executable, "-m", "pytest", *HALVES[name], *more]
    command += [f"--junitxml={build / f'junit-{name}.xml'}"]
    if name == COVERED:
        command += ["--cov", "--cov-report="]
    return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def coverage(build: Path) -> int:
    """Print what is covered, and write it down."""
    environment = {**os.environ, "COVERAGE_FILE": str(build / ".coverage")}

    def call(*arguments: str) -> int:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(command, env=environment, check=False).returncode

    return call("report", "--skip-covered") or call(
        "xml", "--quiet", "-o", str(build / "coverage.xml")
    )


def join_reports(build: Path) -> None:
    """Write one report of both."""
    joined = ET.Element("testsuites")
    for name in HALVES:
        report = build / f"junit-{name}.xml"
        if report.exists():
            joined.extend(ET.parse(report).getroot())
    ET.ElementTree(joined).write(build / "junit.xml", "utf-8", xml_declaration=True)


def main(build: Path, more: list[str]) -> int:
    """Run everything; return the exit code."""
    build.mkdir(exist_ok=True)
    for old in build.glob(".coverage*"):
        old.unlink()
    log = build / "tests-waiting.txt"
    with log.open("wb") as out:
        waiting = start("waiting", build, more, out.fileno())
        try:
            computing = start("computing", build, more, None).wait()
            print("\nthe half that waits for brokers:", flush=True)
            other = waiting.wait()
        finally:
            waiting.terminate()
    print(log.read_text(errors="replace"), flush=True)
    join_reports(build)
    failed = computing != 0 or other != 0
    return coverage(build) or int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
