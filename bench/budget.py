"""Where the CPU time of a process goes: own time of named functions, by thread.

A function's own time is its thread's CPU time without that of measured functions it has
called, so the stages never overlap and their sum can be taken off the whole.
"""

import functools
import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

START = "start: imports, joining the group"
LOOP = "event loop, aiokafka, receiving"
OTHER = "other threads (librdkafka, Arrow)"
END = "end: leaving, interpreter's shutdown"


class Budget:
    """Counts for functions wrapped by it; `clock` gives a thread's CPU time in ns."""

    def __init__(self, clock: Callable[[], int] = time.thread_time_ns) -> None:
        self._clock = clock
        self._local = threading.local()
        self._threads: list[tuple[int, Counter[str]]] = []
        self._main = threading.main_thread().ident or 0
        self._main_clock = time.pthread_getcpuclockid(self._main)
        self._begun: tuple[int, int, Counter[str]] | None = None

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, measured under `name`."""

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self.enter()
            try:
                return function(*args, **kwargs)
            finally:
                self.leave(name)

        return measured

    def enter(self) -> None:
        """Begin something in this thread."""
        self._frames().append([self._clock(), 0])

    def leave(self, name: str) -> None:
        """End what was begun last in this thread, and count it under a name."""
        frames = self._frames()
        began, inner = frames.pop()
        spent = self._clock() - began
        self._local.spent[name] += spent - inner
        if frames:
            frames[-1][1] += spent

    def watch_collector(self, name: str) -> None:
        """Count what the garbage collector takes, wherever it strikes."""

        def struck(phase: str, _: Mapping[str, int]) -> None:
            if phase == "start":
                self.enter()
            else:
                self.leave(name)

        gc.callbacks.append(struck)

    def begin(self) -> None:
        """Note that the first records have come; what went before is the start."""
        if self._begun is None:
            loop = time.clock_gettime_ns(self._main_clock) - self._in_main()
            self._begun = time.process_time_ns(), loop, Counter(self.stages())

    def stages(self) -> dict[str, int]:
        """Return the own time of every name so far, in ns."""
        total: Counter[str] = Counter()
        for _, spent in list(self._threads):
            total.update(spent)
        return dict(total)

    def document(self) -> dict[str, Any]:
        """Return the start, stages and event loop since, and the process so far; in ns."""
        start, loop_before, before = self._begun or (0, 0, Counter())
        loop = time.clock_gettime_ns(self._main_clock) - self._in_main() - loop_before
        stages = Counter(self.stages())
        stages.subtract(before)
        process = time.process_time_ns()
        return {"start": start, "loop": loop, "stages": stages, "process": process}

    def _in_main(self) -> int:
        return sum(
            sum(spent.values())
            for thread, spent in list(self._threads)
            if thread == self._main
        )

    def _frames(self) -> list[list[int]]:
        frames: list[list[int]] | None = getattr(self._local, "frames", None)
        if frames is None:
            frames = self._local.frames = []
            self._local.spent = Counter()
            self._threads.append((threading.get_ident(), self._local.spent))
        return frames


def per_reading(
    found: Mapping[str, Any], cpu_s: float, readings: int
) -> dict[str, float]:
    """Return ns a reading by stage, largest first, then the rest; they sum to the whole.

    Args:
        found: a `Budget.document`.
        cpu_s: of the whole process, as the kernel counts it.
        readings: how many.
    """
    stages = sorted(found["stages"].items(), key=lambda item: -item[1])
    rows = {name: spent / readings for name, spent in stages if spent}
    rows[LOOP] = found["loop"] / readings
    rows[START] = found["start"] / readings
    rows[OTHER] = found["process"] / readings - sum(rows.values())
    rows[END] = (cpu_s * 1e9 - found["process"]) / readings
    return rows


def shown(rows: Mapping[str, float]) -> str:
    """Return the budget as a table with its sum."""
    whole = sum(rows.values())
    lines = [f"{ns:10,.1f}  {ns / whole:6.1%}  {name}" for name, ns in rows.items()]
    return "\n".join(
        ["ns a reading", *lines, f"{whole:10,.1f}  {1:6.1%}  all CPU of the process"]
    )
