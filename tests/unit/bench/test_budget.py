"""A stage budget: own times, and a sum that is the whole."""

import threading
from collections.abc import Callable

import pytest

from bench.budget import END, OTHER, Budget, per_reading, shown
from bench.staged import PLACES, place


class Time:
    """A thread's CPU time, by hand."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def spending(time: Time, ns: int, then: Callable[[], None] | None = None) -> None:
    time.ns += ns
    if then is not None:
        then()


def test_time_belongs_to_the_innermost_function() -> None:
    time = Time()
    budget = Budget(time)
    inner = budget.wrap("inner", lambda: spending(time, 5))
    outer = budget.wrap("outer", lambda: spending(time, 7, inner))
    outer()
    inner()
    assert budget.stages() == {"outer": 7, "inner": 10}


def test_a_function_that_raises_is_counted() -> None:
    time = Time()
    budget = Budget(time)

    def fail() -> None:
        time.ns += 3
        raise KeyError

    with pytest.raises(KeyError):
        budget.wrap("failing", fail)()
    budget.wrap("next", lambda: spending(time, 1))()
    assert budget.stages() == {"failing": 3, "next": 1}


def test_threads_do_not_disturb_one_another() -> None:
    budget = Budget()
    work = budget.wrap("work", lambda: sum(range(1000)))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(budget.stages()) == {"work"}


def test_what_came_before_the_first_records_is_the_start() -> None:
    time = Time()
    budget = Budget(time)
    stage = budget.wrap("stage", lambda: spending(time, 50))
    stage()
    budget.begin()
    stage()
    budget.begin()
    found = budget.document()
    assert found["stages"] == {"stage": 50}
    assert 0 < found["start"] <= found["process"]


def test_the_rows_sum_to_all_cpu() -> None:
    found = {
        "start": 300,
        "loop": 100,
        "stages": {"fold": 200, "decode": 250},
        "process": 950,
    }
    rows = per_reading(found, cpu_s=1000e-9, readings=10)
    assert list(rows)[:2] == ["decode", "fold"]
    assert rows[OTHER] == pytest.approx(10.0)
    assert rows[END] == pytest.approx(5.0)
    assert sum(rows.values()) == pytest.approx(100.0)
    assert shown(rows).splitlines()[-1].split() == [
        *("100.0", "100.0%", "all", "CPU", "of", "the", "process"),
    ]


@pytest.mark.parametrize("path", [path for _, path in PLACES])
def test_every_stage_is_where_the_table_says(path: str) -> None:
    holder, name = place(path)
    assert callable(getattr(holder, name))
