"""deploy/Dockerfile built for real, and run as an orchestrator would: sealed and as nobody.

No registry is asked: the base is a Debian made by debootstrap. pip inside the build gets the
settings of this environment's pip as secrets, which no layer keeps.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx
import pytest

from streamproc.testing.guarded_process import answers
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.image import CHECKOUT, DOCKERFILE, LOADED, SAVED
from tests.support.kafka import fresh

pytestmark = pytest.mark.long

TOOLS: Final = ("buildah", "debootstrap", "podman", "runc")
USER: Final = 10001
TOWNS: Final = CHECKOUT / "deploy" / "config" / "towns.toml"
TOWNS_COUNT: Final = 7
FOLDED_S: Final = 60.0
CONFIG: Final = "/etc/streamproc/streamproc.toml"


def output_of(*words: object) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"{words[0]}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    )
    return done.stdout


def podman_words(*words: object) -> list[str]:
    runtime = shutil.which("runc")
    given = ("--cgroup-manager=cgroupfs", "--runtime", runtime, *words)
    return ["podman", *map(str, given)]


def podman(*words: object) -> str:
    return output_of(*podman_words(*words))


LIMITS: Final = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
SEALED: Final = ("--read-only", "--cap-drop", "all", *LIMITS)
"""May write to its volumes alone, and has no right."""


def run(image: str, *words: object, options: tuple[object, ...] = ()) -> str:
    """Run a sealed container without a network."""
    return podman("run", "--rm", *SEALED, "--network", "none", *options, image, *words)


def pip_secrets(folder: Path) -> list[str]:
    """Return build options that hand over pip's settings and the authorities it trusts."""
    found = {}
    for line in output_of("python3", "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2]] = literal_eval(value)
    secrets = []
    if "cert" in found:
        secrets += ["--secret", f"id=ca.pem,src={found['cert']}"]
        found["cert"] = "/run/secrets/ca.pem"
    found.pop("find-links", None)  # a folder of this machine
    settings = folder / "pip.conf"
    lines = [f"{name} = {value}\n" for name, value in found.items()]
    settings.write_text("[global]\n" + "".join(lines))
    return ["--secret", f"id=pip.conf,src={settings}", *secrets]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Debian with Python, as the Dockerfile asks of its BASE."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and {', '.join(missing or TOOLS)}")
    folder = tmp_path_factory.mktemp("base")
    system, name = folder / "debian", f"localhost/{fresh('streamproc-base')}:test"
    wanted = "--include=python3,python3-venv,ca-certificates"
    output_of("debootstrap", "--variant=minbase", wanted, "bookworm", system)
    output_of("tar", "-C", system, "-cf", folder / "debian.tar", ".")
    shutil.rmtree(system)
    podman("import", folder / "debian.tar", name)
    yield name
    podman("rmi", name)


