"""What both jobs on Quix Streams share: the application, the window, and how they end."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

from quixstreams import Application

from bench.peers.contract import LATENESS_MS, WINDOW_MS
from bench.peers.totals import Totals, first_record

Stats = list[float]
"""What a window keeps: count, sum, sum of squares, minimum, maximum."""


def run(
    arguments: list[str],
    deserializer: Any,
    time_field: str,
    value_field: str,
    measures: Callable[[Stats], tuple[float, ...]],
) -> None:
    """Fold a topic; the arguments are servers, topic and number of records."""
    servers, topic_name, records = arguments
    totals = Totals()
    counts = {"seen": 0, "late": 0}

    def event_time(value: Any, *_: Any) -> int:
        return int(value[time_field])

    def processed(*_: Any) -> None:
        if not counts["seen"]:
            first_record()
        counts["seen"] += 1
        if counts["seen"] == int(records):
            application.stop()

    def begin(reading: Any) -> Stats:
        value = reading[value_field]
        return [1, value, value * value, value, value]

    def fold(stats: Stats, reading: Any) -> Stats:
        value = reading[value_field]
        return [
            stats[0] + 1,
            stats[1] + value,
            stats[2] + value * value,
            min(stats[3], value),
            max(stats[4], value),
        ]

    def late(*_: Any) -> bool:
        counts["late"] += 1
        return False  # do not log it

    with tempfile.TemporaryDirectory(prefix="peers-quix-") as state:
        application = Application(
            broker_address=servers,
            consumer_group=f"peers-{os.getpid()}",
            auto_offset_reset="earliest",
            state_dir=state,
            use_changelog_topics=False,  # the fastest there is, and lost in a crash
            on_message_processed=processed,
            loglevel="ERROR",
        )
        topic = application.topic(
            topic_name, value_deserializer=deserializer, timestamp_extractor=event_time
        )
        # The record key names the series, so nothing has to be repartitioned. Closing by
        # partition, not by key: a key's last window would wait for that key's next record.
        (
            application.dataframe(topic)
            .tumbling_window(WINDOW_MS, grace_ms=LATENESS_MS, on_late=late)
            .reduce(fold, begin)
            .final(closing_strategy="partition")
            .update(
                lambda window: totals.add(window["start"], *measures(window["value"]))
            )
        )
        application.run()
    totals.tell(counts["late"])
