"""Chaos is repeatable as far as a seed goes, and what it measures by is right."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, schedule
from tests.chaos.run import heads_of
from tests.chaos.setting import FACTS, configuration, local_output
from tests.chaos.traffic import Traffic
from tests.oracle.folder import Away, LocalFolder
from tests.oracle.watcher import Watcher
from tests.soak.lines import Samples, fitted
from tests.support.configs import settings

NOW_US = 1_772_400_000_000_000


def test_a_seed_gives_the_same_faults_and_every_kind_of_them_in_each_round() -> None:
    kinds = list(FAULTS)
    first = list(islice(schedule(random.Random(3), kinds), 100))

    assert first == list(islice(schedule(random.Random(3), kinds), 100))
    assert first != list(islice(schedule(random.Random(4), kinds), 100))
    assert set(first[: len(kinds) + 3]) == set(kinds)


def test_a_seed_gives_the_same_traffic() -> None:
    one, other = (Traffic(random.Random(5)).records(NOW_US, 200) for _ in range(2))

    assert one == other
    assert one != Traffic(random.Random(6)).records(NOW_US, 200)


def test_a_device_stays_in_its_partition() -> None:
    drafts = Traffic(random.Random(5)).records(NOW_US, 500)

    assert len({(d.device, d.partition) for d in drafts}) == len(
        {d.device for d in drafts}
    )


def test_the_configuration_says_what_the_oracle_is_told(tmp_path: Path) -> None:
    text = configuration("localhost:9092", local_output(tmp_path / "root"))

    definition = settings(tmp_path, text).definition

    assert {c.slug: c.timezone for c in definition.cities} == FACTS.zones
    assert {
        (w.name, w.size_us, w.every_us, w.lateness_us) for w in definition.windows
    } == {(w.name, w.size, w.every, w.lateness) for w in FACTS.windows}
    assert {
        (r.name, r.property, r.window, r.when, r.clear, r.for_us, r.no_data_us)
        for r in definition.rules
    } == {
        (
            *(r.name, r.property, r.window),
            *(None if one is None else str(one) for one in (r.when, r.clear)),
            *(r.held_for, r.no_data),
        )
        for r in FACTS.rules
    }
    units = {spec.property: spec.unit for spec in definition.properties}
    assert FACTS.units.items() <= units.items()
    assert definition.dedup == 1


def test_the_heads_of_logs_are_found_by_name(tmp_path: Path) -> None:
    log = tmp_path / "_streamproc/chaos/t-id/3/log"
    log.mkdir(parents=True)
    for n, end in enumerate((5, 9)):
        record = {"topic": "t", "partition": 3, "next": end}
        (log / f"{n:020}.json").write_text(json.dumps(record), encoding="utf-8")

    assert heads_of(LocalFolder(tmp_path)) == {("t", 3): 9}


class Flaky(LocalFolder):
    """A folder whose keeper does not answer while told so."""

    away = True

    def names(self) -> list[str]:
        if self.away:
            raise Away
        return super().names()


def test_a_store_that_is_away_shows_a_reader_nothing_wrong(tmp_path: Path) -> None:
    folder = Flaky(tmp_path)
    watcher = Watcher(folder, random.Random(0))
    watcher.look()
    assert watcher.findings == []
    folder.away = False
    (tmp_path / "torn.parquet").write_bytes(b"?")
    watcher.look()

    assert len(watcher.findings) == 1


def test_a_measure_that_grows_is_told_from_one_that_only_began_low() -> None:
    samples = Samples()
    for second in range(0, 3600, 60):
        grown = 100e6 + second * 10e3
        samples.add(second, {"a rss": grown, "b rss": min(grown, 101e6)})

    lines = {line.name: line for line in samples.lines()}

    assert lines["a rss"].hourly == pytest.approx(36e6)
    assert not lines["a rss"].flat
    assert lines["b rss"].flat


def test_a_few_pieces_are_allowed_and_more_are_not() -> None:
    assert fitted("worker 0 descriptors", [(0, 20), (3600, 22)]).flat
    assert not fitted("worker 0 descriptors", [(0, 20), (3600, 26)]).flat