@pytest.fixture(scope="module")
def image(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name = f"localhost/{fresh('streamproc')}:test"
    build = ["buildah", "bud", "--isolation", "chroot", "--format", "docker"]
    build += ["--build-arg", f"BASE={base}", "-t", name]
    build += ["-f", str(DOCKERFILE), "--ignorefile", f"{DOCKERFILE}.dockerignore"]
    output_of(*build, *pip_secrets(tmp_path_factory.mktemp("pip")), CHECKOUT)
    yield name
    podman("rmi", name)


def test_it_starts_as_nobody_and_keeps_nothing_of_its_build(image: str) -> None:
    (about,) = json.loads(podman("image", "inspect", image))
    looked = "id -u; ls /etc/pip.conf /run/secrets /opt/build /src /wheel 2>/dev/null"
    shell = ("--entrypoint", "sh")

    assert about["Config"]["User"] == f"{USER}:{USER}"
    assert "/healthz" in json.dumps(about["Healthcheck"])
    assert "Commands" in run(image, "--help")
    assert run(image, "-c", f"{looked}; true", options=shell).split() == [str(USER)]


def test_a_sealed_container_checks_a_configuration(image: str) -> None:
    mounted = ("-v", f"{TOWNS}:{CONFIG}:ro")

    assert "telemetry.razlog" in run(image, "check", CONFIG, options=mounted)


def test_a_sealed_container_replays_into_a_volume_and_compiles_nothing(
    image: str, tmp_path: Path
) -> None:
    data, sent = tmp_path / "data", tmp_path / "sent"
    for folder in (data, sent):
        folder.mkdir()
        os.chown(folder, USER, USER)
    traffic = ["--duration", "3h", "--rate", "0.5", "--seed", "7"]
    traffic += ["--start", "2026-03-01T21:00:00Z", "--output", "/sent/day.ndjson"]
    run(image, "simulate", *traffic, options=("-v", f"{sent}:/sent"))
    mounts = ("-v", f"{TOWNS}:{CONFIG}:ro", "-v", f"{sent}:/sent:ro")
    more = ("-v", f"{data}:/data", "-e", "NUMBA_DEBUG_CACHE=1")

    words = ("replay", CONFIG, "/sent/day.ndjson", "--output", "/data", "--json")
    ran = run(image, *words, options=(*mounts, *more))

    assert (ran.count(SAVED), ran.count(LOADED) > 15) == (0, True)
    said = "\n".join(line for line in ran.splitlines() if line[:7] != "[cache]")
    assert json.loads(said)["readings"] > 5_000
    files = list(data.rglob("*.parquet"))
    assert len(files) > 20
    assert {path.stat().st_uid for path in files} == {USER}


def test_warming_a_sealed_container_compiles_nothing(image: str) -> None:
    warmed = json.loads(run(image, "warmup", "--json"))

    assert warmed["compiled"] == 0
    assert warmed["cached"] > 30


def test_a_sealed_service_is_healthy_and_ends_in_order_when_told_to(
    image: str, kafka: ApacheKafka, tmp_path: Path
) -> None:
    name, port, topics = fresh("service"), free_port(), fresh("image") + ".{city}"
    settings = {
        "SOURCE__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SOURCE__TOPICS": topics,
        "OUTPUT__ROOT": "/data",
        "METRICS__PORT": port,
    }
    os.chown(tmp_path, USER, USER)
    options: list[object] = ["-v", f"{TOWNS}:{CONFIG}:ro", "-v", f"{tmp_path}:/data"]
    for key, value in settings.items():
        options += ["-e", f"STREAMPROC_{key}={value}"]
    # On the host's network, as the test broker listens on loopback only.
    options += ["--network", "host", "--name", name, "--detach"]
    traffic = ("--duration", "10m", "--rate", 5, "--start", "2026-03-01T21:00:00Z")
    send = ("simulate", "--topics", topics, *traffic)
    servers = ("--bootstrap-servers", kafka.bootstrap_servers)
    output_of(sys.executable, "-m", "streamproc", *send, *servers)

    podman("run", *SEALED, *options, image, "run", CONFIG)
    try:
        wait_until_folded(name, port)
        podman("healthcheck", "run", name)
        podman("stop", "--time", 60, name)
        (ended,) = json.loads(podman("container", "inspect", name))
        said = podman("logs", name)
    finally:
        podman("rm", "--force", name)

    assert ended["State"]["ExitCode"] == 0, said
    cities = {path.name for path in (tmp_path / "readings").iterdir()}
    assert cities >= {"city=razlog", "city=ange"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_until_folded(name: str, port: int) -> None:
    """Return once the container's service has folded records of every town."""

    def all_folded() -> bool:
        with suppress(httpx.HTTPError):
            page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            counts = re.findall(
                r"^streamproc_records_total\{.*\} (\S+)$", page, re.MULTILINE
            )
            return sum(float(count) > 0 for count in counts) == TOWNS_COUNT
        return False

    # Ends when the container does, so nobody waits for one that is gone.
    wait = podman_words("wait", name)
    with subprocess.Popen(wait, stdout=subprocess.DEVNULL) as ending:
        folded = answers(ending, all_folded, FOLDED_S)
        ending.kill()
    assert folded, podman("logs", name)
