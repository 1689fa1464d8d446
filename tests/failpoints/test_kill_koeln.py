"""Cologne's March through Apache Kafka while the service is killed over and over.

Afterwards the published files must hold what the raw file holds, no more and no less, and
`verify` must find nothing.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.kafka import fresh, shared_kafka
from tests.support.kill import FAILPOINTS, Victim, kill, planned
from tests.support.real_data import (
    EXAMPLES,
    KOELN_MARCH,
    Row,
    assert_hours,
    assert_once,
    assert_same_rows,
    first_row,
    hours_of,
    koeln_march,
    koeln_rows,
    produce,
)

CHILD_S = 180.0


@dataclass(frozen=True)
class Trial:
    """How much is read, how fast, and how often it is interrupted.

    Attributes:
        until: event time before which the file's rows are produced.
        rate: `max_rate` while children are killed.
        static: join as the same member again, so that no session has to time out.
        paced: whether the survivor is held to `rate` too.
    """

    until: str
    rate: int
    per_kind: int
    signalled: int
    static: bool
    paced: bool
    finish_s: float


SHORT = Trial("2013-03-04", 1600, 1, 5, static=True, paced=False, finish_s=120.0)
FULL = Trial("2013-04-01", 1400, 11, 45, static=False, paced=True, finish_s=2400.0)


@pytest.fixture(scope="module")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    with shared_kafka(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def configuration(trial: Trial, broker: ApacheKafka, root: Path) -> tuple[str, str]:
    """Return the shipped example with the trial's settings, and the topic."""
    stem = fresh("kill")
    text = (EXAMPLES / "koeln.toml").read_text(encoding="utf-8")
    source = [
        f'bootstrap_servers = "{broker.bootstrap_servers}"',
        f'topics = "{stem}.{{city}}"',
        f'group = "{stem}"',
        'session_timeout = "6s"',
        'heartbeat = "1s"',
        f"max_rate = {trial.rate}",
        *(['instance_id = "victim"'] if trial.static else []),
    ]
    output = [f'root = "{root}"', 'flush_age = "1s"', 'snapshot_every = "10s"']
    changed = {
        'bootstrap_servers = "localhost:9092"': "\n".join(source),
        'topics = "telemetry.{city}"\n': "",
        'root = "data"': "\n".join(output),
    }
    for old, new in changed.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    return f"{text}\n[metrics]\nenabled = false\n", f"{stem}.koeln"


async def trial_of(trial: Trial, broker: ApacheKafka, folder: Path) -> None:
    seed = int(os.environ.get("STREAMPROC_SEED", "0"))
    seed = seed or random.SystemRandom().getrandbits(32)
    print(f"\nseed {seed}")  # noqa: T201  (to repeat it: STREAMPROC_SEED)
    rows, root = rows_until(trial.until), folder / "data"
    text, topic = configuration(trial, broker, root)
    config = folder / "koeln.toml"
    config.write_text(text, encoding="utf-8")
    await produce(broker.connection, topic, rows, 1)
    run(trial, Victim(config, root, folder), random.Random(seed), len(rows))
    assert_totals(root, trial.until, len(rows))


def rows_until(until: str) -> list[Row]:
    return koeln_rows(1, f"datetime_utc < '{until}'")


def run(trial: Trial, victim: Victim, rng: random.Random, records: int) -> None:
    """Kill as planned, let the last child finish, and check the tally."""
    deaths = planned(rng, trial.per_kind, trial.signalled)
    tally = kill(victim, deaths, CHILD_S, lambda text: print(text, flush=True))  # noqa: T201  (figures for the reader of -s)
    rest = {} if trial.paced else {"STREAMPROC_SOURCE__MAX_RATE": "1000000"}
    victim.finish(trial.finish_s, **rest)
    print(f"{tally}\n{records} records at {trial.rate}/s, {victim.starts} starts")  # noqa: T201  (figures for the reader of -s)
    for kind in FAILPOINTS:
        assert tally.counted[kind] >= trial.per_kind, kind
    assert tally.total >= len(FAILPOINTS) * trial.per_kind + trial.signalled
    assert tally.advanced >= trial.signalled


def assert_totals(root: Path, until: str, records: int) -> None:
    path = str(koeln_march())
    where = f"datetime_utc < '{until}'"
    expected = first_row(
        f"select count(*) from read_csv(?) where {where}",  # noqa: S608  (a constant of this test)
        [path],
    )
    assert expected == (records,)
    assert_once(root, records, records)
    raw = "select identifier, epoch_us(datetime_utc), auslastung::double, valid::int"
    assert_same_rows(root, f"{raw} from read_csv(?) where {where}", [path])
    hours = hours_of(
        "select identifier as device, 'traffic_load' as property, datetime_utc as time,"  # noqa: S608  (a constant of this test)
        f" auslastung as value from read_csv(?) where {where}",
        [path],
    )
    assert_hours(root, hours)


@pytest.mark.fault(
    "F2",
    how="eleven SIGKILLs at steps and at random, real data, Apache Kafka",
    seen="tables equal to the file",
)
async def test_eleven_kills_lose_and_double_nothing(
    apache: ApacheKafka, tmp_path: Path
) -> None:
    await trial_of(SHORT, apache, tmp_path)


@pytest.mark.long
@pytest.mark.fault(
    "F2",
    how="a hundred SIGKILLs, a month of real data",
    seen="tables equal to the file",
)
async def test_a_hundred_kills_lose_and_double_nothing_in_a_whole_month(
    apache: ApacheKafka, tmp_path: Path
) -> None:
    assert KOELN_MARCH / FULL.rate >= 600
    await trial_of(FULL, apache, tmp_path)
