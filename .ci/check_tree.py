"""Small facts about the tree that no linter knows.

No registry host in the lock file, no machine path in a tracked file, no module of the package past the wall.
"""

import re
import subprocess
import sys
from pathlib import Path

LINES_MAX = 450
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|farm)/\w|/tmp/[a-z]")
HOST = re.compile(r"https?://|--index-url|--extra-index-url|--find-links")


def main() -> int:
    """Print what is wrong; return the exit code."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], check=True, capture_output=True, text=True
    ).stdout.split("\0")
    faults = []
    for name in filter(None, tracked):
        path = Path(name)
        if not path.is_file() or path == Path(__file__).relative_to(Path.cwd()):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                faults.append(f"{name}:{number}: names a path of one machine")
        if name.startswith("requirements") and HOST.search(text):
            faults.append(f"{name}: names a host")
        if name.startswith("streamproc/") and text.count("\n") > LINES_MAX:
            faults.append(
                f"{name}: {text.count(chr(10))} lines, the wall is {LINES_MAX}"
            )
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
