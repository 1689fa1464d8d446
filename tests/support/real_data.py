"""The real input: where it is, the two ways in, and how the result is compared.

What is expected is always DuckDB's reading of the raw files; of streamproc only the
published files are looked at, through `analytics` as an analyst does.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import polars as pl
import pytest

from streamproc.analytics.merge import aggregates
from streamproc.analytics.sql import MERGED
from streamproc.analytics.verify import verify, visible_files
from streamproc.app.replay import replay_files
from streamproc.app.service import open_service
from streamproc.config import Settings
from streamproc.config import load as load_settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.files.envelopes import Envelope, EnvelopeWriter
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.runtime.observer import Totals
from tests.support.kafka import fresh

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "deploy" / "config" / "examples"
DATA = CHECKOUT.parent / "shared" / "data"
KOELN_MARCH = 963_976
ABERDEEN = 150_457
CHUNK = 50_000


class Row(NamedTuple):
    """One record on its way in."""

    partition: int
    event_us: int
    value: bytes
    key: bytes


def folder(name: str) -> Path:
    """Return a data set's folder, or skip the test."""
    path = DATA / name
    if not path.is_dir():
        pytest.skip(f"real data absent: {name}")
    return path


def koeln_march() -> Path:
    return folder("koeln_traffic_load") / "load_2013-03.csv.gz"


def aberdeen_files(into: Path) -> list[Path]:
    """Unpack the archive and return its files, ordered by day and sensor."""
    packed = (
        folder("sensor_community_aberdeen") / "luftdaten_2019-03-25_2019-04-07.tar.gz"
    )
    with tarfile.open(packed) as archive:
        archive.extractall(into, filter="data")
    return sorted(into.rglob("*.csv"), key=lambda path: path.name)


def beijing_files() -> list[Path]:
    return sorted(folder("beijing_prsa").glob("*.csv.gz"))


# --- ways in --------------------------------------------------------------------------


def settings(example: str, root: Path, **overrides: Any) -> Settings:
    """Load a shipped example; keys are written `section__key`."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    every = {"output.root": str(root), **dotted}
    return load_settings(EXAMPLES / f"{example}.toml", {}, every)


async def replay(chosen: Settings, files: Sequence[Path], label: str) -> Totals:
    """Replay to the end, closing; says how fast."""
    totals = Totals()
    began_us = _now_us()
    await replay_files(chosen, files, close=True, observers=(totals,), env={})
    _say(label, totals, began_us)
    return totals


async def consume(chosen: Settings, label: str) -> Totals:
    """Run the service `--until-end --close`; says how fast."""
    totals = Totals()
    began_us = _now_us()
    async with open_service(
        chosen, until_end=True, close=True, observers=(totals,), env={}
    ) as service:
        await service.run()
    assert totals.errors == []
    _say(label, totals, began_us)
    return totals


def on_topic(
    example: str, root: Path, connection: KafkaConnection, city: str, **overrides: Any
) -> tuple[Settings, str]:
    """Return settings that consume a topic of their own on that broker, and the topic."""
    stem = fresh("real")
    chosen = settings(
        example,
        root,
        source__bootstrap_servers=connection.bootstrap_servers,
        source__topics=f"{stem}.{{city}}",
        source__group=stem,
        **overrides,
    )
    return chosen, f"{stem}.{city}"


async def produce(
    connection: KafkaConnection, topic: str, rows: Sequence[Row], partitions: int
) -> None:
    """Create the topic and send all rows, stamped with their event times."""
    keep = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}
    async with KafkaProduce(connection, compression="lz4") as producer:
        await producer.create_topics([topic], partitions, keep)
        for first in range(0, len(rows), CHUNK):
            await producer.send(
                [
                    Message(
                        topic, row.value, row.key, row.partition, row.event_us // 1000
                    )
                    for row in rows[first : first + CHUNK]
                ]
            )


def write_envelopes(path: Path, topic: str, rows: Sequence[Row]) -> None:
    """Write the rows as `simulate --output` would, offsets counted by partition."""

    def envelopes() -> Iterator[Envelope]:
        offsets: dict[int, int] = {}
        for row in rows:
            offset = offsets.get(row.partition, 0)
            offsets[row.partition] = offset + 1
            yield Envelope(
                topic,
                row.partition,
                offset,
                row.key,
                [],
                row.event_us // 1000,
                row.value,
            )

    with EnvelopeWriter(str(path)) as writer:
        writer.write(envelopes())


def koeln_rows(partitions: int, where: str = "true") -> list[Row]:
    """Return March as JSON records in file order; a segment stays in one partition."""
    found = (
        duckdb.connect()
        .execute(
            "select (substr(identifier, 3)::int) % ?, epoch_us(datetime_utc),"  # noqa: S608  (a constant of the test)
            """ encode('{"device":"' || identifier || '","property":"traffic_load","time":"'"""
            """ || strftime(datetime_utc, '%Y-%m-%dT%H:%M:%SZ') || '","value":' || auslastung"""
            """ || ',"quality":' || valid || '}'), encode(identifier)"""
            f" from read_csv(?) where {where}",
            [partitions, str(koeln_march())],
        )
        .fetchall()
    )
    return [Row(*row) for row in found]


def aberdeen_rows(files: Sequence[Path], *, merged: bool) -> list[Row]:
    """Return every file's rows as JSON records, by time or file after file."""
    rows = []
    for path in files:
        names, *lines = path.read_text().splitlines()
        columns = names.split(";")
        for line in lines:
            cells = dict(zip(columns, line.split(";"), strict=True))
            device, time = cells["sensor_id"], f"{cells['timestamp']}Z"
            values = {
                name: float(cells[column])
                for column, name in (("P1", "pm10"), ("P2", "pm2_5"))
                if cells[column]
            }
            document = {"device": device, "time": time, "values": values}
            event_us = int(datetime.fromisoformat(time).timestamp()) * 1_000_000
            rows.append(
                Row(0, event_us, json.dumps(document).encode(), device.encode())
            )
    return sorted(rows, key=lambda row: row.event_us) if merged else rows


