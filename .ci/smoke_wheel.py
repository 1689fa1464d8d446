"""Install the built wheel where the checkout cannot be seen, and run it.

Usage: smoke_wheel.py WHEEL_FOLDER VENV_FOLDER
The new environment borrows the libraries of the one that runs this file by a path entry,
so that nothing is downloaded twice; an editable install is not visible through it.
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

CHECK = """
import pathlib, sys
import streamproc
from streamproc.config import config_schema
place = pathlib.Path(streamproc.__file__).resolve()
assert pathlib.Path(sys.prefix).resolve() in place.parents, place
assert config_schema()["properties"], "the configuration has no schema"
print("wheel", streamproc.__version__, "works")
"""


def main(wheels: Path, folder: Path) -> int:
    """Return the exit code of the smoke test."""
    (wheel,) = wheels.glob("*.whl")
    venv.create(folder, with_pip=True, clear=True)
    python = folder.resolve() / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel.resolve()], check=True)
    with tempfile.TemporaryDirectory() as elsewhere:
        subprocess.run([python, "-I", "-c", CHECK], check=True, cwd=elsewhere)
        streamproc = folder.resolve() / "bin" / "streamproc"
        subprocess.run(
            [streamproc, "--help"], check=True, cwd=elsewhere, stdout=subprocess.DEVNULL
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
