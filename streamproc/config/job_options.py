"""Sections about the job: its cities, windows, rules, output, and how it is watched."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic.json_schema import SkipJsonSchema
from pydantic_settings import NoDecode

from streamproc.config.base import REQUIRED, Section, option, several
from streamproc.config.source_options import TEXTS, Slug, Topic
from streamproc.config.units import (
    Duration,
    Flag,
    Matching,
    Number,
    Size,
    Whole,
    lasting,
    one_or_many,
    sized,
)

Name = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "must be 1 to 64 letters, digits, dot, _ and -, and begin with a letter or digit",
    ),
]
PropertyName = Annotated[
    str,
    Matching(r"[^\x00-\x20\x7f]{1,64}", "must be 1 to 64 characters without spaces"),
]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(one_or_many), TEXTS]


class Job(Section):
    """`[job]`: what this configuration is called."""

    name: Slug = option(
        "streamproc",
        "Name in the commit log, the consumer group and alert ids; never change it later.",
    )


class City(Section):
    """`[cities.<slug>]`: one town; the slug is part of topics and paths."""

    name: str | None = option(None, "Name for people; without it the slug.")
    timezone: str = option(
        REQUIRED, "IANA zone; decides which day a reading belongs to."
    )
    weight: Annotated[Whole, Field(ge=1, le=1000)] = option(
        1, "Share of the intake when cities compete."
    )


class Device(Section):
    """`[[devices]]`: one device of the device list."""

    city: Slug = option(REQUIRED, "Slug of its city.")
    device: Annotated[
        str,
        Matching(
            r"[^\x00-\x1f\x7f]{1,256}",
            "must be 1 to 256 characters without control characters",
        ),
    ] = option(REQUIRED, "Device id, as in its records.")
    interval_us: Annotated[Duration, lasting("1s", "366d")] | None = option(
        None, "How often it reports, for coverage."
    )
    scale: Number = option(1.0, "Calibration: stored = canonical * scale + offset.")
    offset: Number = option(0.0, "Calibration: added, in the canonical unit.")


class Conversion(Section):
    """How a unit becomes the canonical one: canonical = value * scale + offset."""

    scale: Number = option(1.0, "Factor.")
    offset: Number = option(0.0, "Added after the factor, in the canonical unit.")


class Property(Section):
    """`[[properties]]`: a property beyond the shipped ones, or one of them anew."""

    property: PropertyName = option(REQUIRED, "Its name in records and files.")
    unit: str = option(REQUIRED, "Canonical unit, UCUM.")
    name: str = option("", "Name for people.")
    low: Number | None = option(None, "Least plausible value; below is flagged.")
    high: Number | None = option(None, "Greatest plausible value; above is flagged.")
    states: dict[str, Number] = option({}, "Names of states and their numbers.")
    units: dict[str, Conversion] = option(
        {}, "Further units it may arrive in: {scale = …, offset = …}."
    )


class Processing(Section):
    """`[processing]`: time, lateness and limits."""

    watermark: Literal["city", "device"] = option(
        "city",
        "Whose highest event time closes windows: one per city (and partition), or one "
        "per device, for devices that send after an outage.",
    )
    idle_after_us: Annotated[Duration, lasting("1s", "7d")] = option(
        60_000_000,
        "Silence after which a city's (or device's) windows close, real time.",
        shown="1m",
    )
    future_max_us: Annotated[Duration, lasting("0s", "366d")] = option(
        300_000_000,
        "How far an event time may be ahead of broker time; beyond is quarantined.",
        shown="5m",
    )
    past_max_us: Annotated[Duration, lasting("1m", "3660d")] | None = option(
        None, "How far an event time may be behind broker time; beyond is quarantined."
    )
    dedup: Annotated[Whole, Field(ge=1, le=16)] = option(
        1, "Last accepted event times of a series that a reading is compared with."
    )
    forget_after_us: Annotated[Duration, lasting("1h", "3660d")] = option(
        30 * 86_400_000_000,
        "Silent series leave the state after this, in event time.",
        shown="30d",
    )
    devices_max: Annotated[Whole, Field(ge=1, le=100_000_000)] = option(
        1_000_000, "Devices per city and partition; more are quarantined."
    )


class Window(Section):
    """`[[windows]]`: one aggregation over event time, counted from 1970 UTC."""

    name: Annotated[
        str,
        Matching(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}",
            "must be 1 to 32 letters, digits, dot, _ and -, and begin with a letter or "
            "digit",
        ),
    ] = option(REQUIRED, "Its name in paths (window=<name>) and rules.")
    every_us: Annotated[Duration, lasting("1s", "366d")] = option(
        REQUIRED, "A window begins this often."
    )
    size_us: Annotated[Duration, lasting("1s", "366d")] | None = option(
        None,
        "Its length; longer than `every` makes windows overlap. Without it `every`.",
    )
    lateness_us: Annotated[Duration, lasting("0s", "366d")] = option(
        30_000_000,
        "How long after its end a window still waits for readings.",
        shown="30s",
    )
    quantiles: tuple[Number, ...] = option(
        (), "Quantiles between 0 and 1; rules call 0.95 p95.", shown="[]"
    )


class Rule(Section):
    """`[[rules]]`: one alert rule, on readings or on a window's aggregates."""

    name: Name = option(REQUIRED, "Its name in alerts.")
    property: str = option(REQUIRED, "The property it watches.")
    window: str | None = option(
        None, "Window whose aggregates it judges; without it every reading."
    )
    when: str | None = option(
        None, "Condition that opens an alert, such as `mean > 50 and count > 10`."
    )
    clear: str | None = option(
        None, "Condition that ends it; without it as soon as `when` is false."
    )
    for_us: Annotated[Duration, lasting("0s", "366d")] = option(
        0, "How long `when` must hold, in event time.", shown="0s"
    )
    severity: Literal["info", "warning", "critical"] = option(
        "warning", "How bad it is."
    )
    no_data_us: Annotated[Duration, lasting("1s", "366d")] | None = option(
        None, "Alert when a series seen before is silent for this long."
    )
    cities: Texts = option(
        (), "Slugs of the cities it applies to; empty: all.", shown="[]"
    )


