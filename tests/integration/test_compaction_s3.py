"""Compaction of a root in a bucket of a real S3 server: killed anywhere, each row once."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # noqa: TID251  (a test reads what was published)
import pytest

from streamproc.analytics.dataset import open_dataset
from streamproc.analytics.live import Wanted, live_files, visible_files
from streamproc.analytics.roots import BucketPath, content
from streamproc.analytics.verify import verify
from streamproc.connectors.object_store import ObjectStore
from streamproc.core.compaction import POINTS
from streamproc.runtime.compactor import DATASETS
from streamproc.testing.s3_server import S3Server
from tests.support.buckets import store_at
from tests.support.compaction import (
    READINGS,
    Killed,
    compact_all,
    compactor,
    filled,
    killing,
)
from tests.support.kafka import fresh

BUCKET = "keep"


def uploaded(s3: S3Server, folder: Path) -> ObjectStore:
    """Return a bucket's root with the files of a folder."""
    store = store_at(s3.options(BUCKET, fresh("compact")))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and "/.tmp/" not in f"/{name}":
            store.replace(name, path.read_bytes())
    store.settle()
    return store


def rows(root: BucketPath, *, exact: bool) -> Counter[tuple[Any, ...]]:
    look = live_files if exact else visible_files
    found: Counter[tuple[Any, ...]] = Counter()
    for dataset in DATASETS:
        for file in look(root, Wanted(dataset)):
            with pq.ParquetFile(content(root / file.at)) as parquet:
                for row in parquet.read().to_pylist():
                    found[file.unit, repr(row)] += 1
    return found


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_no_reader_of_the_bucket_loses_a_row(
    s3: S3Server, tmp_path: Path, point: str
) -> None:
    filled(tmp_path)
    store = uploaded(s3, tmp_path)
    root = BucketPath(store)
    before = rows(root, exact=True)
    assert sum(before.values()) == 48
    with pytest.raises(Killed):
        compactor(store, "dead", killing(point)).compact(READINGS)

    assert not before - rows(root, exact=False)
    assert rows(root, exact=True) == before
    compact_all(compactor(store, "heir"))

    assert rows(root, exact=False) == before
    assert len(visible_files(root, Wanted("readings"))) == 1
    assert len(open_dataset(root, "readings", cities=["razlog"]).collect()) == 16
    assert verify(root).findings == ()
    store.close()


def test_of_two_compactors_at_one_folder_of_a_bucket_exactly_one_wins(
    s3: S3Server, tmp_path: Path
) -> None:
    filled(tmp_path)
    store = uploaded(s3, tmp_path)
    other = compactor(store, "other")
    won: list[str] = []

    def interrupt(point: str) -> None:
        if point == "compact.record.before" and not won:
            won.append(other.compact(READINGS).what)

    outcome = compactor(store, "first", interrupt).compact(READINGS)

    assert (outcome.what, won) == ("lost", ["compacted"])
    assert verify(BucketPath(store)).findings == ()
    store.close()
