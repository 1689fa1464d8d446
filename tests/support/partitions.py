"""Two partitions of one topic, which most tests of a running service make do with."""

import pytest

from streamproc.core.chain import Genesis
from streamproc.core.flush import FlushPolicy
from streamproc.core.values import TopicPartition
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import RAZLOG, traffic

P0 = TopicPartition(RAZLOG, 0)
P1 = TopicPartition(RAZLOG, 1)
BOTH = frozenset({P0, P1})
TO_END = ServiceOptions(until_end=True)
EACH = FlushPolicy(rows_max=1)


def two(count: int = 40, cut: int = 10) -> ScriptedSource:
    """Return a source with `count` records in each, fetched `cut` at a time."""
    source = ScriptedSource({RAZLOG: 2}, records_max=cut)
    for origin in (P0, P1):
        source.produce(origin, traffic(count))
    return source


def every(count: int, *origins: TopicPartition) -> list[tuple[str, int]]:
    """Return what `accounted` says where so many records of each are there once."""
    return sorted((origin.source, n) for origin in origins for n in range(count))


def no_genesis() -> Genesis:
    """Fail: whoever asks where a log begins has not found the one there is."""
    pytest.fail("there is a log")
