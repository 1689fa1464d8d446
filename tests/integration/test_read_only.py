"""An output root that becomes read-only, or whose rights are lost: a clear stop, nothing lost (F27).

A file system cannot be made read-only while a file is open for writing, and the store keeps its
lock open. So a read-only view of it is mounted over it: what is open stays, every name leads there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.app.service import open_service
from streamproc.config import Settings
from streamproc.config import load as load_settings
from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.core.flush import FlushPolicy
from streamproc.core.ports import Failpoint
from streamproc.core.values import TopicPartition
from streamproc.errors import StoreFault
from streamproc.runtime.parts import ServiceOptions
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.failpoints import fill, verified_logs
from tests.support.service import (
    RAZLOG,
    Rig,
    accounted,
    left_in_staging,
    traffic,
)
from tests.support.service_process import CHECKOUT, Orders, ServiceProcess

COUNT = 300
BOTH = (TopicPartition(RAZLOG, 0), TopicPartition(RAZLOG, 1))
EVERY = sorted((origin.source, n) for origin in BOTH for n in range(COUNT))
TO_END = ServiceOptions(until_end=True, close=True)

CONFIG = """
job.name = "test"
source = {{ bootstrap_servers = "{servers}", topics = "telemetry.{{city}}" }}
output.root = "{root}"
metrics.enabled = false
cities.razlog.timezone = "Europe/Sofia"
windows = [{{ name = "1m", every = "1m" }}]
"""

RIGHTS = "-dac_override,-dac_read_search"
WITHOUT_RIGHTS = ("setpriv", "--bounding-set", RIGHTS, "--inh-caps", RIGHTS)
"""Runs a command as root to whom the bits of a folder's mode apply, as to anybody else."""


class Disk:
    """A file system of its own, whose names may lead to a read-only view of it."""

    def __init__(self, folder: Path, view: Path) -> None:
        self.root = folder / "data"
        self._folder = str(folder)
        self._view = str(view)
        self.mounted: list[str] = []

    def mount(self) -> None:
        """Raises `CalledProcessError` where nobody may mount."""
        self._mount(self._folder, "-t", "tmpfs", "-o", "size=64m", "tmpfs")
        _command("/bin/mount", "--make-private", self._folder)
        self._mount(self._view, "--bind", self._folder)
        _command("/bin/mount", "-o", "remount,bind,ro", self._view)

    def turn_read_only(self) -> None:
        self._mount(self._folder, "--bind", self._view)

    def turn_writable(self) -> None:
        _command("/bin/umount", self.mounted.pop())

    def unmount(self) -> None:
        while self.mounted:
            _command("/bin/umount", "-l", self.mounted.pop())

    def _mount(self, place: str, *what: str) -> None:
        _command("/bin/mount", *what, place)
        self.mounted.append(place)


def _command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    for name in ("small", "view"):
        (tmp_path / name).mkdir()
    made = Disk(tmp_path / "small", tmp_path / "view")
    try:
        made.mount()
        yield made
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted here: {error.stderr.strip()}")
    finally:
        made.unmount()


def at(wanted: str, nth: int, disk: Disk) -> Failpoint:
    """Return a failpoint that takes the right to write away at a step's nth time."""
    left = nth

    def reached(step: str) -> None:
        nonlocal left
        left -= step == wanted
        if step == wanted and left == 0:
            disk.turn_read_only()

    return reached


def records() -> ScriptedSource:
    source = ScriptedSource({RAZLOG: 2}, records_max=20)
    for origin in BOTH:
        source.produce(origin, traffic(COUNT))
    return source


def assert_only_whole_files(root: Path) -> None:
    """What can be seen is what a record names, byte for byte, and no record is seen twice."""
    verified_logs(root, ended=False)
    seen = accounted(root)
    assert len(set(seen)) == len(seen)
    assert 0 < len(seen) < len(EVERY)


async def assert_finished_by_the_next_start(root: Path) -> None:
    rig = Rig(root, records(), ManualClock(), options=TO_END)
    rig.store.self_test()
    await rig.run()
    rig.store.close()
    assert accounted(root) == EVERY
    assert not left_in_staging(root)
    assert not list((root / "_streamproc" / ".tmp").iterdir())
    verified_logs(root)


