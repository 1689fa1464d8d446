"""What is counted, and how the page reads."""

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from streamproc.core.values import AlertTransition, Counts, TopicPartition
from streamproc.obs.metrics import Metrics

P0 = TopicPartition("telemetry.razlog", 0)
P1 = TopicPartition("telemetry.razlog", 1)


class Wall:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now_us = 1_000_000_000

    def __call__(self) -> int:
        return self.now_us


def metrics(wall: Wall | None = None) -> Metrics:
    return Metrics(wall or Wall(), ("razlog", "ange"), version="0.1", job="region")


def samples(found: Metrics) -> dict[str, float]:
    """Return `name{label=value,…}` → value of everything on the page."""
    families = text_string_to_metric_families(found.render().decode())
    return {
        sample.name
        + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def alert(state: str = "firing") -> AlertTransition:
    return AlertTransition(
        alert_id="a", transition=0, state="firing" if state == "firing" else "cleared",
        rule="r", rule_version="v", severity="warning", city="razlog", device="d",
        property="pm10", window=None, event_us=0, value=1.0, source="t/0", offset=0,
        early=False,
    )  # fmt: skip


def test_a_batch_is_counted_by_city_and_reason() -> None:
    found = metrics()
    counts = Counts(
        records=10,
        readings={"razlog": 7},
        late={"razlog": 2},
        quarantined={("_unknown", "unknown_city"): 3},
        windows={"razlog": 4},
        ignored={("razlog", "join"): 2},
    )

    found.record(P0, 10, counts, 0.02)
    found.record(P0, 10, counts, 0.02)

    page = samples(found)
    assert page["streamproc_records_total,partition=0,topic=telemetry.razlog"] == 20
    assert page["streamproc_readings_total,city=razlog"] == 14
    assert page["streamproc_readings_total,city=ange"] == 0
    assert page["streamproc_late_readings_total,city=razlog"] == 4
    assert page["streamproc_closed_windows_total,city=razlog"] == 8
    name = "streamproc_quarantined_records_total,city=_unknown,reason=unknown_city"
    assert page[name] == 6
    assert page["streamproc_ignored_records_total,city=razlog,kind=join"] == 4
    assert page["streamproc_step_seconds_count"] == 2


def test_a_commit_is_counted_with_its_files_and_alerts() -> None:
    found = metrics()

    found.committed("age", 0.3, {"readings": (2, 1000), "alerts": (1, 10)}, (alert(),))
    found.alerts_sent((alert(), alert("cleared")))

    page = samples(found)
    assert page["streamproc_commits_total,reason=age"] == 1
    assert page["streamproc_commit_seconds_sum"] == 0.3
    assert page["streamproc_files_total,dataset=readings"] == 2
    assert page["streamproc_file_bytes_total,dataset=alerts"] == 10
    assert (
        page["streamproc_alerts_total,city=razlog,severity=warning,state=firing"] == 1
    )
    assert page["streamproc_sent_alerts_total,city=razlog"] == 2


def test_the_watermark_delay_is_of_the_slowest_partition_and_grows_in_silence() -> None:
    wall = Wall()
    found = metrics(wall)
    found.opened(P0, 0.1)
    found.opened(P1, 0.1)
    found.watermarks(P0, {"razlog": 995_000_000})
    found.watermarks(P1, {"razlog": 990_000_000, "ange": 999_000_000})

    before = samples(found)
    wall.now_us += 60_000_000
    after = samples(found)

    assert before["streamproc_watermark_delay_seconds,city=razlog"] == 10
    assert before["streamproc_watermark_delay_seconds,city=ange"] == 1
    assert after["streamproc_watermark_delay_seconds,city=razlog"] == 70


def test_a_released_partition_leaves_the_page() -> None:
    found = metrics()
    found.opened(P0, 0.1)
    found.lag(P0, 5)
    found.state(P0, series=3, open_windows=6, size=900)
    found.watermarks(P0, {"razlog": 0})
    held = samples(found)

    found.released(P0)
    found.released(P0)
    found.released(P1)

    left = samples(found)
    assert held["streamproc_lag_records,partition=0,topic=telemetry.razlog"] == 5
    assert held["streamproc_state_bytes,partition=0,topic=telemetry.razlog"] == 900
    assert held["streamproc_owned_partitions"] == 1
    assert left["streamproc_owned_partitions"] == 0
    assert not [name for name in left if name.startswith("streamproc_lag_records")]
    assert not [name for name in left if "watermark_delay" in name]


def test_errors_fencing_and_progress_are_seen() -> None:
    wall = Wall()
    found = metrics(wall)

    found.error("writing", "fenced")
    found.fenced()
    found.opened(P0, 1.5)
    found.fetched(4096)
    found.in_flight(77)

    page = samples(found)
    assert page["streamproc_errors_total,kind=fenced,stage=writing"] == 1
    assert page["streamproc_fenced_total"] == 1
    assert page["streamproc_takeovers_total"] == 1
    assert page["streamproc_restore_seconds_sum"] == 1.5
    assert page["streamproc_fetched_bytes_total"] == 4096
    assert page["streamproc_in_flight_bytes"] == 77
    assert page["streamproc_progress_timestamp_seconds"] == wall.now_us / 1e6
    assert page["streamproc_build_info,job=region,version=0.1"] == 1


def test_two_instances_do_not_meet_and_nothing_is_global() -> None:
    first, second = metrics(), metrics()
    first.fenced()

    assert samples(second)["streamproc_fenced_total"] == 0
    assert not [f.name for f in REGISTRY.collect() if f.name.startswith("streamproc")]


def test_every_metric_is_ours_or_the_process_and_documented() -> None:
    found = metrics()

    for family in text_string_to_metric_families(found.render().decode()):
        assert family.name.startswith(("streamproc_", "process_")), family.name
        assert family.documentation
        assert "device" not in {
            key for sample in family.samples for key in sample.labels
        }
