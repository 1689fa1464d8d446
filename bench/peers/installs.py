"""Each peer's environment, made once: a virtual environment, or jars and compiled classes.

They lie below `.cache/peers/` (or `$STREAMPROC_CACHE/peers`), named after their pins, so
that another pin makes another one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.pins import MAVEN, PYPI

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
CACHE = Path(os.environ.get("STREAMPROC_CACHE", CHECKOUT / ".cache")) / "peers"


class CannotInstallError(Exception):
    """A peer is not to be had here; the message is the reason."""


def python_of(name: str) -> Path:
    """Return the interpreter of a peer's virtual environment, made if need be."""
    return _environment(_folder(name, *PYPI[name], sys.version), PYPI[name])


def own_python() -> Path:
    """Return one of an environment as streamproc's users have it, without what we develop with.

    pyarrow and numba import pandas and coverage where they find them, which takes a while.
    """
    lock = CHECKOUT / "requirements-run.txt"
    folder = _folder("streamproc", lock.read_text(), sys.version)
    return _environment(folder, ["--no-deps", "--require-hashes", "-r", str(lock)])


def _environment(folder: Path, wanted: Sequence[str]) -> Path:
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        _run([*pip, *wanted])
        (folder / "complete").touch()
    return python


def classpath_of(name: str) -> str:
    """Return the class path of a peer's programs, fetched and compiled if need be."""
    pins = [f"-D{key}={value}" for key, value in MAVEN[name].items()]
    folder = _folder(name, *pins)
    libs = folder / "libs"
    if not (folder / "complete").exists():
        _run(
            [
                *(_tool("mvn"), "-q", "-B", "-f", str(HERE / name / "pom.xml"), *pins),
                *("dependency:copy-dependencies", f"-DoutputDirectory={libs}"),
            ]
        )
        (folder / "complete").touch()
    sources = sorted([*(HERE / name).glob("*.java"), *(HERE / "java").glob("*.java")])
    classes = folder / _digest(*(source.read_text() for source in sources))
    if not classes.exists():
        half = folder / "half"
        shutil.rmtree(half, ignore_errors=True)
        compiler = [_tool("javac"), "-d", str(half), "-cp", f"{libs}/*"]
        _run([*compiler, *map(str, sources)])
        half.rename(classes)
    return f"{classes}:{libs}/*"


def java() -> str:
    return _tool("java")


def _folder(name: str, *parts: str) -> Path:
    return CACHE / f"{name}-{_digest(*parts)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        msg = f"{name} is not installed"
        raise CannotInstallError(msg)
    return found


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(  # noqa: S603  (fixed commands and our own pins)
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        last = said[-1] if said else f"exit code {done.returncode}"
        msg = f"{Path(command[0]).name} failed: {last[:300]}"
        raise CannotInstallError(msg)
