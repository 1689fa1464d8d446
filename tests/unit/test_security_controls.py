"""SECURITY.md's table of controls, kept true: versions, locks, secrets, and the tests it names."""

import ast
import base64
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from google.protobuf.internal import api_implementation
from packaging.version import Version

from streamproc.testing import kafka_broker

CHECKOUT = Path(__file__).parents[2]
CITED = re.compile(r"`((?:tests|streamproc)/[\w/]+\.py)::(\w+)`")
OTHERS = ("**operator**", "**platform**")

FIXED = {
    "orjson": "3.11.6",  # CVE-2024-27454, CVE-2025-67221; ours has none, should it come back
    "protobuf": "6.33.5",  # CVE-2025-4565, CVE-2026-0994
    "pyarrow": "14.0.1",  # CVE-2023-47248
}
KAFKA_FIXED = "4.4.0"  # CVE-2026-111073, CVE-2026-111115


def rows() -> dict[int, str]:
    """Return the table's rows by number of the control."""
    text = (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\d+) \|(.*)\|$", text, re.MULTILINE)
    return {int(number): row for number, row in found}


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of a file's tests, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node.name for node in ast.walk(tree) if isinstance(node, kinds))
    return frozenset(name for name in found if name.startswith("test_"))


def test_every_control_has_a_test_or_somebody_who_must_provide_it() -> None:
    table = rows()

    assert sorted(table) == list(range(1, 26))
    for number, row in table.items():
        assert CITED.search(row) or any(who in row for who in OTHERS), number


def test_every_test_that_the_table_names_exists() -> None:
    cited = CITED.findall("\n".join(rows().values()))

    assert len(cited) > 40
    missing = [
        f"{file}::{name}"
        for file, name in cited
        if not (CHECKOUT / file).is_file() or name not in names_in(CHECKOUT / file)
    ]
    assert not missing


# --- control 4 and 7: parsers and brokers without known holes ---------------------------


def locked(name: str) -> dict[str, Version]:
    """Return the versions that a lock file pins, by package."""
    text = (CHECKOUT / name).read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE)
    return {package: Version(pinned) for package, pinned in pins}


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-run.txt"])
@pytest.mark.parametrize("package", sorted(FIXED))
def test_no_lock_has_a_parser_older_than_its_fixes(lock: str, package: str) -> None:
    pinned = locked(lock).get(package)

    assert pinned is None or pinned >= Version(FIXED[package])


@pytest.mark.parametrize("package", ["protobuf", "pyarrow"])
def test_what_is_installed_is_no_older_than_its_fixes(package: str) -> None:
    assert Version(version(package)) >= Version(FIXED[package])


def test_protobuf_is_the_compiled_one() -> None:
    """The one in Python has a recursion limit of its own, and is slow enough to be a weapon."""
    assert api_implementation.Type() == "upb"


