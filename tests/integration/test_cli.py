"""The command line as a user meets it: real processes of the installed command."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

CONFIG = """
[job]
name = "cli"

[source]
topics = "telemetry.{city}"

[cities.fundao]
timezone = "Europe/Lisbon"
[cities.ange]
timezone = "Europe/Stockholm"
[cities.dodoni]
timezone = "Europe/Athens"

[[windows]]
name = "1m"
every = "1m"
quantiles = [0.5]

[[rules]]
name = "warm"
property = "temperature"
when = "value > 15"
clear = "value < 14"
"""


def streamproc(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "streamproc", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, simulated envelopes, their ledger, and a replayed root."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "town.toml").write_text(CONFIG, encoding="utf-8")
    sent = streamproc(
        *("simulate", "--cities", 3, "--devices", 30, "--rate", 40, "--duration", "5m"),
        *("--seed", 5, "--bad", 0.01, "--output", "day.ndjson.zst"),
        *("--ledger", "day.parquet"),
        cwd=folder,
    )
    assert sent.returncode == 0, sent.stderr
    replayed = streamproc("replay", "town.toml", "day.ndjson.zst", "--json", cwd=folder)
    assert replayed.returncode == 0, replayed.stderr
    (folder / "first.json").write_text(replayed.stdout, encoding="utf-8")
    return folder


def test_what_was_simulated_is_there_exactly_once(day: Path) -> None:
    ledger = pl.read_parquet(day / "day.parquet")
    sound = ledger.filter(~pl.col("bad"))
    summary = json.loads((day / "first.json").read_text())
    readings = pl.read_parquet(day / "data/readings/**/*.parquet")

    assert summary["readings"] == sound.height
    key = ["source", "offset", "ordinal"]
    both = sound.with_columns(pl.col("source").cast(str)).join(
        readings.with_columns(pl.col("source").cast(str)), on=key
    )
    assert both.height == sound.height == readings.height
    assert both["value"].equals(both["value_right"], check_names=False)
    refused = ledger.filter(pl.col("bad")).select("source", "offset").unique().height
    assert summary["quarantined"] == refused > 0


def test_a_second_replay_adds_nothing(day: Path) -> None:
    again = streamproc("replay", "town.toml", "day.ndjson.zst", "--json", cwd=day)

    assert again.returncode == 0, again.stderr
    summary = json.loads(again.stdout)
    assert (summary["records"], summary["files"]) == (0, 0)


def test_inspect_proves_a_root_and_finds_what_was_changed(day: Path) -> None:
    proof = streamproc("inspect", "data", "--verify", "--json", cwd=day)
    assert proof.returncode == 0, proof.stderr
    assert json.loads(proof.stdout)["verification"]["findings"] == []

    victim = next((day / "data/readings").rglob("*.parquet"))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-20] + bytes(20))
    try:
        fault = streamproc("inspect", "data", "--verify", cwd=day)
    finally:
        victim.write_bytes(whole)

    assert fault.returncode == 3
    assert victim.name in fault.stderr


def test_dead_letters_are_listed_and_shown(day: Path) -> None:
    listed = streamproc("dead-letters", "list", "data", "--json", cwd=day)
    shown = streamproc(
        "dead-letters", "show", "data", "--reason", "empty", "--json", cwd=day
    )

    assert listed.returncode == shown.returncode == 0, listed.stderr + shown.stderr
    assert {"empty", "malformed"} <= {
        group["reason"] for group in json.loads(listed.stdout)
    }
    assert all(letter["reason"] == "empty" for letter in json.loads(shown.stdout))


def test_check_explains_a_configuration(day: Path) -> None:
    found = streamproc("check", "town.toml", "--json", cwd=day)

    assert found.returncode == 0, found.stderr
    shown = json.loads(found.stdout)
    described = shown["configuration"]
    assert [window["window"] for window in described["windows"]] == ["1m"]
    assert described["recovery"]["refold_readings_at_most"] == 10_000_000
    assert described["recovery"]["load_seconds"] > 0
    assert len(shown["restart"]) == 3
    assert all(log["snapshot_bytes"] > 0 for log in shown["restart"])
    assert all(0 < log["seconds"] < 10 for log in shown["restart"])


def test_check_measures_what_windows_and_quantiles_cost(day: Path) -> None:
    found = streamproc("check", "town.toml", "--measure", "--json", cwd=day)

    assert found.returncode == 0, found.stderr
    costs = json.loads(found.stdout)["costs"]
    assert [cost["quantiles"] for cost in costs] == [False, True]
    assert all(cost["windows"] == ["1m"] for cost in costs)
    assert all(cost["ns_per_reading"] > 0 for cost in costs)
    plain, full = (cost["bytes_per_series"] for cost in costs)
    assert 100 < plain < full


def test_a_wrong_configuration_is_exit_2_with_every_fault(day: Path) -> None:
    (day / "wrong.toml").write_text(
        CONFIG.replace('every = "1m"', 'evry = "1m"').replace("value > 15", "valu > 15")
    )

    found = streamproc("run", "wrong.toml", cwd=day)

    assert found.returncode == 2
    assert "windows[0].evry" in found.stderr
    assert "did you mean" in found.stderr
    assert "Traceback" not in found.stderr


def test_an_unreachable_broker_is_exit_1_and_no_traceback(day: Path) -> None:
    config = CONFIG.replace("[source]", '[source]\nbootstrap_servers = "127.0.0.1:9"')
    (day / "nobody.toml").write_text(config + "\n[metrics]\nenabled = false\n")

    found = streamproc("run", "nobody.toml", "--until-end", cwd=day)

    assert found.returncode == 1
    assert "127.0.0.1:9" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "absent.toml"),
        ("replay", "town.toml", "absent.csv"),
        ("inspect", "absent"),
        ("simulate",),
        ("simulate", "--output", "x.ndjson", "--duration", "5"),
        ("simulate", "--output", "x.ndjson", "--format", "avro"),
        ("schema", "table", "nothing"),
        ("run", "town.toml", "--close"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_2_and_no_traceback(
    day: Path, arguments: tuple[str, ...]
) -> None:
    found = streamproc(*arguments, cwd=day)

    assert found.returncode == 2, found.stderr
    assert found.stderr.strip()
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "run", "check", "simulate", "replay", "inspect", "warmup"),
        *("compact", "retain"),
    ],
)
def test_every_command_has_help_with_an_example(day: Path, command: str) -> None:
    found = streamproc(command, "--help", cwd=day)

    assert found.returncode == 0
    assert f"streamproc {command}" in " ".join(found.stdout.split())
    assert "Example" in found.stdout


def test_schemas_are_printed_as_they_are_committed(day: Path) -> None:
    schemas = Path(__file__).parents[2] / "schemas"

    config = streamproc("schema", "config", cwd=day)
    table = streamproc("schema", "table", "readings", cwd=day)
    wire = streamproc("schema", "wire", "avro", cwd=day)

    assert config.stdout == (schemas / "config.schema.json").read_text()
    assert table.stdout == (schemas / "readings.arrow.txt").read_text()
    assert wire.stdout == (schemas / "reading.avsc").read_text()
