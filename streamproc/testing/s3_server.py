"""A real S3 server for tests: versitygw on a folder, started from its binary.

The binary is built once by `go install` into `$STREAMPROC_CACHE` or `.cache/` of the
checkout, by version (about two minutes and 84 MB); without `go` and without the binary there
is no server. It keeps conditional creates (COMPONENTS.md: exactly one winner in 200 of 200
races), but does not sync, so it proves nothing about power loss.

Objects are plain files: `folder(bucket)` holds them under their keys, so that a test reads
what was published as it reads a local root.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import streamproc
from streamproc.connectors.object_client import ObjectOptions
from streamproc.errors import WorldError
from streamproc.testing.guarded_process import GuardedProcess, Server, answers

VERSION: Final = "1.8.0"
ACCESS_KEY: Final = "streamproc-test"
SECRET_KEY: Final = "a secret of tests alone"  # noqa: S105  (a throw-away server's)

_MODULE: Final = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
_CHECKOUT: Final = Path(streamproc.__file__).parents[1]
_START_S: Final = 20.0
_STOP_S: Final = 5.0
_TRIES: Final = 3


class S3Unavailable(WorldError):
    """No S3 server can be started here; the message says what is missing."""


def binary() -> Path:
    """Return the server's binary, building it the first time.

    Raises:
        S3Unavailable: there is no Go, or it could not build it.
    """
    cache = Path(os.environ.get("STREAMPROC_CACHE", _CHECKOUT / ".cache"))
    folder = (cache / f"versitygw-{VERSION}").absolute()
    built = folder / "versitygw"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        msg = f"{built} is missing, and go, which builds it, is not installed"
        raise S3Unavailable(msg)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test runs may begin at once
        if not built.exists():
            _build(go, folder)
    return built


def _build(go: str, folder: Path) -> None:
    # Built under another name first: a binary that is there is whole.
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        done = subprocess.run(  # noqa: S603  (Go, with a pinned module)
            [go, "install", _MODULE],
            env={**os.environ, "GOBIN": fresh, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            msg = f"go could not build {_MODULE}: {done.stderr[-2000:]}"
            raise S3Unavailable(msg)
        Path(fresh, "versitygw").replace(folder / "versitygw")


class S3Server(Server):
    """One server with its buckets below `folder`; a context manager stops it at the end.

    Blocking. `folder/s3.log` keeps what the server said. The data outlives `kill`.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self._folder = folder
        self._port = port or 0
        self._running: GuardedProcess | None = None

    @property
    def endpoint(self) -> str:
        """Return the URL; it stays the same over a restart."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Return the server's process id."""
        assert self._running is not None, "not started"
        return self._running.process.pid

    def folder(self, bucket: str) -> Path:
        """Return where the bucket's objects lie, each under its key."""
        return self._folder / "buckets" / bucket

    def options(self, bucket: str, prefix: str = "") -> ObjectOptions:
        """Make the bucket if need be; return how to reach what is below `prefix` in it."""
        self.folder(bucket).mkdir(parents=True, exist_ok=True)
        return ObjectOptions(
            bucket=bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            path_style=True,
            allow_http=True,
        )

    def start(self) -> None:
        """Start, and return once it listens; the buckets of an earlier start are kept.

        Raises:
            S3Unavailable: it cannot be started; the message ends with its last words.
        """
        assert self._running is None, "already started"
        program = binary()
        (self._folder / "buckets").mkdir(parents=True, exist_ok=True)
        first = not self._port
        for _ in range(_TRIES if first else 1):
            self._port = self._port or _free_port()
            self._running = self._launched(program)
            if answers(self._running.process, self._listens, _START_S):
                return
            self.kill()
            self._port = 0 if first else self._port
        log = (self._folder / "s3.log").read_text(errors="replace")
        msg = f"versitygw did not start; its last words: {log[-2000:]}"
        raise S3Unavailable(msg)

    def stop(self) -> None:
        """Stop in order; by SIGKILL if that takes too long. Safe twice."""
        running, self._running = self._running, None
        if running is not None:
            running.stop(_STOP_S)

    def kill(self) -> None:
        """Send SIGKILL; the data stays. Safe twice."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()

    def _launched(self, program: Path) -> GuardedProcess:
        address = f"127.0.0.1:{self._port}"
        return GuardedProcess(
            [program, "--port", address, "--quiet", "posix", self._folder / "buckets"],
            self._folder / "s3.log",
            env={
                **os.environ,
                "ROOT_ACCESS_KEY": ACCESS_KEY,
                "ROOT_SECRET_KEY": SECRET_KEY,
            },
        )

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False


def at_endpoint(options: ObjectOptions, endpoint: str) -> ObjectOptions:
    """Return the same bucket as seen through another address, such as a `FaultFront`'s."""
    return replace(options, endpoint=endpoint)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Run one server in the foreground until Ctrl-C; its data goes when it ends."""
    parser = argparse.ArgumentParser(
        prog="python -m streamproc.testing.s3_server", description=main.__doc__
    )
    parser.add_argument("--port", type=int, default=7070)
    parser.add_argument("--bucket", default="streamproc")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="streamproc-s3-") as temporary:
        try:
            with S3Server(Path(temporary), port=arguments.port) as server:
                server.options(arguments.bucket)
                sys.stdout.write(
                    f"versitygw {VERSION} at {server.endpoint}, bucket "
                    f"{arguments.bucket}, key {ACCESS_KEY!r}, secret {SECRET_KEY!r}; "
                    "Ctrl-C stops it\n"
                )
                sys.stdout.flush()
                with suppress(KeyboardInterrupt):
                    signal.pause()
        except S3Unavailable as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
