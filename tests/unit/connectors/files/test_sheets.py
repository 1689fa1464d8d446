from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (writes the files under test)
import pytest

from streamproc.connectors.files.inputs import StreamOptions
from streamproc.connectors.files.mapping import ColumnMapping, FileMapping
from streamproc.connectors.files.stream import FileStream, open_stream
from streamproc.core.values import Flag
from streamproc.errors import ConfigError, InputError
from tests.support.files import Row, TinyJson, plain, put

NOON = "2020-01-01T12:00:00+00:00"


def opened(path: str, mapping: FileMapping | None, **more: Any) -> FileStream:
    options = StreamOptions("s", mapping, **more)
    return open_stream([path], options, [], 0, TinyJson())


def rows_of(
    tmp_path: Path, content: str, mapping: FileMapping, **more: Any
) -> list[Row]:
    path = put(tmp_path / "x.csv", content.encode())
    return plain(opened(path, mapping, **more).batches())


def wide(**more: Any) -> FileMapping:
    columns = {
        "no2": ColumnMapping("no2", "ug/m3"),
        "temp": ColumnMapping("temperature"),
        "wd": ColumnMapping("wind_direction", "deg", {"N": 0.0, "E": 90.0}),
    }
    given: dict[str, Any] = {
        "time": ("t",),
        "timezone": "UTC",
        "device": "id",
        "columns": columns,
    }
    return FileMapping(**(given | more))


def reading(
    ordinal: int, name: str, unit: str | None, value: float, **more: Any
) -> tuple[Any, ...]:
    quality, flags = more.get("quality", 1), more.get("flags", 0)
    return (
        ordinal,
        more.get("device", "a"),
        name,
        unit,
        more.get("time", NOON),
        value,
        quality,
        flags,
    )


def test_a_wide_row_is_one_record_with_a_reading_a_column(tmp_path: Path) -> None:
    content = (
        "t,id,no2,temp,wd,x\n"
        "2020-01-01 12:00:00,a,1.5, -2 ,E,\n"
        "2020-01-01 12:00:00, a ,,7,,\n"
        "2020-01-01 12:00:00,a,,NA,,\n"
    )
    rows = rows_of(tmp_path, content, wide(missing=("", "NA")))
    assert rows == [
        Row(
            0,
            b"2020-01-01 12:00:00,a,1.5, -2 ,E,",
            (
                reading(0, "no2", "ug/m3", 1.5),
                reading(1, "temperature", None, -2.0),
                reading(2, "wind_direction", "deg", 90.0),
            ),
            None,
        ),
        Row(
            1,
            b"2020-01-01 12:00:00, a ,,7,,",
            (reading(1, "temperature", None, 7.0),),
            None,
        ),
        Row(2, b"2020-01-01 12:00:00,a,,NA,,", (), None),
    ]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ("yesterday,a,1,,", "bad_time", "t: 'yesterday'"),
        (",a,1,,", "missing_field", "t"),
        ("2020-01-01 12:00:00,,1,,", "missing_field", "id"),
        ("2020-01-01 12:00:00,a,1.2.3,,", "bad_value", "no2: '1.2.3'"),
        ("2020-01-01 12:00:00,a,nan,,", "bad_value", "no2: 'nan'"),
        ("2020-01-01 12:00:00,a,1e999,,", "bad_value", "no2: '1e999'"),
        ("2020-01-01 12:00:00,a,-inf,,", "bad_value", "no2: '-inf'"),
        ("2020-01-01 12:00:00,a,1_000,,", "bad_value", "no2: '1_000'"),
        ("2020-01-01 12:00:00,a,1,,SSW", "bad_value", "wd: 'SSW'"),
        ("2020-01-01 12:00:00,a,1,,90", "bad_value", "wd: '90'"),
        ("2020-01-01 12:00:00,a,1,", "invalid_row", "4 fields, the header has 5"),
        ("2020-01-01 12:00:00,a,NA,,", "bad_value", "no2: 'NA'"),
    ],
)
def test_one_bad_cell_refuses_its_row_whole_and_no_other(
    tmp_path: Path, row: str, reason: str, detail: str
) -> None:
    good = "2020-01-01 12:00:00,a,1,2,N"
    rows = rows_of(tmp_path, f"t,id,no2,temp,wd\n{good}\n{row}\n{good}\n", wide())
    assert [len(one.readings) for one in rows] == [3, 0, 3]
    assert rows[1] == Row(1, row.encode(), (), (reason, detail))


def test_bytes_that_are_no_utf8_refuse_a_row_only_where_they_are_used(
    tmp_path: Path,
) -> None:
    content = b"t,id,no2,temp,wd,note\n%s,a,1,,,\xff\n%s,\xff,1,,,\n"
    when = b"2020-01-01 12:00:00"
    path = put(tmp_path / "x.csv", content % (when, when))
    rows = plain(opened(path, wide()).batches())
    assert len(rows[0].readings) == 1
    assert rows[1].reject == ("bad_text", "id: b'\\xff'")
    assert rows[1].payload == when + b",\xff,1,,,"


def test_a_decimal_comma_is_read_and_a_point_is_not_guessed_at(tmp_path: Path) -> None:
    content = "t;id;no2;temp;wd\n2020-01-01 12:00:00;a;1,5;;\n2020-01-01 12:00:00;a;1.500,5;;\n"
    rows = rows_of(tmp_path, content, wide(separator=";", decimal=","))
    assert rows[0].readings == (reading(0, "no2", "ug/m3", 1.5),)
    assert rows[1].reject == ("bad_value", "no2: '1.500,5'")


