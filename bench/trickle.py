"""Few records to many partitions, at an even rate: a child of `bench.rebalance` and `bench.fairness`.

    python -m bench.trickle '{"servers": …, "topics": […], "partitions": 64, "rate": 500, "seconds": 30}'

`rate` is records per second and topic; each one goes to the next partition, has one reading
of now (or of `event_us`), and the moment of sending as its timestamp. What was sent is printed at the end.
"""

import json
import sys
import time
from typing import Any

from confluent_kafka import Producer

from bench.preload import document
from bench.workloads import PROPERTIES

TICK_S = 0.005


def run(given: dict[str, Any]) -> dict[str, float]:
    """Send until the time is over; return what was sent, and how late at worst in ms."""
    producer = Producer(
        {
            "bootstrap.servers": given["servers"],
            "acks": "1",
            "linger.ms": 1,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 0,
        }
    )
    topics, rate = given["topics"], given["rate"]
    devices, partitions = given.get("devices", 1000), given["partitions"]
    began, sent, behind_ms = time.perf_counter(), 0, 0.0
    while (passed := time.perf_counter() - began) < given["seconds"]:
        due = int(passed * rate)
        if due > sent:
            behind_ms = max(behind_ms, (passed - sent / rate) * 1e3)
        now_ms = time.time_ns() // 1_000_000
        event_ms = given.get("event_us", now_ms * 1000) // 1000
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event_ms // 1000))
        text = f"{moment}.{event_ms % 1000:03d}Z"
        for number in range(sent, due):
            device = number % devices
            value = document(number, device, PROPERTIES[0], text, 1.5)
            for topic in topics:
                producer.produce(
                    topic, value, b"k", device % partitions, timestamp=now_ms
                )
        sent = due
        producer.poll(0)
        time.sleep(TICK_S)
    producer.flush(30)
    return {"sent": sent * len(topics), "behind_ms": round(behind_ms, 1)}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
