from streamproc.core.flush import FlushPolicy, FlushReason, SnapshotPolicy


def test_a_span_within_all_bounds_stays_open() -> None:
    policy = FlushPolicy(rows_max=10, bytes_max=10, age_us_max=10)

    assert policy.due(rows=9, size_bytes=9, age_us=9) is None


def test_each_bound_alone_ends_the_span_and_says_so() -> None:
    policy = FlushPolicy(rows_max=10, bytes_max=10, age_us_max=10)

    assert policy.due(rows=10, size_bytes=0, age_us=0) is FlushReason.ROWS
    assert policy.due(rows=0, size_bytes=10, age_us=0) is FlushReason.BYTES
    assert policy.due(rows=0, size_bytes=0, age_us=10) is FlushReason.AGE


def test_a_snapshot_is_due_by_rows_or_by_age() -> None:
    policy = SnapshotPolicy(rows_max=10, age_us_max=10)

    assert not policy.due(rows=9, age_us=9)
    assert policy.due(rows=10, age_us=0)
    assert policy.due(rows=0, age_us=10)