class Output(Section):
    """`[output]`: where Parquet goes and how often it is written."""

    root: str = option(
        "data",
        "Folder, relative to the working directory; or s3://bucket/prefix, see [s3].",
    )
    flush_rows: Annotated[Whole, Field(ge=1, le=100_000_000)] = option(
        2_000_000, "Commit at this many rows."
    )
    flush_bytes: Annotated[Size, sized("1MiB", "16GiB")] = option(
        64 << 20, "Commit a partition at this much buffered data.", shown="64MiB"
    )
    buffer_bytes: Annotated[Size, sized("1MiB", "64GiB")] = option(
        256 << 20,
        "Most buffered data of all partitions of the process: beyond it, the one that "
        "holds most is committed.",
        shown="256MiB",
    )
    flush_age_us: Annotated[Duration, lasting("1s", "1d")] = option(
        60_000_000,
        "Commit this long after the first record; a minute gives at most one file per "
        "dataset, window, partition, city, date and minute.",
        shown="1m",
    )
    codec: Literal["zstd", "lz4", "snappy", "none"] = option(
        "lz4", "Compression; zstd makes smaller files for more processor time."
    )
    level: Annotated[Whole, Field(ge=1, le=22)] = option(1, "Level, for zstd.")
    snapshot_every_us: Annotated[Duration, lasting("1s", "1d")] = option(
        600_000_000,
        "Write the state this often, so that a restart is short.",
        shown="10m",
    )
    snapshot_rows: Annotated[Whole, Field(ge=1, le=1_000_000_000)] = option(
        10_000_000, "Write the state after this many readings."
    )
    snapshots_kept: Annotated[Whole, Field(ge=1, le=100)] = option(
        2, "Snapshots kept per partition."
    )


class Alerts(Section):
    """`[alerts]`: where alerts go besides `alerts/`."""

    topic: Topic | None = option(None, "Kafka topic; it must exist.")


class Webhook(Section):
    """`[[webhooks]]`: one receiver of alerts, signed as Standard Webhooks say."""

    name: Name | None = option(
        None, "Its name in logs and metrics; without it the host."
    )
    url: str = option(REQUIRED, "https://…")
    secret_files: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(one_or_many), TEXTS
    ] = option(
        (),
        "Files with the signing secrets, the newest first; two while one is replaced.",
        shown="[]",
    )
    secret_file: str | None = option(None, "File with the signing secret.")
    secrets: SkipJsonSchema[tuple[SecretStr, ...]] = several("From secret files.")
    allow_private: Flag = option(
        default=False, text="Allow a receiver with a private address."
    )
    allow_http_loopback: Flag = option(
        default=False, text="Allow http:// to this host."
    )
    cities: Texts = option(
        (), "Slugs of the cities whose alerts go there; empty: all.", shown="[]"
    )
    ca_file: str | None = option(
        None, "PEM with the certificate authorities to trust; without it the system's."
    )
    timeout_us: Annotated[Duration, lasting("100ms", "1m")] = option(
        10_000_000, "Time for one delivery.", shown="10s"
    )


class MetricsPage(Section):
    """`[metrics]`: /metrics, /healthz and /readyz."""

    enabled: Flag = option(default=True, text="Serve them.")
    host: str = option("127.0.0.1", "Address to listen on.")
    port: Annotated[Whole, Field(ge=0, le=65_535)] = option(
        9464, "Port to listen on; 0 takes a free one."
    )
    stall_after_us: Annotated[Duration, lasting("10s", "1d")] = option(
        300_000_000,
        "Records waiting and no progress for this long is unhealthy.",
        shown="5m",
    )


class Log(Section):
    """`[log]`: what is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = option("info", "Least level.")
    format: Literal["json", "console"] = option("json", "For machines or for people.")


class Shutdown(Section):
    """`[shutdown]`: how a stop goes."""

    drain_us: Annotated[Duration, lasting("1s", "1h")] = option(
        60_000_000, "Time to commit what is held, at a stop or a rebalance.", shown="1m"
    )