def test_the_brokers_we_start_and_ship_are_no_older_than_their_fixes() -> None:
    compose = (CHECKOUT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    shipped = re.findall(r"image: apache/kafka:([\d.]+)", compose)

    assert shipped
    for found in (*shipped, kafka_broker.VERSION):
        assert Version(found) >= Version(KAFKA_FIXED)


# --- control 22: the container and the unit ----------------------------------------------


def test_container_and_unit_may_do_next_to_nothing() -> None:
    compose = (CHECKOUT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    ours = compose.split("  streamproc:\n")[1].split("\n\n")[0]
    for line in ("read_only: true", "cap_drop: [ALL]", "mem_limit: 2g",
                 'security_opt: ["no-new-privileges:true"]',
                 'ports: ["127.0.0.1:9464:9464"]'):  # fmt: skip
        assert f"    {line}\n" in ours, line
    assert not re.search(r"privileged|cap_add|docker\.sock|network_mode|pid:", ours)

    dockerfile = (CHECKOUT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    assert "\nUSER ${UID}:${UID}\n" in dockerfile
    assert not re.search(
        r"^ADD |curl|wget|--trusted-host|chmod 777", dockerfile, re.MULTILINE
    )

    unit = (CHECKOUT / "deploy" / "streamproc.service").read_text(encoding="utf-8")
    for line in ("User=streamproc", "NoNewPrivileges=yes", "CapabilityBoundingSet=",
                 "ProtectSystem=strict", "PrivateTmp=yes", "MemoryMax=2G",
                 "SystemCallFilter=@system-service"):  # fmt: skip
        assert f"\n{line}\n" in unit, line


# --- control 23: what is installed is what was locked -----------------------------------


@pytest.mark.parametrize(
    "lock", ["requirements.txt", "requirements-run.txt", "requirements-build.txt"]
)
def test_every_line_of_a_lock_has_its_hashes(lock: str) -> None:
    text = (CHECKOUT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]

    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[^ ;]+.* --hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize("tampered", [False, True])
def test_a_tampered_wheel_is_refused(tmp_path: Path, tampered: bool) -> None:
    wheel = tmp_path / "parcel-1.0-py3-none-any.whl"
    _pack(wheel, "SAFE = True\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if tampered:
        _pack(wheel, "SAFE = False\n")
    (tmp_path / "lock.txt").write_text(f"parcel==1.0 --hash=sha256:{digest}\n")

    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--disable-pip-version-check",
         "--no-index", "--find-links", tmp_path, "--no-deps", "--require-hashes",
         "--target", tmp_path / "there", "-r", tmp_path / "lock.txt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (tmp_path / "there" / "parcel.py").exists() == (not tampered)
    assert (done.returncode != 0) == tampered
    assert ("DO NOT MATCH THE HASHES" in done.stderr) == tampered


def _pack(wheel: Path, text: str) -> None:
    files = {
        "parcel.py": text,
        "parcel-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n",
        "parcel-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    lines = [
        f"{name},{_digest(content)},{len(content)}" for name, content in files.items()
    ]
    record = "parcel-1.0.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(record, "\n".join([*lines, f"{record},,"]) + "\n")


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


# --- control 16: secrets ----------------------------------------------------------------

SECRETS = {
    "STREAMPROC_SOURCE__PASSWORD": "sekrit-one",
    "STREAMPROC_SOURCE__KEY_PASSWORD": "sekrit-two",
    "STREAMPROC_REGISTRY__PASSWORD": "sekrit-three",
}
HOOK_KEY = "whsec_" + base64.b64encode(b"sekrit-four-sekrit-four-sekrit").decode()
WITH_SECRETS = """
[source]
bootstrap_servers = "localhost:1"
protocol = "sasl_ssl"
username = "streamproc"

[registry]
url = "http://localhost:1"
username = "streamproc"

[[webhooks]]
url = "https://hooks.example.org/x"
secret_files = ["hook.key"]

[cities.razlog]
timezone = "Europe/Sofia"

[[windows]]
name = "1h"
every = "1h"
"""


@pytest.mark.parametrize(
    "command",
    [
        ("check", "town.toml"),
        ("check", "town.toml", "--json"),
        ("check", "town.toml", "--connect"),
        ("run", "town.toml", "--until-end"),
    ],
    ids=["check", "json", "connect", "run"],
)
def test_no_command_shows_a_secret(tmp_path: Path, command: tuple[str, ...]) -> None:
    text = WITH_SECRETS + '\n[log]\nlevel = "debug"\n\n[metrics]\nenabled = false\n'
    (tmp_path / "town.toml").write_text(text, encoding="utf-8")
    (tmp_path / "hook.key").write_text(HOOK_KEY, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "streamproc", *command],
        cwd=tmp_path,
        env={**os.environ, **SECRETS, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )

    said = done.stdout + done.stderr
    assert done.returncode in (0, 1), said
    assert said
    assert "Traceback" not in said
    for secret in (*SECRETS.values(), HOOK_KEY, HOOK_KEY.removeprefix("whsec_")):
        assert secret not in said
    if "--json" in command:
        assert json.loads(done.stdout)
