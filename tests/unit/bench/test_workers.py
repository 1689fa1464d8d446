"""The parts of `bench.workers` and `bench.replayed` that need no broker."""

import asyncio
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from bench.child import Cost, together
from bench.endtoend import SCHEMAS, Order, Place, config, parsed, summed
from bench.endtoend import Result as EndToEnd
from bench.endtoend import table as endtoend_table
from bench.preload import Sent, encoded
from bench.replayed import Held, ReplayedBatches, hold, run
from bench.workers import Result, _command, check, ratios, table
from bench.workloads import records, wire_readings
from streamproc.codecs.select import Format, make_decoder
from streamproc.config import load as load_settings
from streamproc.core.ports import AssignmentListener, WireSchema
from streamproc.core.values import Records, TopicPartition

ORDER = Order("core", 2_000, 100, 3, "json", 1, 60.0, "lz4", "64MiB", quantiles=True)


def small(codec: str = "lz4") -> Held:
    return hold(rows=20_000, devices=5_000, partitions=1, codec=codec)


class Owner(AssignmentListener):
    async def revoked(self, partitions: frozenset[TopicPartition]) -> None:
        raise AssertionError

    async def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.owned = partitions


async def fetched(source: ReplayedBatches, start: int) -> list[Records]:
    owner = Owner()
    await source.start(owner)
    for origin in owner.owned:
        source.seek(origin, start)
        source.resume(origin)
    found: list[Records] = []
    while records := await source.fetch(1):
        found += records
    await source.stop()
    return found


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_everything_held_is_delivered_once_and_in_order(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.replayed.RECORDS_MAX", 6_000)  # several responses
    found = asyncio.run(fetched(ReplayedBatches(small(codec)), 0))
    offsets = np.concatenate([records.offsets for records in found])
    assert offsets.tolist() == list(range(20_000))
    assert len(found) > 3
    assert found[0].span.start == 0
    assert found[-1].span.end == 20_000


def test_delivery_can_begin_within_a_batch() -> None:
    found = asyncio.run(fetched(ReplayedBatches(small()), 7_777))
    offsets = np.concatenate([records.offsets for records in found])
    assert offsets.tolist() == list(range(7_777, 20_000))


@pytest.mark.long
def test_the_service_publishes_what_was_held_and_the_check_sees_it(
    tmp_path: Path,
) -> None:
    _command(ORDER, tmp_path / "0", 0)
    held = hold(ORDER.rows, ORDER.devices, ORDER.partitions, ORDER.compression)
    settings = load_settings(tmp_path / "0" / "data.toml", {})
    totals = asyncio.run(run(settings, held))
    assert totals.readings == held.readings == ORDER.rows
    answer = {"counted": {"quarantined": 0}, "sent": 2_000, "total": held.total}
    root = tmp_path / "0" / "data"
    check(root, answer)
    with pytest.raises(AssertionError):
        check(root, answer | {"sent": 2_001})
    with pytest.raises(AssertionError):
        check(root, answer | {"total": held.total + 1})
    closed = duckdb.read_parquet(f"{root}/aggregates/**/*.parquet")
    assert closed.aggregate('sum("count")').fetchall() == [(2_000,)]


@pytest.mark.long
@pytest.mark.parametrize("name", ["avro", "protobuf", "packed", "chirpstack"])
def test_what_is_sent_in_a_format_is_what_the_service_is_told_to_read(
    name: Format, tmp_path: Path
) -> None:
    order = replace(ORDER, format=name)
    place = Place("127.0.0.1:1", "http://127.0.0.1:2", tmp_path)
    path = tmp_path / "job.toml"
    path.write_text(config(order, place, tmp_path, "job"))
    settings = load_settings(path, {})
    decoder = make_decoder(name, settings.codecs.of(name))
    if name in SCHEMAS:
        decoder.learn(7, WireSchema(name, SCHEMAS[name]))
    found = decoder.decode(records(encoded(name, wire_readings(50, 10), 7)))
    assert not found.rejects
    assert found.readings.num_rows == 50


def test_workers_that_began_at_once_cost_the_sum_and_the_longest_wall() -> None:
    both = together([Cost(2.0, 1.0, 0.5, 100), Cost(3.0, 1.0, 0.25, 50)])
    assert both == Cost(3.0, 2.0, 0.75, 150)


def test_workers_count_together() -> None:
    one = {"readings": 3, "quarantined": 0, "files": 2, "seconds": 9}
    other = {"readings": 4, "quarantined": 1, "files": 1, "seconds": 8}
    assert summed([one, other]) == {"readings": 7, "quarantined": 1, "files": 3}


def test_the_table_ends_with_medians_and_how_far_runs_lie_apart() -> None:
    def result(readings: int, cpu_s: float) -> EndToEnd:
        rates = (readings / 4, readings / cpu_s, readings / (cpu_s - 1), 1.0, 1.0)
        return EndToEnd(readings, 4.0, cpu_s, 1.0, 1.0, 10**6, 3, *rates)

    results = [result(2_000, cpu_s) for cpu_s in (2.0, 3.0, 5.0)]
    sent = Sent(2_000, 1.0, 2_000, 145 * 2_000)
    *_, median, spread = endtoend_table(ORDER, sent, results).splitlines()
    assert median.split()[:3] == ["median", "4.0", "3.0"]
    assert median.split()[6] == "667"
    assert spread.split()[:3] == ["spread", "0%", "100%"]


def test_series_is_another_word_for_devices() -> None:
    assert parsed(["--series", "7"])["devices"] == parsed(["--devices", "7"])["devices"]


def test_ratios_are_of_medians_and_to_one_worker_of_the_same_way() -> None:
    results = [
        *(Result("Kafka", 1, 100, 1.0, cpu_s) for cpu_s in (1.0, 2.0, 9.0)),
        *(Result("Kafka", 2, 100, 0.5, cpu_s) for cpu_s in (1.0, 2.5, 9.0)),
        Result("memory", 1, 100, 1.0, 1.0),
        Result("memory", 2, 200, 1.0, 2.0),
    ]
    found = ratios(results)
    assert found["Kafka", 2] == pytest.approx((0.8, 2.0))
    assert found["memory", 2] == pytest.approx((1.0, 2.0))
    *_, kafka, memory = table(results).splitlines()
    assert "0.800 of its readings per CPU-second (at least 0.95)" in kafka
    assert "2.00 times its rate (at least 1.8 with two)" in memory
