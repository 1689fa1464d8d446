"""A child process, and what it cost: wall, CPU, memory."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    """What the kernel counted for one process, from its start to its end."""

    wall_s: float
    user_s: float
    system_s: float
    rss_max_bytes: int

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


def run_child(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], Cost]:
    """Run a command that prints one JSON object; return it and the cost.

    Raises:
        RuntimeError: the command failed; the message ends with what it said.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        child = subprocess.Popen(  # noqa: S603  (our own commands)
            command, stdout=out, stderr=err, env={**os.environ, **(env or {})}
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode != 0:
            said = (out.read() + err.read()).decode(errors="replace")[-4000:]
            msg = f"{' '.join(command)} ended with {child.returncode}: {said}"
            raise RuntimeError(msg)
        cost = Cost(wall_s, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)
        return json.loads(out.read()), cost
