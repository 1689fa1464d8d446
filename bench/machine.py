"""Facts about the machine, the interpreter and the code that a figure belongs to."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("aiokafka", "numba", "numpy", "polars", "pyarrow")


def facts() -> dict[str, Any]:
    """Return what has to stand beside every figure."""
    return {
        "date": datetime.now(UTC).date().isoformat(),  # noqa: TID251  (a bench has no clock port)
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "load_1m": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*words: str) -> str:
    done = subprocess.run(  # noqa: S603  (fixed arguments)
        ["git", *words],  # noqa: S607
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
