from hypothesis import given
from hypothesis import strategies as st

from streamproc.core.flush import (
    BufferPolicy,
    FlushPolicy,
    FlushReason,
    SnapshotPolicy,
)


def test_a_span_within_all_bounds_stays_open() -> None:
    policy = FlushPolicy(rows_max=10, bytes_max=10, age_us_max=10)

    assert policy.due(rows=9, size_bytes=9, age_us=9) is None


def test_each_bound_alone_ends_the_span_and_says_so() -> None:
    policy = FlushPolicy(rows_max=10, bytes_max=10, age_us_max=10)

    assert policy.due(rows=10, size_bytes=0, age_us=0) is FlushReason.ROWS
    assert policy.due(rows=0, size_bytes=10, age_us=0) is FlushReason.BYTES
    assert policy.due(rows=0, size_bytes=0, age_us=10) is FlushReason.AGE


def test_what_all_partitions_hold_may_reach_the_bound_but_not_exceed_it() -> None:
    policy = BufferPolicy(bytes_max=10)

    assert policy.fullest({}) is None
    assert policy.fullest({"a": 4, "b": 6}) is None
    assert policy.fullest({"a": 4, "b": 6, "c": 1}) == "b"


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), max_size=60),
    st.integers(0, 50),
)
def test_one_commit_after_each_batch_keeps_the_bound(
    batches: list[tuple[int, int]], bytes_max: int
) -> None:
    policy = BufferPolicy(bytes_max)
    held: dict[int, int] = {}
    for partition, size in batches:
        held[partition] = held.get(partition, 0) + size
        fullest = policy.fullest(held)
        if fullest is not None:
            assert held[fullest] == max(held.values())
            held[fullest] = 0

        assert sum(held.values()) <= bytes_max


def test_a_snapshot_is_due_by_rows_or_by_age() -> None:
    policy = SnapshotPolicy(rows_max=10, age_us_max=10)

    assert not policy.due(rows=9, age_us=9)
    assert policy.due(rows=10, age_us=0)
    assert policy.due(rows=0, age_us=10)
