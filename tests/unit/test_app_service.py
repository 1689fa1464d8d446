"""The service, put together: what an operator is told before it starts."""

from pathlib import Path

import aiokafka
import pytest

from streamproc.app.service import open_service
from streamproc.config import load as load_settings
from streamproc.runtime.observer import Totals

CONFIG = """
job.name = "told"
source = {{ bootstrap_servers = "localhost:9", topics = "telemetry.{{city}}" }}
output.root = "{root}"
cities.razlog.timezone = "Europe/Sofia"
windows = [{{ name = "1m", every = "1m" }}]
"""


async def told(folder: Path) -> list[str]:
    path = folder / "told.toml"
    path.write_text(CONFIG.format(root=folder / "data"))
    totals = Totals()
    async with open_service(load_settings(path, {}), observers=(totals,)):
        return totals.errors


async def test_an_aiokafka_nobody_knows_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiokafka, "__version__", "0.99.0")

    (error,) = await told(tmp_path)

    assert error.startswith("reading: slow_path: aiokafka 0.99.0: only 0.13 and 0.14")


async def test_a_known_aiokafka_is_nothing_to_report(tmp_path: Path) -> None:
    assert await told(tmp_path) == []
