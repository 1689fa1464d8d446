"""One more column: what a reading costs, beside pytest-benchmark's table, and where."""

from typing import Any

import pytest

from bench.machine import facts


def pytest_benchmark_update_machine_info(machine_info: Any) -> None:
    machine_info["streamproc"] = facts()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print ns per reading; a bench says how many by `extra_info["rows"]`."""
    session = getattr(config, "_benchmarksession", None)
    benchmarks = [] if session is None else session.benchmarks
    lines = [
        f"{bench.stats.median / rows * 1e9:12,.1f}  {bench.name}"
        for bench in benchmarks
        if bench and (rows := bench.extra_info.get("rows"))
    ]
    if lines:
        terminalreporter.section("ns per reading (median)")
        for line in lines:
            terminalreporter.write_line(line)
