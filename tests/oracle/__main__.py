"""`python -m tests.oracle ROOT FACTS LEDGER`: judge a folder again."""

import argparse
import sys
from pathlib import Path

from tests.oracle.facts import read_facts, read_ledger
from tests.oracle.folder import LocalFolder
from tests.oracle.judge import judge


def main() -> int:
    """Print every finding; return 1 if there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    for name in ("root", "facts", "ledger"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    folder = LocalFolder(given.root)
    verdict = judge(read_facts(given.facts), read_ledger(given.ledger), folder)
    for finding in verdict.findings:
        sys.stdout.write(f"{finding}\n")
    sys.stdout.write(f"{verdict.counts}\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
