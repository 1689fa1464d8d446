"""`streamproc`, telling when it gets where: a child of `bench.startup`.

    python -m bench.started BEGAN_NS MARKS.json run CONFIG --until-end --json

Imports nothing before it begins that the command does not import anyhow, and lets nobody find
what only developers have installed: pyarrow and numba import some of it where it is there.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from bench.staged import place

ABSENT = ("coverage", "pandas", "yaml")
"""In requirements.txt, but not in requirements-run.txt."""

PLACES: tuple[tuple[str, str, bool], ...] = (
    ("configuration read", "cli.run_service:load_settings", True),
    ("service put together", "connectors.kafka_source:KafkaSource.start", False),
    ("connected", "connectors.kafka_source:KafkaSource.start", True),
    ("joined the group", "runtime.ownership:Ownership.assigned", True),
    ("first partition opened", "runtime.ownership:Ownership._own", True),
    ("first records fetched", "runtime.worker:PartitionWorker.step", False),
    ("first records folded", "runtime.worker:PartitionWorker.step", True),
    ("first commit", "runtime.worker:PartitionWorker.commit", True),
)
"""What has been reached, the function that tells, and whether when it returns."""


class Absent(MetaPathFinder):
    """Finds nothing, loudly, where developers have something."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname in ABSENT:
            raise ModuleNotFoundError(fullname, name=fullname)


class Marks:
    """Notes each place the first time it is reached."""

    def __init__(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self.found: dict[str, tuple[float, float, float]] = {}
        self.kernels_ns = 0
        self.note("interpreter started")

    def note(self, name: str) -> None:
        wall_s = (time.monotonic_ns() - self._began_ns) / 1e9
        cpu_s, kernels_s = time.process_time(), self.kernels_ns / 1e9
        self.found.setdefault(name, (wall_s, cpu_s, kernels_s))

    def watch(self, name: str, path: str, *, after: bool) -> None:
        """Let a function tell; a coroutine's end is when it is awaited through."""
        holder, attribute = place(path)
        function: Callable[..., Any] = getattr(holder, attribute)

        def noting(*args: Any, **kwargs: Any) -> Any:
            if not after:
                self.note(name)
            answer = function(*args, **kwargs)
            if after and hasattr(answer, "__await__"):
                return self._awaited(name, answer)
            if after:
                self.note(name)
            return answer

        setattr(holder, attribute, noting)

    async def _awaited(self, name: str, answer: Any) -> Any:
        found = await answer
        self.note(name)
        return found

    def watch_kernels(self) -> None:
        """Count the CPU time in which numba loads what it had compiled."""
        cache: Any = import_module("numba.core.caching").FunctionCache
        load = cache.load_overload

        def loading(*args: Any) -> Any:
            began_ns = time.thread_time_ns()
            try:
                return load(*args)
            finally:
                self.kernels_ns += time.thread_time_ns() - began_ns

        cache.load_overload = loading


def main() -> int:
    """Run the command line as always, and write down what was noted."""
    began, target, *arguments = sys.argv[1:]
    sys.meta_path.insert(0, Absent())
    marks = Marks(int(began))
    run = import_module("streamproc.cli.main").run
    import_module("streamproc.cli.run_service")
    marks.note("imported")
    marks.watch_kernels()
    for name, path, after in PLACES:
        marks.watch(name, path, after=after)
    code: int = run(arguments)
    marks.note("ended")
    Path(target).write_text(json.dumps(marks.found))
    return code


if __name__ == "__main__":
    sys.exit(main())
