"""Charts: every value is there, and in proportion."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench.budget import START
from bench.chart import charts, main
from bench.svg import bars, marks, stacked

SVG = "{http://www.w3.org/2000/svg}"
MACHINE = {"date": "2026-11-26", "commit": "abc1234", "cores": 2}


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in parsed(chart).iter(f"{SVG}text")]


def widths(chart: str) -> list[float]:
    """Return how wide each rectangle is, but for the background."""
    rects = list(parsed(chart).iter(f"{SVG}rect"))[1:]
    return [float(rect.attrib["width"]) for rect in rects]


def parsed(chart: str) -> ET.Element:
    return ET.fromstring(chart)  # noqa: S314  (our own text)


def test_a_bar_a_value_and_the_longest_first() -> None:
    values = [("slow <one>", 2_100.0), ("Fast & co", 3_000_000.0)]
    chart = bars("records & more", values, {"Fast & co"})
    assert {"Fast & co", "slow <one>", "3,000,000", "2,100"} <= set(texts(chart))
    assert {"1,000", "1,000,000", "10,000,000"} <= set(texts(chart))
    fast, slow = widths(chart)
    assert fast > slow > 0


def test_parts_are_as_wide_as_their_share_and_small_ones_are_the_rest() -> None:
    rows = {"one": {"a": 60.0, "b": 30.0, "c": 6.0, "d": 4.0}, "two": {"a": 50.0}}
    chart = stacked("budget", rows, "others", parts_max=2)
    a, b, rest, a_of_two, *_ = widths(chart)
    assert a / b == pytest.approx(2, rel=0.01)
    assert rest / a == pytest.approx(1 / 6, rel=0.01)
    assert a_of_two / a == pytest.approx(5 / 6, rel=0.01)
    assert {"one", "two", "a", "b", "others", "100", "50"} <= set(texts(chart))
    assert "c" not in texts(chart)


def test_marks_are_in_the_order_of_their_values() -> None:
    chart = marks("latency", {"1,000/s": {"p50": 3.0, "p99": 90.0, "max": 1_000.0}})
    places = [float(c.attrib["cx"]) for c in parsed(chart).iter(f"{SVG}circle")]
    assert places == sorted(places)
    assert {"p50 3 · p99 90 · max 1,000", "1,000/s"} <= set(texts(chart))


def results(folder: Path) -> None:
    def write(name: str, document: dict[str, Any]) -> None:
        text = json.dumps({"machine": MACHINE, **document})
        (folder / f"{name}.json").write_text(text)

    runs = [{"cpu_s": cpu_s} for cpu_s in (1.0, 2.0, 4.0)]
    line = {"title": "streamproc", "work": {"records": 1_000}, "runs": runs}
    gone = {"title": "Gone", "work": {"records": 1_000}, "runs": []}
    write("peers", {"jobs": {"city": [line, gone], "uc2": [gone]}})
    order = {"profile": "core", "format": "json", "interval": 6.0, "devices": 10_000}
    budget = {"decode": 120.0, START: 400.0}
    write("endtoend-a", {"order": order, "stages_ns_per_reading": budget})
    write("endtoend-b", {"order": order, "stages_ns_per_reading": {}})
    late = {"rate": 1e3, "missing": 2, "latency_ms": {"p50": 5.0, "p99": None}}
    write("latency-core", {"runs": [late]})


def test_a_folder_of_results_becomes_a_folder_of_charts(tmp_path: Path) -> None:
    results(tmp_path)
    made = charts(tmp_path)
    assert set(made) == {"peers-city", "stages", "latency-core"}
    assert "500" in texts(made["peers-city"])
    assert "Gone" not in texts(made["peers-city"])
    assert {"decode", "core, json, 6 s", "120"} <= set(texts(made["stages"]))
    assert "400" not in texts(made["stages"])
    assert {"1,000/s (2 missing)", "p50 5"} <= set(texts(made["latency-core"]))
    assert all("abc1234" in texts(chart)[0] for chart in made.values())
    folder = tmp_path / "charts"
    assert main(["--results", str(tmp_path), "--folder", str(folder)]) == 0
    assert {path.stem for path in folder.iterdir()} == set(made)


def test_without_results_there_is_nothing_to_draw(tmp_path: Path) -> None:
    given = ["--results", str(tmp_path), "--folder", str(tmp_path / "charts")]
    assert main(given) == 1