# --- what DuckDB says -------------------------------------------------------------------

_HOURS = (
    "select device, property, epoch_us(date_trunc('hour', time)) as start_us,"
    " count(*) as count, avg(value::double) as mean, min(value)::double as min,"
    " max(value)::double as max from long where value is not null"
    " group by all order by device, property, start_us"
)


def frame(query: str, parameters: Sequence[object] = ()) -> pl.DataFrame:
    """Return DuckDB's answer."""
    answer = duckdb.connect().sql(query, params=list(parameters))
    assert answer is not None
    return pl.DataFrame(answer.to_arrow_table())


def first_row(query: str, parameters: Sequence[object] = ()) -> tuple[Any, ...]:
    """Return the first row of DuckDB's answer."""
    row = duckdb.connect().execute(query, list(parameters)).fetchone()
    assert row is not None
    return tuple(row)


def hours_of(long: str, parameters: Sequence[object] = ()) -> pl.DataFrame:
    """Return hourly aggregates of a query for (device, property, time, value)."""
    query = f"with long as ({long}) {_HOURS}"
    return frame(query, parameters)


def koeln_hours() -> pl.DataFrame:
    return hours_of(
        "select identifier as device, 'traffic_load' as property, datetime_utc as time,"
        " auslastung as value from read_csv(?) where valid = 1",
        [str(koeln_march())],
    )


def aberdeen_raw(files: Sequence[Path], into: Path) -> str:
    """Let DuckDB read all files, once; return SQL for (device, property, time, value)."""
    duckdb.connect().execute(
        "copy (select sensor_id::varchar as device, timestamp as time, P1, P2"  # noqa: S608  (a path of the test)
        f" from read_csv(?, delim = ';')) to '{into}' (format parquet)",
        [[str(path) for path in files]],
    )
    return (
        f"select device, 'pm10' as property, time, P1 as value from '{into}'"  # noqa: S608  (a path of the test)
        f" union all select device, 'pm2_5', time, P2 from '{into}'"
    )


