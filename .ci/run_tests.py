"""Run the suite in two processes side by side: what computes, and what waits for brokers.

Coverage is that of the first: tracing costs the second time, and the code it reports on has unit tests.

Usage: run_tests.py BUILD_FOLDER [--long] [pytest arguments]

Writes junit.xml and coverage.xml to the folder, with --long the long tests and junit-long.xml; ends with 1 if
either half failed. The second half's output is shown when the first is through.
"""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

HALVES = {
    "computing": (
        "tests/simulation",  # needs no kernel, and the other half compiles them meanwhile
        "tests/unit",
        "tests/property",
        "tests/failpoints",
    ),
    "waiting": ("tests/contracts", "tests/integration"),
}
COVERED = "computing"
LONG = ("-m", "long", "--durations=25")


class Suite:
    """Either all tests but the long ones, with coverage, or the long ones; reports go to `build`."""

    def __init__(self, build: Path, more: list[str]) -> None:
        self.build = build
        self.long = "--long" in more
        self.more = [*LONG] if self.long else []
        self.more += [argument for argument in more if argument != "--long"]
        self.report = "junit-long" if self.long else "junit"

    def start(self, name: str, out: int | None) -> "subprocess.Popen[bytes]":
        """Start one half, with a report of its own."""
        environment = {**os.environ, "COVERAGE_FILE": str(self.build / ".coverage")}
        command = [sys.executable, "-m", "pytest", *HALVES[name], *self.more]
        command += [f"--junitxml={self.build / f'{self.report}-{name}.xml'}"]
        if self.long:
            environment["HYPOTHESIS_PROFILE"] = "long"
        elif name == COVERED:
            command += ["--cov", "--cov-report="]
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def join_reports(self) -> None:
        """Write one report of both."""
        joined = ET.Element("testsuites")
        for name in HALVES:
            report = self.build / f"{self.report}-{name}.xml"
            if report.exists():
                joined.extend(ET.parse(report).getroot())
        ET.ElementTree(joined).write(
            self.build / f"{self.report}.xml", "utf-8", xml_declaration=True
        )


def coverage(build: Path) -> int:
    """Print what is covered, and write it down."""
    environment = {**os.environ, "COVERAGE_FILE": str(build / ".coverage")}

    def call(*arguments: str) -> int:
        command = [sys.executable, "-m", "coverage", *arguments]
        return subprocess.run(command, env=environment, check=False).returncode

    return call("report", "--skip-covered") or call(
        "xml", "--quiet", "-o", str(build / "coverage.xml")
    )


def main(build: Path, more: list[str]) -> int:
    """Run everything; return the exit code."""
    build.mkdir(exist_ok=True)
    for old in build.glob(".coverage*"):
        old.unlink()
    suite = Suite(build, more)
    log = build / f"tests-{suite.report}-waiting.txt"
    with log.open("wb") as out:
        waiting = suite.start("waiting", out.fileno())
        try:
            computing = suite.start("computing", None).wait()
            print("\nthe half that waits for brokers:", flush=True)
            other = waiting.wait()
        finally:
            waiting.terminate()
    print(log.read_text(errors="replace"), flush=True)
    suite.join_reports()
    failed = computing != 0 or other != 0
    return int(failed) if suite.long else coverage(build) or int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
