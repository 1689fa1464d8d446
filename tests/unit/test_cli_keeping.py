"""`compact`, `retain`, `dead-letters replay` and `inspect --files` as an operator types them."""

import json
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli.main import run
from tests.support.compaction import READINGS, filled, visible_paths
from tests.support.configs import LEAST

OLD = '\n[job]\nname = "region"\n[retain]\nreadings = "400d"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    filled(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "town.toml"
    path.write_text(LEAST + OLD)
    return path


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_root_is_compacted_without_a_configuration(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compact", str(root), "--json"]) == 0

    outcomes = told(capsys)
    assert {o["what"] for o in outcomes} == {"compacted"}
    assert [o["rows"] for o in outcomes if o["folder"] == READINGS.folder] == [16]
    assert len(visible_paths(root)) == 5
    assert run(["compact", str(root)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_a_configuration_names_root_job_and_age(
    root: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["compact", str(config), "--output", str(root), "--json"]

    assert run([*given, "--closed-after", "3000d"]) == 0
    assert told(capsys) == []
    assert run([*given, "--dataset", "late", "--city", "razlog"]) == 0
    assert [o["folder"].split("/")[0] for o in told(capsys)] == ["late"]
    config.write_text(LEAST + OLD.replace("region", "another"))
    assert run(given) == 0
    assert {o["what"] for o in told(capsys)} == {"finished"}


def test_a_damaged_input_is_named_and_exit_1(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = min((root / READINGS.folder).glob("*.parquet"))
    path.write_bytes(b"PAR1")

    assert run(["compact", str(root)]) == 1

    shown = capsys.readouterr()
    assert path.name in shown.err.replace("\n", "")
    assert "1 failed" in shown.out


def test_old_dates_go_after_a_look_at_what_would(
    root: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["retain", str(config), "--output", str(root), "--json"]

    assert run([*given, "--dry-run"]) == 0
    assert [o["what"] for o in told(capsys)] == ["due"]
    assert (root / READINGS.folder).is_dir()
    assert run(given) == 0
    assert [(o["what"], o["files"]) for o in told(capsys)] == [("deleted", 8)]
    assert not (root / READINGS.folder).exists()
    config.write_text(LEAST)
    assert run(given) == 0
    assert "every date is kept" in capsys.readouterr().err


def test_inspect_shows_the_files_of_each_date(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["compact", str(root), "--dataset", "readings"])
    capsys.readouterr()

    assert run(["inspect", str(root), "--files", "--verify", "--json"]) == 0

    found = told(capsys)
    dates = {d["dataset"]: d for d in found["files"]}
    assert (dates["readings"]["files"], dates["readings"]["compacted"]) == (1, 1)
    assert (dates["late"]["files"], dates["late"]["compacted"]) == (8, 0)
    assert dates["readings"]["rows"] == 16
    assert found["verification"]["compacted"] == 1
    assert found["summary"]["dead_letters"]["remaining"] == 8
    assert run(["inspect", str(root), "--files"]) == 0
    assert "Files by date" in capsys.readouterr().out


def test_dead_letters_that_nothing_helps_are_named_one_by_one(
    root: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["dead-letters", "replay", str(config), "--output", str(root)]

    assert run([*given, "--since", "2023-11-16", "--json"]) == 0
    assert told(capsys)["chosen"] == 0
    assert run(given) == 0
    shown = capsys.readouterr().out
    assert "8 records chosen, 0 put back, 8 stay" in shown
    assert "malformed" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["compact", "absent"],
        ["compact", ".", "--date", "yesterday"],
        ["compact", ".", "--closed-after", "soon"],
        ["retain", "absent.toml"],
        ["dead-letters", "replay", "absent.toml"],
    ],
)
def test_wrong_usage_is_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.strip()
