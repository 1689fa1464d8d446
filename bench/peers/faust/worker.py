"""What both jobs on Faust share: the application, the table, and how they end.

A windowed table of Faust expires by the wall clock and emits nothing by event time, so two
things are the program's own: a reading is late by its partition's greatest event time, and
the windows are read from the table at the end.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import faust

from bench.peers.contract import LATENESS_MS, PARTITIONS, WINDOW_MS
from bench.peers.totals import Totals, first_record

Stats = list[float]
"""What a window keeps: count, sum, sum of squares, minimum, maximum."""

FOR_EVER_S = 1e9


def run(
    arguments: list[str],
    value_type: type[faust.Record],
    reading: Callable[[Any], tuple[str, int, float]],
    measures: Callable[[Stats], tuple[float, ...]],
) -> None:
    """Fold a topic; the arguments are servers, topic and number of records.

    `reading` gives a record's series, event time in milliseconds and value.
    """
    servers, topic_name, count = arguments
    records = int(count)
    application = faust.App(
        f"peers-{os.getpid()}",
        broker=f"kafka://{servers}",
        store="memory://",
        datadir=tempfile.mkdtemp(prefix="peers-faust-"),
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
        consumer_auto_offset_reset="earliest",
    )
    topic = application.topic(topic_name, key_type=bytes, value_type=value_type)
    table = (
        application.Table("windows", default=list, partitions=PARTITIONS)
        .tumbling(WINDOW_MS / 1000, expires=FOR_EVER_S)
        .relative_to(lambda event: reading(event.value)[1] / 1000)
    )
    reached = [0] * PARTITIONS

    @application.agent(topic)
    async def fold(stream: Any) -> None:
        seen = late = 0
        async for event in stream.events():
            if not seen:
                first_record()
            seen += 1
            series, time_ms, value = reading(event.value)
            partition = event.message.partition
            closes_ms = time_ms - time_ms % WINDOW_MS + WINDOW_MS + LATENESS_MS
            if closes_ms <= reached[partition]:
                late += 1
            else:
                reached[partition] = max(reached[partition], time_ms)
                window = table[series]
                table[series] = _folded(window.value(), value)
            if seen == records:
                _finish(table.table.data, late, measures)

    sys.argv = [sys.argv[0], "worker", "--loglevel=error"]
    application.main()


def _folded(stats: Stats, value: float) -> Stats:
    """Return a new list: the table wants to be told of every change."""
    if not stats:
        return [1, value, value * value, value, value]
    return [
        stats[0] + 1,
        stats[1] + value,
        stats[2] + value * value,
        min(stats[3], value),
        max(stats[4], value),
    ]


def _finish(
    windows: Any, late: int, measures: Callable[[Stats], tuple[float, ...]]
) -> None:
    """Tell the totals and end at once: a worker has no end of input of its own."""
    totals = Totals()
    for (_, (start_s, _)), stats in list(windows.items()):
        totals.add(round(start_s * 1000), *measures(stats))
    totals.tell(late)
    os._exit(0)
