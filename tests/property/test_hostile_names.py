"""Names out of hostile payloads: none becomes a path, a city, a metric's label or a log line."""

import asyncio
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.core.values import TopicPartition
from streamproc.obs.health import Progress
from streamproc.obs.logs import configure
from streamproc.obs.metrics import Metrics
from streamproc.runtime.metering import Metering
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.configs import LEAST, faults
from tests.support.service import ANGE, RAZLOG, START_US, Rig, accounted, published

CORPUS = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:\\x", "~root",
    "x\0y", "a\nb", "\x1b[31mred", "\u202egnp.exe", "\ufeffbom", "", " ", "x" * 300,
    "city=ange", "city=ange/date=2026-01-01", "__HIVE_DEFAULT_PARTITION__", "a=b",
    "%2e%2e%2fange", "..%c0%af", "\u2024\u2024\uff0fange", "\uff41nge", "e\u0301", "\xe9",
    "null", "_streamproc", "staging", 'x"} 1\nstreamproc_forged{a="', "{{7*7}}", "$(id)",
)  # fmt: skip
"""What P6 and P7 found that path builders do to their writers, and relatives of it."""

FILE = re.compile(
    r"(readings|aggregates/window=(1m|5m)|alerts|late|quarantine)/city=razlog/"
    r"date=\d{4}-\d{2}-\d{2}/[A-Za-z0-9._-]+\.parquet"
)
OURS = re.compile(r"_streamproc/[A-Za-z0-9._/-]+")

names = st.one_of(st.sampled_from(CORPUS), st.text(max_size=40))


def record(
    device: str, kind: str = "temperature", step: int = 0, **more: object
) -> bytes:
    moment = START_US // 1000 + step
    document = {"device": device, "property": kind, "time": moment, "value": 50.0}
    return json.dumps(document | more).encode("utf-8", "surrogatepass")


async def consumed(root: Path, payloads: Sequence[bytes], *also: object) -> None:
    """Let a service read these from Razlog's topic, to the end."""
    source = ScriptedSource({RAZLOG: 1}, records_max=50)
    source.produce(TopicPartition(RAZLOG, 0), list(payloads))
    options = ServiceOptions(until_end=True, close=True)
    await Rig(root, source, ManualClock(), options=options, also=also).run()  # type: ignore[arg-type]


def assert_inside(folder: Path, root: Path) -> None:
    """Check that everything below `folder` is where a file of Razlog may be."""
    for path in folder.rglob("*"):
        assert path.is_relative_to(root) or root.is_relative_to(path), path
        if path.is_file():
            name = str(path.relative_to(root))
            assert FILE.fullmatch(name) or OURS.fullmatch(name), name


@settings(max_examples=15)
@given(st.lists(st.tuples(names, names), min_size=1, max_size=30))
def test_whatever_a_device_calls_itself_files_stay_where_they_belong(
    pairs: list[tuple[str, str]],
) -> None:
    payloads = [record(device, step=n) for n, (device, _) in enumerate(pairs)]
    payloads += [record("d", kind, step=n) for n, (_, kind) in enumerate(pairs)]
    with TemporaryDirectory() as folder:
        root = Path(folder) / "deep" / "root"
        root.parent.mkdir()
        asyncio.run(consumed(root, payloads))

        assert_inside(Path(folder), root)
        every = [(f"{RAZLOG}/0", n) for n in range(len(payloads))]
        assert accounted(root) == every
        sent = {device for device, _ in pairs} | {"d"}
        assert {row["device"] for row in published(root, "readings")} <= sent


async def test_the_whole_corpus_at_once_stays_where_it_belongs(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    root.parent.mkdir()

    await consumed(root, [record(name) for name in CORPUS])

    assert_inside(tmp_path, root)
    assert len(accounted(root)) == len(CORPUS)
    kept = {row["device"] for row in published(root, "readings")}
    assert {"../../etc/passwd", "e\u0301", "\xe9", "city=ange"} <= kept  # told apart


@pytest.mark.parametrize("slug", [name for name in CORPUS if "\0" not in name])
def test_no_such_name_is_a_citys(tmp_path: Path, slug: str) -> None:
    if re.fullmatch(r"[a-z0-9-]{1,32}", slug):
        return  # `null`, `staging`: plain words, and a city's folder is `city=null`
    quoted = json.dumps(slug)
    text = LEAST.replace("cities.razlog", f"cities.{quoted}")

    assert faults(tmp_path, text)


async def test_a_payload_that_names_another_city_stays_in_its_topics(
    tmp_path: Path,
) -> None:
    """O7: what a device says of its city is not looked at."""
    forged = [
        record("d1", city="ange", topic=ANGE, tenant="ange"),
        record("ange/d1", step=1, properties={"city": "ange"}),
        record("city=ange", step=2, metadata={"source": f"{ANGE}/0"}),
    ]

    await consumed(tmp_path, forged)

    for dataset in ("readings", "aggregates", "alerts", "quarantine", "late"):
        assert {row["city"] for row in published(tmp_path, dataset)} <= {"razlog"}
    assert {r["source"] for r in published(tmp_path, "readings")} == {f"{RAZLOG}/0"}


async def test_devices_are_neither_labels_of_metrics_nor_lines_of_the_log(
    tmp_path: Path,
) -> None:
    """A thousand names more, and the page is as long as before."""
    few = await _watched(tmp_path / "few", CORPUS)
    many = await _watched(tmp_path / "many", [*CORPUS, *(f"d{n}" for n in range(1000))])

    assert _series(many[0]) == _series(few[0])
    assert "passwd" not in many[0]
    assert "forged" not in many[0]
    for line in many[1].splitlines():
        assert isinstance(json.loads(line), dict)
        assert not re.search(r"[\x00-\x1f\x7f\u202e]", line)


async def _watched(root: Path, devices: Sequence[str]) -> tuple[str, str]:
    """Return the metrics page and the log of a service that read these devices."""
    clock, log = ManualClock(), io.StringIO()
    configure("debug", "json", log)
    metrics = Metrics(clock.wall_us, ("razlog",), version="0", job="test")
    progress = Progress(clock.monotonic_us(), 10**12)
    metering = Metering(
        metrics, progress, structlog.get_logger("test"), clock.monotonic_us
    )
    await consumed(root, [record(name) for name in devices] + [b"{", b""], metering)
    return metrics.render().decode(), log.getvalue()


def _series(page: str) -> set[str]:
    return {
        line.rsplit(" ", 1)[0]
        for line in page.splitlines()
        if line.startswith("streamproc_")
    }
