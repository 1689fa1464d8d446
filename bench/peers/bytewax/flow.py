"""What both jobs on Bytewax share: source, clock, window, and how they end."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from bench.peers.contract import LATENESS_MS, WINDOW_MS
from bench.peers.totals import Totals, first_record

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Reading = tuple[int, float]
"""Event time in milliseconds, value; the key travels beside it."""

Stats = list[float]
"""What a window keeps: count, sum, sum of squares, minimum, maximum."""


class EachPartition(StatelessSinkPartition):
    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def write_batch(self, items: list[Any]) -> None:
        for item in items:
            self._take(item)


class Each(DynamicSink):
    """A sink that hands every item to a function."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def build(self, *_: Any) -> EachPartition:
        return EachPartition(self._take)


def fold(stats: Stats, reading: Reading) -> Stats:
    value = reading[1]
    stats[0] += 1
    stats[1] += value
    stats[2] += value * value
    if value < stats[3]:  # noqa: PLR1730  (a call of min costs more)
        stats[3] = value
    if value > stats[4]:  # noqa: PLR1730
        stats[4] = value
    return stats


def merge(one: Stats, other: Stats) -> Stats:
    sums = [mine + theirs for mine, theirs in zip(one[:3], other[:3], strict=True)]
    return [*sums, min(one[3], other[3]), max(one[4], other[4])]


def run(
    arguments: list[str],
    decode: Callable[[bytes], tuple[str, Reading]],
    measures: Callable[[Stats], tuple[float, ...]],
) -> None:
    """Fold a topic to its end; the arguments are servers, topic and number of records."""
    servers, topic, _ = arguments
    totals = Totals()
    counts = {"seen": 0, "late": 0}

    def decode_batch(messages: list[KafkaSourceMessage]) -> list[tuple[str, Reading]]:
        if not counts["seen"]:
            first_record()
        counts["seen"] += len(messages)
        return [decode(message.value) for message in messages]

    def closed(item: tuple[str, tuple[int, Stats]]) -> None:
        _, (window, stats) = item
        totals.add(window * WINDOW_MS, *measures(stats))

    def late(_: object) -> None:
        counts["late"] += 1

    started = datetime.now(UTC)  # noqa: TID251  (a program of its own)
    clock = EventClock(
        ts_getter=lambda reading: EPOCH + timedelta(milliseconds=reading[0]),
        wait_for_system_duration=timedelta(milliseconds=LATENESS_MS),
        # Event time alone: the clock does not go on by itself, and nothing is woken by it.
        now_getter=lambda: started,
        to_system_utc=lambda _: None,
    )
    minutes = TumblingWindower(length=timedelta(milliseconds=WINDOW_MS), align_to=EPOCH)
    flow = Dataflow("peers")
    source = KafkaSource([servers], [topic], tail=False, batch_size=10_000)
    messages = op.input("in", flow, source)
    readings = op.flat_map_batch("decode", messages, decode_batch)
    windows = fold_window(
        *("fold", readings, clock, minutes),
        lambda: [0, 0.0, 0.0, float("inf"), float("-inf")],
        *(fold, merge),
        ordered=False,  # a fold does not need the order, which costs sorting
    )
    op.output("out", windows.down, Each(closed))
    op.output("late", windows.late, Each(late))
    cli_main(flow)
    totals.tell(counts["late"])