# --- what was published -----------------------------------------------------------------


def merged_hours(root: Path) -> list[pl.DataFrame]:
    """Return the merged hours twice: by the library and by the analyst's SQL."""
    by_sql = frame(MERGED.format(root=root, window="1h"))
    return [
        merged.with_columns(
            pl.col("device", "property").cast(pl.String),
            start_us=pl.col("start").dt.epoch("us"),
        ).sort("device", "property", "start_us")
        for merged in (aggregates(root, "1h"), by_sql)
    ]


def assert_hours(root: Path, expected: pl.DataFrame) -> None:
    """Compare what was published, merged, with DuckDB's reading of the raw files."""
    keys = ["device", "property", "start_us", "count"]
    for merged in merged_hours(root):
        found = merged.filter(pl.col("count") > 0)
        assert found.height == expected.height
        assert found.select(keys).rows() == expected.select(keys).rows()
        for name in ("mean", "min", "max"):
            np.testing.assert_allclose(
                found[name].to_numpy(), expected[name].to_numpy(), rtol=1e-9
            )


def table(root: Path, dataset: str) -> str:
    """Return SQL for one published table of readings."""
    return (
        f"read_parquet('{root}/{dataset}/*/*/*.parquet', hive_partitioning = true,"
        " hive_types = {'city': VARCHAR, 'date': DATE})"
    )


def assert_once(root: Path, records: int, readings: int, quarantined: int = 0) -> None:
    """Check that every record is published exactly once, and the logs agree."""
    connection = duckdb.connect()
    connection.execute(
        'create table seen as select source::varchar as source, "offset", ordinal'  # noqa: S608  (a path of the test)
        f" from {table(root, 'readings')}"
    )
    assert _one(connection, "select count(*) from seen") == readings
    assert _one(connection, "select count(*) from (from seen group by all)") == readings
    if quarantined:
        connection.execute(
            'insert into seen select source, "offset", 0'  # noqa: S608  (a path of the test)
            f" from {table(root, 'quarantine')}"
        )
        assert _one(connection, "select count(*) from seen") == readings + quarantined
    else:
        assert not (root / "quarantine").exists()
    found = connection.execute(
        'select count(distinct "offset"), min("offset"), max("offset") from seen'
        " group by source"
    ).fetchall()
    assert sum(distinct for distinct, _, _ in found) == records
    assert all((low, high) == (0, n - 1) for n, low, high in found), found
    report = verify(root)
    assert report.ok, report.findings[:5]


def assert_same_rows(root: Path, raw: str, parameters: Sequence[object] = ()) -> None:
    """Compare readings with a query for (device, event_us, value, quality), as multisets."""
    published = (
        "select device::varchar, epoch_us(event_time), value, quality::int"  # noqa: S608  (a path of the test)
        f" from {table(root, 'readings')}"
    )
    for one, other in ((published, raw), (raw, published)):
        query = f"select count(*) from (({one}) except all ({other}))"  # noqa: S608  (as above)
        assert _one(duckdb.connect(), query, parameters) == 0


def files_of(root: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every visible file that holds data."""
    stats = {name: (root / name).stat() for name in visible_files(root) if "/" in name}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _one(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[object] = (),
) -> int:
    row = connection.execute(query, list(parameters)).fetchone()
    assert row is not None
    return int(row[0])


# --- figures ----------------------------------------------------------------------------


def _now_us() -> int:
    return SystemClock().monotonic_us()


def _say(label: str, totals: Totals, began_us: int) -> None:
    seconds = (_now_us() - began_us) / 1e6
    figures = {
        "records": totals.records,
        "readings": totals.readings,
        "seconds": round(seconds, 2),
        "readings_per_second": round(totals.readings / seconds) if seconds else 0,
        "busy_seconds": round(totals.busy_s, 2),
        "files": totals.files,
        "commits": totals.commits,
    }
    print(f"\n{label}: {json.dumps(figures)}")  # noqa: T201  (figures for the reader of -s)
