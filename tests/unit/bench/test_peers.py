"""The parts of `bench.peers` that need no peer: what is right, what is shown, what is sent."""

import io
import json
import re
import tomllib
from pathlib import Path

import fastavro
import numpy as np
import pytest

import bench.peers
from bench.peers import contract
from bench.peers.contract import FRAME_BYTES, PARTITIONS, UC2_SCHEMA
from bench.peers.own import Profile, config
from bench.peers.pins import MAVEN, PYPI
from bench.peers.reference import expected, verdict
from bench.peers.report import HEAD, Line, Measured, against, markdown, table
from bench.peers.systems import PEERS, java_lines, python_lines
from bench.peers.workload import Columns, Workload, columns, records

HERE = Path(next(iter(bench.peers.__path__)))
MINUTE = 60_000


def made(*rows: tuple[int, int, float]) -> Columns:
    """Return columns of (series, time in ms, value)."""
    series, times, values = zip(*rows, strict=True)
    return Columns(np.array(series), np.array(times), np.array(values, float))


HAND_MADE = made(
    (0, 1_000, 10.0),
    (0, 2_000, 20.0),
    (4, 3_000, 90.0),  # the same partition, another series
    (1, 4_000, 5.0),  # another partition, whose time stands still
    (0, MINUTE + 9_999, 1.0),  # the first minute waits ten seconds more
    (0, 59_999, 30.0),  # and so this is not late
    (0, MINUTE + 10_000, 2.0),
    (0, 59_998, 99.0),  # now it is
    (1, 5_000, 7.0),  # but not in the other partition
)


def test_the_reference_drops_what_its_own_partition_has_passed() -> None:
    right = expected("city", HAND_MADE)
    assert right.late == 1
    assert right.rows == {
        0: [3.0, 6.0, 10 + 90 + 5, 30 + 90 + 7, pytest.approx(20 + 90 + 6), 1.0],
        MINUTE: [1.0, 2.0, 1.0, 2.0, 1.5, 0.0],
    }
    assert right.rows_with_late[0][:2] == [3.0, 7.0]


def test_the_reference_of_uc2_has_sums_and_population_variances() -> None:
    right = expected("uc2", made((0, 0, 1.0), (0, 1, 3.0), (1, 0, 5.0)))
    assert right.rows == {0: [2.0, 3.0, 9.0, 6.0, 8.0, 7.0, 1.0]}


def test_a_series_crosses_once_however_long_it_stays_above() -> None:
    values = (50.0, 60.0, 10.0, 70.0)
    rows = [(0, minute * MINUTE, value) for minute, value in enumerate(values)]
    assert expected("city", made(*rows)).crossings == 2


def test_right_totals_need_not_be_right_to_the_last_bit() -> None:
    right = expected("city", HAND_MADE)
    told = {
        start: [cell * (1 + 1e-12) for cell in row] for start, row in right.rows.items()
    }
    assert verdict("city", right, told) == ""


def test_minutes_of_the_records_that_close_windows_are_not_looked_at() -> None:
    right = expected("city", HAND_MADE)
    assert verdict("city", right, {**right.rows, 9 * MINUTE: [4.0] * 6}) == ""


def test_a_system_that_counts_late_readings_is_told_apart_from_a_wrong_one() -> None:
    right = expected("city", HAND_MADE)
    assert "counts the 1 late" in verdict("city", right, right.rows_with_late)
    wrong = {**right.rows, MINUTE: [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]}
    assert verdict("city", right, wrong) == (
        "readings 7 for 8 (1 of 2 minutes); maxima 128 for 129 (1 of 2 minutes); "
        "means 117 for 117.5 (1 of 2 minutes)"
    )


def test_a_missing_minute_is_a_difference() -> None:
    right = expected("city", HAND_MADE)
    assert "windows 3 for 4" in verdict("city", right, {0: right.rows[0]})


def test_a_shorter_workload_is_a_prefix_of_a_longer_one() -> None:
    short, long = (columns(Workload("city", count, 100)) for count in (500, 900))
    assert np.array_equal(short.time_ms, long.time_ms[:500])
    assert np.array_equal(short.series, long.series[:500])
    assert np.array_equal(short.value, long.value[:500])


def test_a_city_has_several_readings_a_window_and_a_few_late_ones() -> None:
    work = Workload("city", 90_000, 1_000)
    right = expected("city", columns(work))
    whole_minute = sorted(right.rows)[4]
    windows, readings = right.rows[whole_minute][:2]
    assert windows == work.series
    assert 9 <= readings / windows <= 11
    assert 10 <= right.late <= 60
    assert right.crossings > 0


def test_a_reading_of_the_city_is_json_of_145_bytes() -> None:
    work = Workload("city", 10, 5)
    sent = list(records(work, columns(work), schema_id=1))
    assert len(sent) == work.sent
    assert {len(record.value) for record in sent} == {145}
    first = json.loads(sent[0].value)
    assert first["device"].encode() == sent[0].key
    assert {"property", "time", "value"} < first.keys()


