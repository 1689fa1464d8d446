"""Health as progress: what is forgiven, what is not."""

from streamproc.obs.health import Progress

STALL_US = 60_000_000
SOURCE = "telemetry.razlog/0"
OTHER = "telemetry.razlog/1"


def progress() -> Progress:
    found = Progress(0, STALL_US)
    found.beat(0)
    return found


def test_before_the_group_answers_it_is_healthy_but_not_ready() -> None:
    judgement = progress().judge(1)

    assert judgement.healthy
    assert not judgement.ready
    assert judgement.reasons == ("not yet in the consumer group",)


def test_a_member_without_partitions_is_ready() -> None:
    found = progress()
    found.joined(frozenset())

    assert found.judge(1).ready


def test_what_was_assigned_is_not_ready_until_all_of_it_is_open_or_stopped() -> None:
    found = progress()
    found.joined({SOURCE, OTHER})
    found.opened(SOURCE, 100, now_us=0)

    judgement = found.judge(1)

    assert judgement.healthy
    assert not judgement.ready
    assert judgement.reasons == (f"{OTHER}: being restored",)
    found.opened(OTHER, 0, now_us=2)
    assert found.judge(3).ready


def test_a_partition_that_was_taken_back_while_it_was_restored_is_waited_for_no_more() -> (
    None
):
    found = progress()
    found.joined({SOURCE, OTHER})
    found.opened(SOURCE, 100, now_us=0)
    found.joined({SOURCE})

    assert found.judge(1).ready


def test_a_partition_that_could_not_be_opened_is_stopped_not_restored() -> None:
    found = progress()
    found.joined({SOURCE})
    found.stopped(SOURCE, "LogCorrupt: record 7")

    reasons = found.judge(1).reasons
    found.joined({SOURCE})

    assert reasons == (f"{SOURCE}: stopped: LogCorrupt: record 7",)
    assert found.judge(2).reasons == reasons


def test_records_that_wait_without_progress_are_unhealthy() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 150, now_us=0)
    found.beat(STALL_US + 2_000_000)

    just_before = found.judge(STALL_US)
    after = found.judge(STALL_US + 2_000_000)

    assert just_before.ready
    assert not after.healthy
    assert not after.ready
    assert after.reasons == (f"{SOURCE}: 50 records wait, no progress for 62 s",)


def test_a_moving_position_is_progress_and_the_same_one_is_not() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 150, now_us=0)
    found.at(SOURCE, 120, now_us=50_000_000)
    found.beat(100_000_000)

    assert found.judge(100_000_000).healthy
    found.at(SOURCE, 120, now_us=109_000_000)
    found.beat(111_000_000)
    assert not found.judge(111_000_000).healthy


def test_a_commit_is_progress() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 150, now_us=0)
    found.committed(SOURCE, now_us=59_000_000)
    found.beat(100_000_000)

    assert found.judge(100_000_000).healthy


def test_a_quiet_topic_is_healthy_for_ever() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    hour_us = 3_600_000_000
    found.ends(SOURCE, 100, now_us=hour_us)
    found.beat(hour_us)

    assert found.judge(hour_us).ready


def test_records_after_a_long_silence_get_their_full_time() -> None:
    found = progress()
    hour_us = 3_600_000_000
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 101, now_us=hour_us)
    found.beat(hour_us + 1)

    assert found.judge(hour_us + 1).healthy


def test_growing_lag_alone_is_no_progress() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    for second in range(70):
        found.ends(SOURCE, 101 + second, now_us=second * 1_000_000)
    found.beat(70_000_000)

    assert not found.judge(70_000_000).healthy


def test_a_member_without_partitions_stays_healthy_though_nothing_is_heard() -> None:
    found = progress()
    found.joined(frozenset())
    assert found.judge(100 * STALL_US).ready

    found.opened(SOURCE, 0, now_us=100 * STALL_US)

    assert found.judge(101 * STALL_US).ready


def test_a_timer_that_does_not_run_is_unhealthy() -> None:
    found = progress()
    found.opened(SOURCE, 0, now_us=0)

    judgement = found.judge(STALL_US + 1_000_000)

    assert not judgement.healthy
    assert judgement.reasons == ("the service's timer has not run for 61 s",)


def test_an_unreachable_broker_is_not_cured_by_a_restart() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 150, now_us=0)
    found.reachable("no answer from localhost:9092")
    found.beat(3 * STALL_US)

    judgement = found.judge(3 * STALL_US)

    assert judgement.healthy
    assert not judgement.ready
    assert judgement.reasons == ("broker: no answer from localhost:9092",)


def test_a_broker_that_is_back_gives_the_backlog_its_full_time() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 150, now_us=0)
    found.reachable("no answer")
    found.beat(3 * STALL_US)
    found.reachable()

    assert found.judge(3 * STALL_US + 1).ready


def test_a_stopped_partition_is_not_ready_and_says_why_until_it_opens_again() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.stopped(SOURCE, "LogCorrupt: record 7")

    judgement = found.judge(1)

    assert judgement.healthy
    assert not judgement.ready
    assert judgement.reasons == (f"{SOURCE}: stopped: LogCorrupt: record 7",)
    found.opened(SOURCE, 100, now_us=2)
    assert found.judge(3).ready


def test_a_released_partition_is_nobodys_worry() -> None:
    found = progress()
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 150, now_us=0)
    found.released(SOURCE)
    found.at(SOURCE, 101, now_us=5)
    found.ends(SOURCE, 160, now_us=5)
    found.committed(SOURCE, now_us=5)
    found.beat(2 * STALL_US)

    assert found.judge(2 * STALL_US).ready


def test_a_partition_that_waits_for_the_store_is_not_ready_and_not_unhealthy() -> None:
    """However long it takes: a restart would meet the same store."""
    found = progress()
    found.joined({SOURCE})
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 200, now_us=1)
    found.store(SOURCE, "disk full", now_us=2)
    late_us = 100 * STALL_US
    found.beat(late_us)

    judgement = found.judge(late_us)

    assert judgement.healthy
    assert not judgement.ready
    assert judgement.reasons == (f"{SOURCE}: intake is paused: store: disk full",)


def test_once_the_store_is_back_what_waits_has_its_full_time_again() -> None:
    found = progress()
    found.joined({SOURCE})
    found.opened(SOURCE, 100, now_us=0)
    found.ends(SOURCE, 200, now_us=1)
    found.store(SOURCE, "no answer", now_us=2)
    back_us = 10 * STALL_US
    found.store(SOURCE, "", now_us=back_us)
    found.beat(back_us + STALL_US + 1)

    assert found.judge(back_us + STALL_US).ready
    assert not found.judge(back_us + STALL_US + 1).healthy
