"""A disk that is really full: a small tmpfs, filled by somebody else, and emptied again (F24)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.connectors.local_store import LocalStore
from streamproc.core.flush import FlushPolicy
from streamproc.core.ports import Created
from streamproc.core.values import TopicPartition
from streamproc.errors import StoreFull
from streamproc.runtime.writes import RETRY_S
from streamproc.testing.clock import ManualClock
from streamproc.testing.scripted_source import ScriptedSource
from tests.support.service import RAZLOG, Rig, accounted, readings_of, traffic

P0 = TopicPartition(RAZLOG, 0)
MEBIBYTE = 1 << 20
SIZE = 16 * MEBIBYTE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB; where nobody may mount one, `tests/unit/runtime` has a double."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["/bin/umount", "-l", str(folder)], check=True)


def fill_up(folder: Path, left: int) -> Path:
    """Leave only so many bytes free; return the file that takes the rest."""
    found = os.statvfs(folder)
    size = max(0, found.f_bavail * found.f_frsize - left)
    ballast = folder / "somebody-elses"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
    return ballast


def test_a_store_is_full_before_the_last_bytes_and_until_there_is_clearly_more(
    small_disk: Path,
) -> None:
    store = LocalStore(small_disk / "data")
    elses = fill_up(small_disk, SIZE // 50 - 4096)
    with pytest.raises(StoreFull, match="disk full"):
        store.stage("staging/1-a/x", b"bytes")
    assert store.create("log/1", b"a record") is Created.CREATED
    os.truncate(elses, elses.stat().st_size - SIZE // 25)
    with pytest.raises(StoreFull, match="are needed"):
        store.stage("staging/1-a/x", b"bytes")
    os.truncate(elses, elses.stat().st_size - SIZE // 10)
    assert store.stage("staging/1-a/x", b"bytes") == 5
    store.close()


@pytest.mark.fault(
    "F24",
    how="a file system of its own runs full under the service",
    seen="pauses, keeps its membership, goes on by itself",
)
async def test_a_full_disk_pauses_the_service_and_room_lets_it_go_on(
    small_disk: Path,
) -> None:
    source = ScriptedSource({RAZLOG: 1}, records_max=10)
    source.produce(P0, traffic(40))
    rig = Rig(small_disk / "data", source, ManualClock(), flush=FlushPolicy(rows_max=1))
    async with rig.running():
        await rig.watch.until_at(P0, 40)
        await rig.watch.until(lambda: rig.watch.records[-1].next == 40)
        elses = fill_up(small_disk, 0)
        source.produce(P0, traffic(200, first=40))
        await rig.watch.until(lambda: rig.watch.store_)
        for _ in range(5):
            await rig.pass_time(RETRY_S[-1], asleep=3)
        assert rig.watch.stepped_to[P0] < 240
        assert not rig.service.stopped
        elses.unlink()
        await rig.pass_time(RETRY_S[-1], asleep=2)
        await rig.watch.until_at(P0, 240)

    rig.store.close()
    assert [problem == "" for _, problem in rig.watch.store_] == [False, True]
    assert "disk full" in rig.watch.store_[0][1]
    rows = readings_of(small_disk / "data")
    assert len(set(rows)) == len(rows)
    assert accounted(small_disk / "data") == [(P0.source, n) for n in range(240)]
