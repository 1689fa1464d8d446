"""The container image's layout without a container: see deploy/Dockerfile."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "deploy" / "Dockerfile"
ENTRYPOINT = CHECKOUT / "deploy" / "entrypoint.sh"

_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
SAVED = "[cache] data saved"
LOADED = "[cache] data loaded"


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how often numba wrote to and read from its cache."""

    out: str
    compiled: int
    cached: int

    def json(self) -> Any:
        """Return what was printed, without numba's lines."""
        lines = self.out.splitlines()
        return json.loads("\n".join(line for line in lines if line[:7] != "[cache]"))


class Image:
    """Package and baked kernels below `root/opt`; writable is `root/var` alone."""

    def __init__(self, root: Path) -> None:
        self.opt, self.var = root / "opt", root / "var"
        self.baked = self.opt / "numba-cache"
        self.cache = self.var / "numba"
        self.var.mkdir(parents=True)
        shutil.copytree(
            CHECKOUT / "streamproc",
            self.opt / "lib" / "streamproc",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        program = self.opt / "bin" / "streamproc"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m streamproc "$@"\n')
        program.chmod(0o755)

    def bake(self) -> Ran:
        """Compile into the image, as the Dockerfile does; nothing below opt changes later."""
        words = [str(self.opt / "bin" / "streamproc"), "warmup", "--json"]
        ran = self._run(words, {"NUMBA_CACHE_DIR": str(self.baked)})
        (self.baked / ".image").write_text("one\n")
        return ran

    def run(self, *words: str) -> Ran:
        """Start as a container does: by the entrypoint, `opt` read-only."""
        env = {
            "STREAMPROC_BAKED_CACHE": str(self.baked),
            "NUMBA_CACHE_DIR": str(self.cache),
        }
        sealed = ["unshare", "-m", "sh", "-c", _READ_ONLY, str(self.opt)]
        return self._run([*sealed, str(ENTRYPOINT), *words], env)

    def _run(self, words: Sequence[str], env: dict[str, str]) -> Ran:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        done = subprocess.run(
            words,
            env={
                **clean,
                **cpu(),
                "PATH": f"{self.opt / 'bin'}:{os.environ['PATH']}",
                "PYTHONPATH": str(self.opt / "lib"),
                "PYTHONDONTWRITEBYTECODE": "1",
                "NUMBA_DEBUG_CACHE": "1",
                **env,
            },
            cwd=self.var,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-500:]
        return Ran(done.stdout, done.stdout.count(SAVED), done.stdout.count(LOADED))


def cpu() -> dict[str, str]:
    """Return the processor the Dockerfile compiles for, as it sets it."""
    text = DOCKERFILE.read_text()
    found = re.search(r"^ARG CPU=(\S+)$", text, re.MULTILINE)
    assert found is not None
    assert "NUMBA_CPU_NAME=${CPU} NUMBA_CPU_FEATURES= " in text
    name = found[1] if os.uname().machine == "x86_64" else "generic"
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}


def can_seal() -> bool:
    """Tell whether a folder can be mounted read-only here, which takes root."""
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None:
        return False
    tried = subprocess.run([unshare, "-m", "true"], capture_output=True, check=False)
    return tried.returncode == 0
