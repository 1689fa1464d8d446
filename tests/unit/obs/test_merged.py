"""Several processes' pages and judgements as one."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamproc.obs.health import Judgement
from streamproc.obs.merged import combined, merged


def page(records: int, odd: str) -> str:
    registry = CollectorRegistry()
    counter = Counter("records", "Records.", ("topic",), registry=registry)
    counter.labels(odd).inc(records)
    Counter("plain", "Without labels.", registry=registry).inc(records)
    Histogram("seconds", "Time.", buckets=(1.0,), registry=registry).observe(0.5)
    return generate_latest(registry).decode()


def test_every_sample_keeps_its_numbers_and_says_whose_it_is() -> None:
    odd = 'a "b" } {c,\\d\n e'
    found = merged({"1": page(3, odd), "2": page(5, odd)})
    families = {f.name: f for f in text_string_to_metric_families(found)}
    records = {
        (s.labels["worker"], s.labels["topic"]): s.value
        for s in families["records"].samples
        if s.name == "records_total"
    }
    assert records == {("1", odd): 3.0, ("2", odd): 5.0}
    plain = {
        s.labels["worker"]: s.value
        for s in families["plain"].samples
        if s.name == "plain_total"
    }
    assert plain == {"1": 3.0, "2": 5.0}
    buckets = [s for s in families["seconds"].samples if s.name == "seconds_bucket"]
    assert {(s.labels["worker"], s.labels["le"]) for s in buckets} == {
        ("1", "1.0"), ("1", "+Inf"), ("2", "1.0"), ("2", "+Inf"),
    }  # fmt: skip


def test_a_family_is_described_once() -> None:
    found = merged({"1": page(1, "t"), "2": page(1, "t")}).splitlines()
    assert found.count("# TYPE records_total counter") == 1
    assert found.count("# HELP records_total Records.") == 1


def test_all_must_be_well_and_reasons_name_the_worker() -> None:
    good = Judgement(healthy=True, ready=True)
    waiting = Judgement(healthy=True, ready=False, reasons=("not yet",))
    assert combined({"1": good, "2": good}) == good
    assert combined({"1": good, "2": waiting}) == Judgement(
        healthy=True, ready=False, reasons=("worker 2: not yet",)
    )
    sick = Judgement(healthy=False, ready=False, reasons=("stuck",))
    assert not combined({"1": sick, "2": good}).healthy
