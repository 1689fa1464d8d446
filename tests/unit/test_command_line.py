"""The command line imports what a command needs, and no more."""

import subprocess
import sys

import pytest

from streamproc.cli.main import COMMANDS, make_app, run

FILES_ONLY = ("polars", "duckdb", "pyarrow.dataset", "streamproc.analytics")
SHOW_IMPORTED = """
import sys
from streamproc.cli.main import make_app
make_app(["run"])
print(*sys.modules)
"""


def test_the_service_does_not_load_what_only_files_and_analysts_need() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_IMPORTED],
        capture_output=True,
        check=True,
        text=True,
    )

    imported = set(shown.stdout.split())
    assert "streamproc.cli.run_service" in imported
    assert not imported.intersection(FILES_ONLY)


def test_the_whole_command_line_has_every_command() -> None:
    app = make_app()

    names = [command.name for command in app.registered_commands]
    names += [group.name for group in app.registered_groups]
    assert sorted(str(name) for name in names) == sorted(COMMANDS)


def test_a_mistyped_command_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = run(["chek"])

    assert code == 2
    assert "check" in capsys.readouterr().err
