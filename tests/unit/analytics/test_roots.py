"""A bucket read like a folder: every answer is the one `pathlib` gives of the same files."""

from pathlib import Path

import pytest

from streamproc.analytics.roots import BucketPath, in_order, root_path
from streamproc.errors import InputError
from tests.support.listed_folder import FolderAsBucket

FILES = (
    "properties.parquet",
    "readings/city=a/date=2026-03-01/one.parquet",
    "readings/city=a/date=2026-03-02/two.parquet",
    "readings/city=b/date=2026-03-01/three.parquet",
    "readings/city=b/note.txt",
    "aggregates/window=1h/city=a/date=2026-03-01/four.parquet",
    "_streamproc/job/t-id/0/log/0.json",
    "_streamproc/job/t-id/1/log/0.json",
    "_streamproc/job/t-id/1/staging/2-x/00000-readings.parquet",
)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, BucketPath]:
    for number, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * number)
    return tmp_path, BucketPath(FolderAsBucket(tmp_path))


@pytest.mark.parametrize(
    ("start", "pattern"),
    [
        ("", "_streamproc/*"),
        ("_streamproc/job", "*/*/log"),
        ("readings", "city=*"),
        ("readings", "city=*/date=*/*.parquet"),
        ("", "aggregates/window=*/city=*/date=*/*.parquet"),
        ("", "readings/city=a/date=2026-03-01/*.parquet"),
        ("", "*.parquet"),
        ("nowhere", "*.parquet"),
        ("nowhere", "*/*"),
    ],
)
def test_what_a_pattern_finds(
    both: tuple[Path, BucketPath], start: str, pattern: str
) -> None:
    folder, bucket = both

    local = sorted(
        p.relative_to(folder).as_posix() for p in (folder / start).glob(pattern)
    )
    found = sorted(p.as_posix() for p in (bucket / start).glob(pattern))

    assert found == local


def test_what_lies_below_and_directly_inside(both: tuple[Path, BucketPath]) -> None:
    folder, bucket = both
    for start in ("", "readings", "_streamproc/job/t-id/1/staging"):
        local = sorted(p.name for p in (folder / start).iterdir())
        assert sorted(p.name for p in (bucket / start).iterdir()) == local
        found = [p for p in (folder / start).rglob("*") if p.is_file()]
        sizes = sorted(
            (p.relative_to(folder).as_posix(), p.stat().st_size) for p in found
        )
        below = (bucket / start).rglob("*")
        assert sorted((p.as_posix(), p.stat().st_size) for p in below) == sizes


@pytest.mark.parametrize("name", ["", *FILES, "readings", "readings/city=a", "nowhere"])
def test_what_a_place_is(both: tuple[Path, BucketPath], name: str) -> None:
    folder, bucket = both
    local, place = folder / name, bucket / name if name else bucket

    assert (place.is_file(), place.is_dir()) == (local.is_file(), local.is_dir())
    if local.is_file():
        assert place.stat().st_size == local.stat().st_size
        assert place.read_bytes() == local.read_bytes()
        assert place.name == local.name
    elif not name:
        assert str(place) == "s3://bucket/prefix"
    else:
        with pytest.raises(FileNotFoundError, match=f"s3://bucket/prefix/{name}"):
            place.read_bytes()
        with pytest.raises(FileNotFoundError):
            place.stat()


def test_places_are_ordered_part_by_part(both: tuple[Path, BucketPath]) -> None:
    folder, bucket = both
    local = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())

    found = in_order(bucket.rglob("*"))

    assert [p.as_posix() for p in found] == [p.as_posix() for p in local]


def test_a_url_alone_does_not_say_how_to_get_there() -> None:
    with pytest.raises(InputError, match="open it with"):
        root_path("s3://bucket/prefix")
