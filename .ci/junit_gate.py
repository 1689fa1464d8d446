"""Fail unless the suites that matter ran, and nothing was skipped without leave.

Usage: junit_gate.py JUNIT.xml ALLOWED_SKIPS.txt
"""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

SUITES = ("tests.integration", "tests.failpoints", "tests.simulation")


def main(junit: Path, allowed_file: Path) -> int:
    """Print what is wrong; return the exit code."""
    allowed = {
        line.split("#")[0].strip()
        for line in allowed_file.read_text().splitlines()
        if line.split("#")[0].strip()
    }
    passed: dict[str, int] = dict.fromkeys(SUITES, 0)
    faults = []
    for case in ET.parse(junit).iter("testcase"):
        place = case.get("classname", "")
        name = f"{place}::{case.get('name', '').split('[')[0]}"
        if case.find("skipped") is not None:
            if name not in allowed:
                faults.append(f"skipped without leave: {name}")
            continue
        if case.find("failure") is None and case.find("error") is None:
            for suite in SUITES:
                passed[suite] += place.startswith(suite)
    faults += [f"no test passed in {suite}" for suite, n in passed.items() if n == 0]
    for fault in faults:
        print(fault)
    print(", ".join(f"{suite}: {n} passed" for suite, n in passed.items()))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