def test_rows_that_are_not_valid_are_readings_of_quality_zero(tmp_path: Path) -> None:
    content = "t,id,no2,temp,wd,ok\n" + "".join(
        f"2020-01-01 12:00:00,a,1,,,{ok}\n"
        for ok in ("1", "0", "", "true", " 1 ", "yes")
    )
    rows = rows_of(tmp_path, content, wide(validity="ok"))
    assert [row.readings[0][6] for row in rows] == [1, 0, 0, 1, 1, 0]
    rows = rows_of(tmp_path, content, wide(validity="ok", valid=("yes",)))
    assert [row.readings[0][6] for row in rows] == [0, 0, 0, 0, 0, 1]


def test_the_long_form_names_property_and_unit_in_columns(tmp_path: Path) -> None:
    content = (
        "t,what,v,u\n2020-01-01 12:00:00,P1,1.5,ug/m3\n2020-01-01 12:00:00,temp,2,\n"
        "2020-01-01 12:00:00,,2,\n2020-01-01 12:00:00,P1,,\n"
    )
    mapping = FileMapping(
        time=("t",),
        timezone="UTC",
        device_fixed="a",
        property="what",
        value="v",
        unit="u",
        properties={"P1": "pm10"},
    )
    rows = rows_of(tmp_path, content, mapping)
    assert [row.readings for row in rows] == [
        (reading(0, "pm10", "ug/m3", 1.5),),
        (reading(0, "temp", None, 2.0),),
        (),
        (),
    ]
    assert [row.reject for row in rows] == [None, None, ("missing_field", "what"), None]


def test_times_that_had_to_be_assumed_are_flagged(tmp_path: Path) -> None:
    content = "t,id,no2,temp,wd\n2020-01-01 12:00:00,a,1,,\n"
    (row,) = rows_of(tmp_path, content, wide(timezone=None))
    assert row.readings == (
        reading(0, "no2", "ug/m3", 1.0, flags=int(Flag.TZ_ASSUMED)),
    )


def test_a_city_column_gives_each_device_one_home(tmp_path: Path) -> None:
    rows = [
        ("a", "razlog"),
        ("b", "nevers"),
        ("a", "nevers"),
        ("c", "paris"),
        ("c", "razlog"),
        ("d", "razlog"),
    ]
    content = "t,id,no2,temp,wd,town\n" + "".join(
        f"2020-01-01 12:00:00,{device},1,,,{town}\n" for device, town in rows
    )
    path = put(tmp_path / "x.csv", content.encode())
    stream = opened(
        path, wide(city="town"), cities=("razlog", "nevers"), homes={"d": "nevers"}
    )
    assert stream.homes == {"a": "razlog", "b": "nevers", "c": "razlog", "d": "nevers"}
    assert [row.reject for row in plain(stream.batches())] == [
        None,
        None,
        ("unknown_city", "'a' belongs to razlog, not nevers"),
        ("unknown_city", "town: 'paris'"),
        None,
        ("unknown_city", "'d' belongs to nevers, not razlog"),
    ]


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    noon = datetime(2020, 1, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "t": pa.array([noon] * 3, pa.timestamp("ms", "Europe/Berlin")),
            "id": pa.array([5, 5, None], pa.int32()),
            "no2": [1.5, float("nan"), 1.0],
            "temp": pa.array([None, 3, 1], pa.int16()),
            "wd": ["N", None, "E"],
            "ok": [True, False, True],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    mapping = wide(validity="ok")
    rows = plain(opened(str(tmp_path / "x.parquet"), mapping).batches())
    assert [row.readings for row in rows] == [
        (
            reading(0, "no2", "ug/m3", 1.5, device="5"),
            reading(2, "wind_direction", "deg", 0.0, device="5"),
        ),
        (reading(1, "temperature", None, 3.0, device="5", quality=0),),
        (),
    ]
    assert rows[2].reject == ("missing_field", "id")
    assert rows[2].payload.startswith(b'{"t":"2020-01-01T13:00:00+01:00",')


def test_tables_need_a_mapping_and_files_a_known_ending(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.csv: needs a \[files\] mapping"):
        opened(put(tmp_path / "x.csv", b"a\n"), None)
    with pytest.raises(InputError, match="does not end in one of"):
        opened(put(tmp_path / "x.dat", b"a\n"), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": ()}, "files.time: name at least one column"),
        ({"device": None}, "either device"),
        ({"device_fixed": "x"}, "either device"),
        ({"columns": {}}, "either columns"),
        ({"value": "v"}, "property and value belong together"),
        ({"property": "p"}, "property and value belong together"),
        (
            {"columns": {"a": ColumnMapping("p"), "b": ColumnMapping("p")}},
            "two columns hold 'p'",
        ),
        ({"separator": ";;"}, "is not one ASCII character"),
        ({"separator": "§"}, "is not one ASCII character"),
        ({"quote": ","}, "is not one ASCII character"),
        ({"decimal": "'"}, "is neither"),
        ({"time_format": "%Q"}, "time format"),
        ({"timezone": "Nowhere"}, "is not an IANA name"),
    ],
)
def test_a_mapping_that_contradicts_itself_is_refused(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        wide(**change)


def test_every_fault_of_a_mapping_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        wide(time=(), decimal="x", timezone="Nowhere")
    assert len(caught.value.faults) == 3