@pytest.mark.parametrize(
    "step",
    ["takeover.before", "staging.before", "record.before", "publish.before", "publish.middle"],
)  # fmt: skip
@pytest.mark.fault(
    "F27",
    how="a file system turns read-only: before the takeover, a file staged, the record, in publishing",
    seen="an error that names file and cause, only whole files visible, the next start has everything",
)
async def test_a_file_system_that_turns_read_only_stops_the_service_and_costs_nothing(
    disk: Disk, step: str
) -> None:
    first = Rig(disk.root, records(), ManualClock(), flush=FlushPolicy(rows_max=1))
    await first.crash_at(100)
    nth = 2 if step == "takeover.before" else 5
    rig = Rig(
        *(disk.root, records(), ManualClock()),
        flush=FlushPolicy(rows_max=1),
        failpoint=at(step, nth, disk),
    )
    with pytest.raises(StoreFault, match="Read-only file system") as told:
        await rig.run()

    assert str(disk.root) in str(told.value)
    assert {kind for _, kind in rig.watch.failures} == {"StoreFault"}
    assert rig.service.stopped.keys() == set(BOTH)
    assert_only_whole_files(disk.root)
    rig.store.close()
    disk.turn_writable()
    first.store.close()
    await assert_finished_by_the_next_start(disk.root)


def run(config: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "streamproc", "run", str(config)]
    return subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


@pytest.mark.fault(
    "F27",
    how="the file system is read-only at the start",
    seen="exit 1, one line with place and cause; nothing changed",
)
async def test_a_service_does_not_start_on_a_read_only_root(
    disk: Disk, tmp_path: Path
) -> None:
    rig = Rig(disk.root, records(), ManualClock(), flush=FlushPolicy(rows_max=1))
    await rig.crash_at(100)
    rig.store.close()
    before = accounted(disk.root)
    config = tmp_path / "town.toml"
    config.write_text(CONFIG.format(servers="localhost:9", root=disk.root))
    disk.turn_read_only()

    ended = run(config)

    assert ended.returncode == 1
    # Where the console breaks lines is nothing to rely on.
    said = "".join(ended.stderr.split())
    assert said == f"StoreFault:{disk.root}:Read-onlyfilesystem"
    assert accounted(disk.root) == before
    disk.turn_writable()
    await assert_finished_by_the_next_start(disk.root)


@pytest.mark.fault(
    "F27",
    how="the same under the whole service, between its start and its first partition",
    seen="the fault itself is told, not that nothing can be cleared up after it",
)
async def test_what_cannot_be_cleared_up_at_the_end_does_not_hide_why_it_ended(
    disk: Disk, tmp_path: Path
) -> None:
    with EmbeddedBroker({RAZLOG: 1}) as broker:
        config = tmp_path / "town.toml"
        servers = broker.bootstrap_servers
        config.write_text(CONFIG.format(servers=servers, root=disk.root))
        settings = load_settings(config, {})
        with pytest.raises(StoreFault, match="Read-only file system"):
            await run_without_the_right(settings, disk)


async def run_without_the_right(settings: Settings, disk: Disk) -> None:
    async with open_service(settings, until_end=True) as service:
        disk.turn_read_only()
        await service.run()


@pytest.fixture
def bound_by_rights() -> tuple[str, ...]:
    """What a command has to begin with so that a folder's mode binds it."""
    if os.geteuid() != 0:
        return ()
    try:
        _command(*WITHOUT_RIGHTS, "true")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root cannot give up its rights here: {error}")
    return WITHOUT_RIGHTS


def allow_writing(root: Path, *, allowed: bool) -> None:
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folder.chmod(0o755 if allowed else 0o555)


@pytest.mark.fault(
    "F27",
    how="the right to write is taken from a real process while it commits",
    seen="exit 1 and an error that names file and cause; the next start has everything once",
)
async def test_a_right_that_is_lost_ends_the_process_and_costs_nothing(
    tmp_path: Path, bound_by_rights: tuple[str, ...]
) -> None:
    root = tmp_path / "data"
    with EmbeddedBroker({RAZLOG: 2}) as broker:
        servers = broker.bootstrap_servers
        await fill(KafkaConnection(bootstrap_servers=servers), RAZLOG, 2, COUNT)
        given = Orders(servers, str(root), "rights", (RAZLOG,), max_rate=150.0)
        with ServiceProcess(given, prefix=bound_by_rights) as process:
            process.until(lambda said: said[0] == "committed" and said[2] >= 2)
            allow_writing(root, allowed=False)
            assert process.ended(60) == 1
        assert process.errors.startswith(f"StoreFault: {root}: ")
        assert "Permission denied: " in process.errors
        assert_only_whole_files(root)

        with ServiceProcess(given, prefix=bound_by_rights) as process:
            assert process.ended(60) == 1
        assert f"StoreFault: {root}: Permission denied" in process.errors
        allow_writing(root, allowed=True)
        given = Orders(servers, str(root), "again", (RAZLOG,), close=True)
        with ServiceProcess(given, prefix=bound_by_rights) as process:
            assert process.ended() == 0, process.errors
    assert accounted(root) == EVERY
    assert not left_in_staging(root)
    verified_logs(root)
