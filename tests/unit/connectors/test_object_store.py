"""What `ObjectStore` makes of a server that fails: a real one, behind a front that spoils."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from streamproc.connectors.object_client import ObjectOptions, Waiting
from streamproc.connectors.object_probe import race
from streamproc.connectors.object_store import ObjectStore
from streamproc.core.chain import Draft, Genesis, LogIdentity
from streamproc.core.definition import STATE_VERSION
from streamproc.core.ports import Created
from streamproc.errors import Fenced, StoreFault, Unreachable
from streamproc.runtime.partition_log import PartitionLog
from streamproc.testing.s3_front import (
    Asked,
    Fault,
    FaultFront,
    always,
    first,
    passing,
    share,
)
from streamproc.testing.s3_server import SECRET_KEY, S3Server, at_endpoint
from tests.support.buckets import store_at
from tests.support.kafka import fresh
from tests.support.s3 import shared_s3
from tests.support.service import definition

BUCKET = "faults"


@dataclass
class Patience:
    """Time that passes only where the store waits, and draws that take the whole wait."""

    now_us: int = 0
    waits: list[float] = field(default_factory=list)
    drawn: float = 1.0

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_us += round(seconds * 1e6)

    def waiting(self) -> Waiting:
        return Waiting(lambda: self.now_us, self.sleep, lambda: self.drawn)


@dataclass
class Bench:
    """A server behind a front, and a store that sees it through the front."""

    server: S3Server
    front: FaultFront
    options: ObjectOptions
    patience: Patience
    store: ObjectStore

    @property
    def root(self) -> Path:
        return self.server.folder(BUCKET) / self.options.prefix

    def another(self, **changes: object) -> ObjectStore:
        changed = replace(self.options, **changes)  # type: ignore[arg-type]
        return ObjectStore(changed, self.patience.waiting())


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with shared_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bench(s3: S3Server) -> Iterator[Bench]:
    with FaultFront(s3.endpoint) as front:
        options = replace(
            at_endpoint(s3.options(BUCKET, fresh("root")), front.endpoint),
            timeout_s=1.0,
        )
        patience = Patience()
        store = ObjectStore(options, patience.waiting())
        yield Bench(s3, front, options, patience, store)
        store.close()


def puts(asked: Asked) -> bool:
    return asked.method == "PUT" and not asked.copies


def creates(asked: Asked) -> bool:
    return asked.conditional


def copies(asked: Asked) -> bool:
    return asked.copies


def staged(store: ObjectStore, data: bytes = b"data") -> tuple[int, str]:
    size = store.stage("staging/1-a/x", data)
    store.settle()
    return size, hashlib.sha256(data).hexdigest()


# --- F28: the store is busy -----------------------------------------------------------


@pytest.mark.fault(
    "F28",
    how="HTTP front: half of all requests 503, 500, 409 or reset",
    seen="asked again with full jitter; every file published",
)
def test_a_busy_store_is_asked_again_and_nothing_is_lost(bench: Bench) -> None:
    busy = (Fault.SLOW_DOWN, Fault.INTERNAL, Fault.RESET, Fault.CONFLICT)
    bench.front.judge = share(busy, 0.5, 28, lambda asked: not creates(asked))

    for n in range(20):
        bench.store.stage(f"staging/1-a/{n}", b"%d" % n)
    bench.store.settle()
    for n in range(20):
        digest = hashlib.sha256(b"%d" % n).hexdigest()
        bench.store.publish(f"staging/1-a/{n}", f"readings/{n}", len(str(n)), digest)
    bench.store.settle()

    assert len(bench.store.list("readings")) == 20
    assert [bench.store.read(f"readings/{n}") for n in range(20)] == [
        b"%d" % n for n in range(20)
    ]
    assert bench.patience.waits


@pytest.mark.fault(
    "F28",
    how="HTTP front: every request 503",
    seen="unreachable once the patience is over, so that intake can pause",
)
def test_a_store_that_stays_busy_is_unreachable_once_the_patience_is_over(
    bench: Bench,
) -> None:
    bench.front.judge = always(Fault.SLOW_DOWN)

    with pytest.raises(Unreachable, match=r"readings/x.*503 SlowDown.*gave up after"):
        bench.store.read("readings/x")

    assert 20 < sum(bench.patience.waits) <= bench.options.patience_s
    assert len(bench.front.asked) == len(bench.patience.waits) + 1


def test_waits_are_drawn_from_nothing_to_a_bound_that_doubles(bench: Bench) -> None:
    bench.front.judge = first(Fault.SLOW_DOWN, times=7)
    bench.store.list("readings")
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert bench.patience.waits == pytest.approx(bounds)

    bench.patience.waits.clear()
    bench.patience.drawn = 0.25
    bench.front.judge = first(Fault.SLOW_DOWN, times=3)
    bench.store.list("readings")

    assert bench.patience.waits == pytest.approx([0.025, 0.05, 0.1])


def test_what_was_staged_goes_out_once_the_store_is_back(bench: Bench) -> None:
    bench.front.judge = always(Fault.INTERNAL, puts)
    bench.store.stage("staging/1-a/x", b"data")
    with pytest.raises(Unreachable, match="staging/1-a/x"):
        bench.store.settle()
    bench.front.judge = passing

    size, digest = staged(bench.store)
    bench.store.publish("staging/1-a/x", "readings/x", size, digest)
    bench.store.settle()

    assert (bench.root / "readings/x").read_bytes() == b"data"


def test_an_upload_that_failed_keeps_the_record_from_being_created(
    bench: Bench,
) -> None:
    bench.front.judge = always(Fault.DENIED, puts)
    bench.store.stage("staging/1-a/x", b"data")
    bench.front.judge = always(
        Fault.DENIED, lambda asked: puts(asked) and not creates(asked)
    )

    with pytest.raises(StoreFault, match="staging/1-a/x"):
        bench.store.create("log/0", b"record")

    assert not any(map(creates, bench.front.asked))


# --- F29: applied, but the answer is a failure ----------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Fault.APPLIED_500, Fault.APPLIED_RESET, Fault.APPLIED_STALL],
)
def test_a_create_whose_answer_was_lost_is_unknown_and_was_sent_once(
    bench: Bench, fault: Fault
) -> None:
    bench.front.judge = first(fault, creates)

    assert bench.store.create("log/0", b"mine") is Created.UNKNOWN
    assert sum(map(creates, bench.front.asked)) == 1
    assert bench.store.read("log/0") == b"mine"
    assert bench.store.create("log/0", b"mine") is Created.EXISTS


@pytest.mark.parametrize(
    "fault",
    [
        Fault.APPLIED_500,
        Fault.APPLIED_RESET,
        Fault.INTERNAL,
        Fault.SLOW_DOWN,
        Fault.RESET,
        Fault.CONFLICT,
        Fault.PRECONDITION,
    ],
)
@pytest.mark.fault(
    "F29",
    how="HTTP front: a record's create answered by 500 or a reset, applied or not",
    seen="read back; the record is there once",
)
@pytest.mark.fault(
    "F30",
    how="HTTP front: a record's create answered by 409 or 412 that left nothing",
    seen="read back and created again; not taken for another owner",
)
def test_a_log_finds_out_what_became_of_its_record(bench: Bench, fault: Fault) -> None:
    log = partition_log(bench.store)
    log.open(definition(), lambda: Genesis(0, "test"))
    log.staging()
    bench.front.judge = first(fault, creates)

    record = log.commit(Draft(kind="commit", next=7))

    assert (record.n, record.next, log.head) == (1, 7, record)
    assert log.still_ours()


def test_a_create_that_stays_unknown_ends_with_the_patience(bench: Bench) -> None:
    bench.front.judge = always(Fault.INTERNAL, creates)

    def until_known() -> Created:
        while (outcome := bench.store.create("log/0", b"x")) is Created.UNKNOWN:
            pass
        return outcome

    with pytest.raises(Unreachable, match=r"log/0: create: .*gave up after"):
        until_known()
    assert sum(bench.patience.waits) <= bench.options.patience_s


@pytest.mark.parametrize(
    "fault", [Fault.APPLIED_500, Fault.APPLIED_RESET, Fault.APPLIED_IN_BODY]
)
def test_a_copy_whose_answer_was_lost_is_looked_at(bench: Bench, fault: Fault) -> None:
    size, digest = staged(bench.store)
    bench.front.judge = first(fault, copies)

    bench.store.publish("staging/1-a/x", "readings/x", size, digest)
    bench.store.settle()

    assert (bench.root / "readings/x").read_bytes() == b"data"


# --- F30: refused ---------------------------------------------------------------------


def test_a_conflict_that_left_nothing_is_not_taken_for_somebody_s_record(
    bench: Bench,
) -> None:
    bench.front.judge = first(Fault.CONFLICT, creates)

    assert bench.store.create("log/0", b"mine") is Created.UNKNOWN
    assert bench.store.read("log/0") is None
    assert bench.store.create("log/0", b"mine") is Created.CREATED


@pytest.mark.fault("F30", how="two owners of one log", seen="the older one is fenced")
def test_another_owner_s_record_fences(bench: Bench) -> None:
    log, other = partition_log(bench.store), partition_log(bench.another())
    log.open(definition(), lambda: Genesis(0, "test"))
    other.open(definition(), lambda: Genesis(0, "test"))

    log.staging()
    with pytest.raises(Fenced, match="another owner wrote record 1"):
        log.commit(Draft(kind="commit", next=7))


@pytest.mark.fault(
    "F30",
    how="HTTP front: 403 AccessDenied, 403 ExpiredToken, 404 NoSuchBucket",
    seen="stops with bucket, key and reason; asked once",
)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.DENIED, "not allowed: status 403 AccessDenied"),
        (Fault.EXPIRED, "not allowed: status 403 ExpiredToken"),
        (Fault.NO_BUCKET, "status 404 NoSuchBucket"),
    ],
)
def test_a_no_is_not_asked_again(bench: Bench, fault: Fault, said: str) -> None:
    bench.front.judge = always(fault, lambda asked: asked.method != "HEAD")
    for call in (
        lambda: bench.store.read("log/0"),
        lambda: bench.store.list("log"),
        lambda: bench.store.create("log/0", b"x"),
        lambda: bench.store.replace("log/hint", b"x"),
    ):
        bench.front.asked.clear()
        with pytest.raises(StoreFault, match=said):
            call()
        assert len(bench.front.asked) == 1
    assert not bench.patience.waits


def test_no_message_holds_a_secret(bench: Bench) -> None:
    wrong = "this is the wrong secret"
    store = bench.another(secret_access_key=wrong)
    messages = [repr(bench.options), repr(store)]
    for call in (
        lambda: store.read("log/0"),
        lambda: store.create("log/0", b"x"),
        store.self_test,
    ):
        with pytest.raises(StoreFault, match="403 SignatureDoesNotMatch") as caught:
            call()
        messages.append(str(caught.value))
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
    for message in messages:
        assert wrong not in message
        assert SECRET_KEY not in message
        assert "StringToSign" not in message
        assert len(message) < 600


def test_no_bucket_no_host_and_no_server_are_said_clearly(bench: Bench) -> None:
    for changes, fault, said in (
        ({"bucket": "not-there"}, StoreFault, "s3://not-there/.*404 NoSuchBucket"),
        (
            {"endpoint": "http://nowhere.invalid:80"},
            Unreachable,
            "no such host .at http://nowhere.invalid:80",
        ),
        ({"endpoint": "http://127.0.0.1:1"}, Unreachable, "connection refused"),
        (
            {"endpoint": "http://127.0.0.1:1", "allow_http": False},
            StoreFault,
            "an http endpoint, which is not allowed",
        ),
    ):
        store = bench.another(**changes)
        with pytest.raises(fault, match=said):
            store.self_test()
        store.close()


# --- torn and silent answers ----------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.APPLIED_STALL, Fault.STALL])
def test_an_answer_that_does_not_end_is_asked_for_again(
    bench: Bench, fault: Fault
) -> None:
    bench.store.replace("log/0", b"a whole record")
    bench.front.judge = first(fault, lambda asked: asked.method == "GET")

    assert bench.store.read("log/0") == b"a whole record"
    assert len(bench.patience.waits) == 1


def test_a_store_that_never_answers_is_unreachable(bench: Bench) -> None:
    bench.front.judge = always(Fault.STALL)
    store = bench.another(timeout_s=0.2, patience_s=0.25)

    with pytest.raises(Unreachable, match="no answer in time"):
        store.list("log")

    assert len(bench.front.asked) == 2
    bench.front.release()


# --- what publish believes ------------------------------------------------------------


def test_an_object_under_the_final_name_is_compared_and_never_overwritten(
    bench: Bench,
) -> None:
    size, digest = staged(bench.store)
    bench.store.replace("readings/x", b"tada")

    bench.store.publish("staging/1-a/x", "readings/x", size, digest)
    with pytest.raises(
        StoreFault, match=r"readings/x: 4 bytes, sha256 .*; the log says"
    ):
        bench.store.settle()

    assert (bench.root / "readings/x").read_bytes() == b"tada"


def test_a_copy_that_was_confirmed_and_not_made_is_noticed(bench: Bench) -> None:
    size, digest = staged(bench.store)
    bench.front.judge = always(Fault.IGNORED, copies)

    bench.store.publish("staging/1-a/x", "readings/x", size, digest)

    with pytest.raises(StoreFault, match="readings/x: nothing; the log says 4 bytes"):
        bench.store.settle()


def test_nothing_is_copied_while_it_is_still_on_its_way(bench: Bench) -> None:
    copying, overlapped = threading.Event(), []

    def slow(asked: Asked) -> None:
        if asked.copies:
            copying.set()
        elif puts(asked):
            overlapped.append(copying.wait(0.1))

    bench.front.judge = slow
    for n in range(3):
        bench.store.stage(f"staging/1-a/{n}", b"data")
    digest = hashlib.sha256(b"data").hexdigest()
    for n in range(3):
        bench.store.publish(f"staging/1-a/{n}", f"readings/{n}", 4, digest)
    bench.store.settle()

    assert overlapped == [False] * 3


def test_an_object_that_somebody_else_wrote_is_read_and_hashed(bench: Bench) -> None:
    size, digest = staged(bench.store)
    (bench.root / "readings").mkdir()
    (bench.root / "readings/x").write_bytes(b"data")  # As a restore tool would put it.
    (bench.root / "readings/y").write_bytes(b"tada")

    bench.store.publish("staging/1-a/x", "readings/x", size, digest)
    bench.store.settle()
    bench.store.publish("staging/1-a/x", "readings/y", size, digest)

    with pytest.raises(StoreFault, match="readings/y"):
        bench.store.settle()


def test_a_copy_keeps_what_its_source_says_of_itself(bench: Bench) -> None:
    size, digest = staged(bench.store)
    bench.store.publish("staging/1-a/x", "readings/x", size, digest)
    bench.store.settle()

    assert bench.store.client.head("readings/x") == (size, digest)


def test_publishing_swept_staging_of_a_file_that_is_there_is_fine(
    bench: Bench,
) -> None:
    """Another owner rolled forward and cleaned up between our look and our copy."""
    size, digest = staged(bench.store)
    other = bench.another()

    def sweep(asked: Asked) -> Fault | None:
        if asked.copies:
            bench.front.judge = passing
            other.publish("staging/1-a/x", "readings/x", size, digest)
            other.settle()
            other.delete("staging/1-a/x")
            other.settle()
        return None

    bench.front.judge = sweep
    bench.store.publish("staging/1-a/x", "readings/x", size, digest)
    bench.store.settle()

    assert (bench.root / "readings/x").read_bytes() == b"data"
    other.close()


def test_what_one_thread_waits_for_is_its_own(bench: Bench) -> None:
    held, free = threading.Event(), threading.Event()

    def hold(asked: Asked) -> None:
        if asked.key.endswith("/slow"):
            held.set()
            free.wait()

    bench.front.judge = hold
    bench.store.stage("staging/1-a/slow", b"data")
    held.wait()
    with ThreadPoolExecutor(1) as other:
        other.submit(bench.store.stage, "staging/2-b/quick", b"data").result()
        other.submit(bench.store.settle).result()

    assert (bench.root / "staging/2-b/quick").read_bytes() == b"data"
    assert not (bench.root / "staging/1-a/slow").exists()
    free.set()
    bench.store.settle()
    assert (bench.root / "staging/1-a/slow").read_bytes() == b"data"


def test_another_owner_may_sweep_between_our_two_looks(bench: Bench) -> None:
    """Found by the simulation: neither published at our first look, nor staged at our second."""
    size, digest = staged(bench.store)
    zombie, looked = bench.another(), []

    def sweep(asked: Asked) -> Fault | None:
        looked.append(asked.key)
        if asked.key.endswith("staging/1-a/x"):
            bench.front.judge = passing
            bench.store.publish("staging/1-a/x", "readings/x", size, digest)
            bench.store.settle()
            bench.store.delete("staging/1-a/x")
            bench.store.settle()
        return None

    bench.front.judge = sweep
    zombie.publish("staging/1-a/x", "readings/x", size, digest)
    zombie.settle()

    assert [key.rpartition("/")[2] for key in looked] == ["x", "x"]
    zombie.close()


def test_what_a_commit_no_longer_needs_goes_in_one_request(bench: Bench) -> None:
    for n in range(20):
        bench.store.stage(f"staging/1-a/{n}", b"data")
    bench.store.settle()
    bench.front.asked.clear()

    for n in range(20):
        bench.store.delete(f"staging/1-a/{n}")
    bench.store.close()

    assert [asked.query for asked in bench.front.asked] == ["delete"]
    assert not list(bench.root.rglob("*"))


def test_closing_asks_a_store_that_does_not_answer_once(bench: Bench) -> None:
    staged(bench.store)
    bench.store.delete("staging/1-a/x")
    bench.front.asked.clear()
    bench.front.judge = always(Fault.SLOW_DOWN)

    bench.store.close()
    bench.store.close()

    assert len(bench.front.asked) == 2
    assert not bench.patience.waits


# --- large files ----------------------------------------------------------------------


def test_only_large_files_go_in_parts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamproc.connectors.object_store.PARTS_FROM_BYTES", 12 << 20)
    monkeypatch.setattr("streamproc.connectors.object_store._PART_BYTES", 6 << 20)
    small, large = bytes((12 << 20) - 1), bytes(13 << 20)
    store = bench.another(timeout_s=20.0)

    def write(name: str) -> None:
        Path(name).write_bytes(large)

    assert store.stage("snap/small", small) == len(small)
    store.settle()
    assert len(bench.front.asked) == 1
    assert store.stage("snap/large", write) == len(large)

    assert any("uploadId" in asked.query for asked in bench.front.asked)
    digest = hashlib.sha256(large).hexdigest()
    assert store.client.head("snap/large") == (len(large), digest)
    store.close()


def test_a_function_s_file_leaves_nothing_on_this_host(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: list[str] = []

    def write(name: str) -> None:
        names.append(name)
        Path(name).write_bytes(b"state")

    assert bench.store.stage("snap/1-a.arrow", write) == 5
    assert names
    assert not list(tmp_path.iterdir())
    assert bench.store.read("snap/1-a.arrow") == b"state"


# --- the probe ------------------------------------------------------------------------


def test_the_self_test_passes_and_leaves_nothing(bench: Bench) -> None:
    said = bench.store.self_test()

    assert "a second create is refused" in said
    assert "8 races of 8 creates had one winner each" in said
    assert tuple(bench.store.list("")) == ()


def test_a_service_that_loses_races_is_refused(bench: Bench) -> None:
    bench.front.judge = always(Fault.RACY)
    assert bench.store.create("log/0", b"one") is Created.CREATED
    assert bench.store.create("log/0", b"two") is Created.EXISTS

    with pytest.raises(StoreFault, match=r"creates at once were told that they won"):
        bench.store.self_test()


def test_a_service_that_overwrites_is_refused(bench: Bench) -> None:
    bench.store.create("log/0", b"one")
    bench.front.judge = always(Fault.PRECONDITION, creates)

    with pytest.raises(Unreachable, match="refused, but nothing is there"):
        bench.store.self_test()


def test_twenty_writers_race_two_hundred_rounds_and_one_wins_each(s3: S3Server) -> None:
    store = store_at(s3.options(BUCKET, fresh("race")))

    assert race(store.client, "log", creators=20, rounds=200) == 200
    store.close()


def partition_log(store: ObjectStore) -> PartitionLog:
    made = definition()
    identity = LogIdentity(
        job=made.job,
        topic="telemetry.razlog",
        topic_id="id",
        partition=0,
        owner="one",
        code_version="test",
        state_version=STATE_VERSION,
    )
    return PartitionLog(
        store, "_streamproc/test/t-id/0", identity, lambda: fresh("a" * 8)
    )
