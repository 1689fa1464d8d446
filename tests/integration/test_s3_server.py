"""The S3 server of the tests itself: it starts, keeps its data, and says what it lacks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.core.ports import Created
from streamproc.testing.s3_server import S3Server, S3Unavailable, binary
from tests.support.buckets import store_at
from tests.support.s3 import started


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3Server]:
    """A server that a test may kill and restart."""
    server = started(S3Server(tmp_path))
    yield server
    server.stop()


def test_a_killed_server_comes_back_at_the_same_address_with_its_data(
    own_s3: S3Server,
) -> None:
    store = store_at(own_s3.options("kept"))
    assert store.create("log/0", b"mine") is Created.CREATED
    own_s3.kill()
    own_s3.start()

    assert store.create("log/0", b"again") is Created.EXISTS
    assert store.read("log/0") == b"mine"
    store.close()


def test_objects_are_files_under_their_keys(own_s3: S3Server) -> None:
    store = store_at(own_s3.options("kept", "some/prefix"))
    store.replace("readings/city=a/x", b"data")
    file = own_s3.folder("kept") / "some/prefix/readings/city=a/x"

    assert file.read_bytes() == b"data"
    file.unlink()

    assert store.read("readings/city=a/x") is None
    store.close()


def test_without_binary_and_go_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMPROC_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(S3Unavailable, match="versitygw is missing, and go"):
        binary()
