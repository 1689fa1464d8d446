"""`bench.startup` and its child, without a broker."""

import asyncio
import re
import sys
from collections.abc import Awaitable
from importlib import import_module
from pathlib import Path

import pytest

from bench.staged import place
from bench.started import ABSENT, PLACES, Absent, Marks
from bench.startup import table

CHECKOUT = Path(__file__).parents[3]


class Service:
    """Something to be watched."""

    seen: tuple[int, ...] = ()

    def step(self, number: int) -> int:
        self.seen = (*self.seen, number)
        return number + 1

    async def start(self) -> str:
        await asyncio.sleep(0)
        return "started"


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Marks:
    for name in ("step", "start"):
        monkeypatch.setattr(
            Service, name, getattr(Service, name)
        )  # put back afterwards
    marks = Marks(began_ns=0)
    here = (Service, "step"), (Service, "start")
    monkeypatch.setattr("bench.started.place", dict(zip("ab", here, strict=True)).get)
    marks.watch("stepping", "a", after=False)
    marks.watch("stepped", "a", after=True)
    marks.watch("started", "b", after=True)
    return marks


def test_a_place_is_noted_once_and_the_function_does_what_it_did(
    watched: Marks,
) -> None:
    service = Service()
    assert [service.step(1), service.step(2)] == [2, 3]
    assert service.seen == (1, 2)
    assert list(watched.found) == ["interpreter started", "stepping", "stepped"]
    times = [wall_s for wall_s, _, _ in watched.found.values()]
    assert times == sorted(times)


def test_a_coroutine_is_noted_when_it_has_ended(watched: Marks) -> None:
    waiting = Service().start()
    assert "started" not in watched.found
    assert asyncio.run(_of(waiting)) == "started"
    assert "started" in watched.found


async def _of(waiting: Awaitable[str]) -> str:
    return await waiting


def test_each_step_is_the_difference_to_the_one_before() -> None:
    found = {"b": (3.0, 1.5, 0.5), "a": (1.0, 1.0, 0.0)}
    _, first, second = (line.split() for line in table(found).splitlines())
    assert first == ["a", "1.00", "1.00", "1.00", "1.00", "0.00"]
    assert second == ["b", "3.00", "1.50", "2.00", "0.50", "0.50"]


@pytest.mark.parametrize("path", sorted({path for _, path, _ in PLACES}))
def test_every_place_is_where_the_table_says(path: str) -> None:
    holder, name = place(path)
    assert callable(getattr(holder, name))


def test_what_is_kept_out_is_what_an_installation_has_not() -> None:
    def listed(name: str) -> set[str]:
        text = (CHECKOUT / name).read_text()
        return set(re.findall(r"^([\w-]+)==", text, re.MULTILINE))

    distributions = {"yaml": "pyyaml"}
    kept_out = {distributions.get(name, name) for name in ABSENT}
    assert kept_out <= listed("requirements.txt")
    assert not kept_out & listed("requirements-run.txt")


def test_what_is_kept_out_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    with pytest.raises(ModuleNotFoundError):
        import_module("yaml")