def test_the_last_record_of_each_partition_is_ahead_of_all_others() -> None:
    work = Workload("city", 10, 5)
    *readings, a, b, c, d = records(work, columns(work), schema_id=1)
    assert [last.partition for last in (a, b, c, d)] == list(range(PARTITIONS))
    latest = max(json.loads(record.value)["time"] for record in readings)
    assert json.loads(a.value)["time"] > latest + 70_000


def test_a_record_of_uc2_is_framed_avro() -> None:
    work = Workload("uc2", 10, 5)
    record = next(records(work, columns(work), schema_id=7))
    assert record.value[:FRAME_BYTES] == b"\0\0\0\0\7"
    schema = fastavro.parse_schema(json.loads(UC2_SCHEMA))
    found = fastavro.schemaless_reader(
        io.BytesIO(record.value[FRAME_BYTES:]), schema, None
    )
    assert isinstance(found, dict)
    assert found["identifier"] == record.key.decode()
    assert found["timestamp"] == int(columns(work).time_ms[0])
    assert found["property"] == "power"


def lines() -> list[Line]:
    work = Workload("city", 1_000, 10)
    fast = Line("fast", "Fast & co", "tuned", "fast==1", 20, work)
    fast.runs = [
        Measured(1.0, 2.0, 5_000_000, 0.5, 1.0),
        Measured(1.0, 4.0, 1, 0.5, 1.0),
    ]
    fast.verdicts = ["", ""]
    base = Line("base", "Base", "plain", "base==1", 30, work)
    base.runs, base.verdicts = (
        [Measured(9.0, 10.0, 1, None, None)],
        ["readings 1 for 2"],
    )
    gone = Line("gone", "Gone", "", "", 0, work, reason="cannot be installed: no")
    return [gone, base, fast]


def test_the_table_has_the_fastest_first_and_a_reason_where_there_is_no_run() -> None:
    head, rule, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table(lines(), ("base", "gone")).splitlines()
    ]
    assert head == list(HEAD)
    assert rule[0].startswith("-")
    assert rule[1].endswith(":")
    fast, base, gone = rows
    assert fast[:6] == ["Fast & co", "1,000", "375", "250 to 500", "3.75", "-"]
    assert fast[-1] == "yes"
    assert base[-1] == "no: readings 1 for 2"
    assert gone[0] == "Gone"
    assert gone[-1] == "cannot be installed: no"
    assert {len(row) for row in rows} == {len(HEAD)}


def test_a_run_that_fails_after_a_right_one_is_not_hidden() -> None:
    line = lines()[-1]
    line.reason = "not done after 900 s"
    assert line.verdict == "yes, but then: not done after 900 s"


def test_the_report_names_the_machine_and_how_each_was_set_up() -> None:
    text = markdown([("city", lines())], ("base", "gone"), {"cores": 2})
    assert "cores 2" in text
    assert "## city: 1,000 records, 10 series" in text
    assert "- Fast & co: tuned (fast==1)" in text


def test_ratios_stand_beside_what_is_wanted_where_both_have_run() -> None:
    own, flink, _ = reversed(lines())
    own.name, own.title, flink.name, flink.title = "streamproc", "us", "flink", "Flink"
    assert against("city", [own, flink]) == ["us to Flink: 3.75, at least 14 wanted."]
    assert against("uc2", [own, flink]) == []
    assert against("city", [own]) == []


@pytest.mark.parametrize(("profile", "windows"), [("core", 1), ("full", 3)])
def test_both_profiles_are_configurations_of_the_same_job(
    profile: Profile, windows: int
) -> None:
    work = Workload("city", 10, 5)
    made = tomllib.loads(config(work, "broker:1", "", Path("data"), profile))
    assert len(made["windows"]) == windows
    assert all(("quantiles" in window) == (windows == 3) for window in made["windows"])
    assert {rule["window"] for rule in made["rules"]} == {"1m"}


def test_java_and_python_agree_on_the_numbers() -> None:
    text = (HERE / "java" / "Contract.java").read_text()
    told = {
        name: float(number.replace("_", ""))
        for name, number in re.findall(
            r"final \w+ (\w+) = (?:Duration\.ofMillis\()?([\d_.]+)", text
        )
    }
    assert told == {
        "WINDOW": contract.WINDOW_MS,
        "LATENESS": contract.LATENESS_MS,
        "THRESHOLD": contract.THRESHOLD,
        "FRAME_BYTES": contract.FRAME_BYTES,
    }


def test_every_peer_is_pinned_and_its_program_is_there() -> None:
    for peer in PEERS:
        pins = PYPI.get(peer.name, ()) or tuple(MAVEN[peer.name].values())
        assert pins
        assert all("==" in pin or pin[0].isdecimal() for pin in pins), peer.name
        assert peer.lines("city") > 20
        assert peer.lines("uc2") > 20


def test_documentation_and_comments_are_not_lines_of_code() -> None:
    python = '"""Doc.\n\nMore.\n"""\n\n# A comment.\nx = 1\n"""What x is."""\n'
    assert python_lines(python) == 1
    assert java_lines("/** Doc.\n * More. */\nclass A {\n  // no\n  int x;\n}\n") == 3
