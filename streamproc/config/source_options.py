"""Sections about where records come from and what they look like."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_settings import NoDecode

from streamproc.codecs.strict import TimeUnit
from streamproc.config.base import REQUIRED, Section, option, secret
from streamproc.config.units import (
    Duration,
    Flag,
    Matching,
    Number,
    Size,
    Start,
    StartPoint,
    lasting,
    one_or_many,
    separated,
    sized,
    whole_seconds,
)

Format = Literal["json", "avro", "protobuf", "arrow", "packed", "chirpstack"]
MEBIBYTE = 1 << 20
SLUG = "[a-z0-9-]{1,32}"
TEXTS = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
)

Slug = Annotated[
    str,
    Matching(SLUG, "must be 1 to 32 of a-z, 0-9 and hyphen"),
]
_TOPIC = r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}"
Topic = Annotated[
    str,
    Matching(_TOPIC, "not a topic name: 1 to 249 of letters, digits, dot, _ and -"),
]
TopicTemplate = Annotated[
    str,
    Matching(
        r"(?!\.{1,2}$)(?:[A-Za-z0-9._-]|\{city\}){1,249}",
        "not a topic name: letters, digits, dot, _ and -, and {city} for the slug",
    ),
]
Seconds = Annotated[Duration, AfterValidator(whole_seconds)]


def _positive(value: float) -> float:
    if not value > 0:
        msg = "must be greater than 0"
        raise ValueError(msg)
    return value


Positive = Annotated[Number, AfterValidator(_positive)]


class _Client(Section):
    """How we say who we are to a server, and whom we trust."""

    password: SkipJsonSchema[SecretStr | None] = secret(
        "From a secret file or environment."
    )
    password_file: str | None = option(
        None, "File that holds the password; relative to this file."
    )
    ca_file: str | None = option(
        None, "PEM with the certificate authorities to trust; without it the system's."
    )
    cert_file: str | None = option(None, "PEM with our certificate, for mutual TLS.")
    key_file: str | None = option(None, "PEM with the key of `cert_file`.")


class Source(_Client):
    """`[source]`: the Kafka cluster, the topics, and how they are consumed."""

    bootstrap_servers: str = option(
        "localhost:9092", "Brokers to ask first, host:port, separated by commas."
    )
    topics: Annotated[
        tuple[TopicTemplate, ...], NoDecode, BeforeValidator(separated), TEXTS
    ] = option(
        ("telemetry.{city}",),
        "Topic or list of topics; {city} stands for each city's slug. A topic without "
        "{city} is shared: its devices need a device list.",
        shown="telemetry.{city}",
    )
    unknown_topics: Literal["quarantine", "ignore"] = option(
        "quarantine",
        "Topics that fit the template but no configured city: put their records into "
        "quarantine, or do not read them.",
    )
    format: Format = option(
        "json", "What the records are: json, avro, protobuf, arrow, packed, chirpstack."
    )
    formats: dict[str, Format] = option(
        {}, "Topic to format, for topics that differ from `format`."
    )
    group: (
        Annotated[str, Matching(r"[^\x00-\x1f]{1,200}", "empty or too long")] | None
    ) = option(None, "Consumer group; without it `streamproc-<job name>`.")
    start: Annotated[Start, NoDecode] = option(
        StartPoint(),
        "Where a partition without a log begins: earliest, latest, or an ISO time with "
        "zone. Used once.",
        shown="earliest",
    )
    protocol: Literal["plaintext", "ssl", "sasl_ssl"] = option(
        "plaintext", "How connections are protected."
    )
    allow_plaintext: Flag = option(
        default=False, text="Allow protocol plaintext to a host other than this one."
    )
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = option(
        "SCRAM-SHA-512", "How to log in with protocol sasl_ssl."
    )
    username: str | None = option(None, "User name for protocol sasl_ssl.")
    key_password: SkipJsonSchema[SecretStr | None] = secret(
        "From a secret file or environment."
    )
    key_password_file: str | None = option(
        None, "File that holds the password of `key_file`."
    )
    instance_id: str | None = option(
        None, "Static group membership: a name no other process of the group has."
    )
    session_timeout_us: Annotated[Seconds, lasting("6s", "30m")] = option(
        45_000_000,
        "How long the broker waits for a heartbeat before our partitions move.",
        shown="45s",
    )
    heartbeat_us: Annotated[Duration, lasting("100ms", "10m")] = option(
        3_000_000,
        "Time between heartbeats; also how soon we hear of a rebalance.",
        shown="3s",
    )
    rebalance_timeout_us: Annotated[Seconds, lasting("10s", "1h")] = option(
        120_000_000,
        "How long a rebalance waits for us to commit; must exceed [shutdown] drain.",
        shown="2m",
    )
    max_poll_interval_us: Annotated[Seconds, lasting("10s", "1d")] = option(
        300_000_000,
        "Longest time between two fetches before we leave the group.",
        shown="5m",
    )
    topics_refresh_us: Annotated[Seconds, lasting("1s", "1d")] = option(
        60_000_000, "How soon a new topic or partition is noticed.", shown="1m"
    )
    fetch_bytes: Annotated[Size, sized("16MiB", "32MiB")] = option(
        32 * MEBIBYTE, "Most bytes of one answer of one broker.", shown="32MiB"
    )
    partition_fetch_bytes: Annotated[Size, sized("1MiB", "8MiB")] = option(
        4 * MEBIBYTE, "Most bytes of one partition in an answer.", shown="4MiB"
    )
    max_rate: Positive | None = option(
        None, "Limit on intake, records per second and process."
    )


class Intake(Section):
    """`[intake]`: how much is held between broker and store, per process."""

    bytes_max: Annotated[Size, sized("64MiB", "256GiB")] | None = option(
        None,
        "Most bytes fetched, buffered and being written together; intake pauses before it. "
        "Without it [output] buffer_bytes + 16 * [source] fetch_bytes, enough for 7 brokers.",
    )


class Registry(_Client):
    """`[registry]`: the schema registry for Avro and Protobuf."""

    url: str = option(REQUIRED, "Base URL, https://… (http:// to this host).")
    allow_plaintext: Flag = option(
        default=False, text="Allow http:// to a host other than this one."
    )
    username: str | None = option(None, "User name.")
    timeout_us: Annotated[Duration, lasting("100ms", "5m")] = option(
        5_000_000, "Time for one answer.", shown="5s"
    )
    patience_us: Annotated[Duration, lasting("0s", "7d")] = option(
        60_000_000,
        "How long a partition waits for a registry that does not answer before its "
        "records go to quarantine.",
        shown="1m",
    )


class _Fields(Section):
    """Names of the fields in a record, and how times are read."""

    device: str = option("device", "Field with the device id.")
    property: str = option("property", "Field with the property's name.")
    time: str = option("time", "Field with the event time.")
    value: str = option("value", "Field with the number.")
    values: str = option("values", "Field with a map from property to number.")
    unit: str = option("unit", "Field with the unit.")
    quality: str = option("quality", "Field with the quality; above 0 is valid.")
    time_unit: TimeUnit = option(
        "auto", "Unit of times that are plain integers: s, ms, us, ns; auto means ms."
    )
    assume_zone: Literal["UTC"] | None = option(
        None, "Zone of times without one; only UTC. Such readings are flagged."
    )


class JsonFields(_Fields):
    """`[json]`: how flat JSON documents look."""

    units: str = option("units", "Field with a map from property to unit.")
    string_numbers: Flag = option(
        default=False,
        text='Accept numbers in quotes ("1.5"); such readings are flagged.',
    )
    device_from_key: Flag = option(
        default=False, text="Take the record key as device where a document has none."
    )


class AvroFields(_Fields):
    """`[avro]`: how Avro records look."""


class ProtobufFields(_Fields):
    """`[protobuf]`: how Protobuf messages look."""


class ArrowFields(_Fields):
    """`[arrow]`: how Arrow IPC streams look."""

    trusted_producers: Flag = option(
        default=False,
        text="Producers are ours: skip the full validation of streams (offsets and lengths "
        "are always checked).",
    )


# --- files for replay -----------------------------------------------------------------


def _text(value: object) -> object:
    """Turn plain numbers into the text a file has for them."""
    return (
        str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    )


CellText = Annotated[str, BeforeValidator(_text)]
Cells = Annotated[tuple[CellText, ...], NoDecode, BeforeValidator(one_or_many), TEXTS]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(one_or_many), TEXTS]


class FileColumn(Section):
    """`[files.columns.<column>]`: what a column of the wide form holds."""

    property: str = option(REQUIRED, "The property.")
    unit: str | None = option(
        None, "Its unit in the file; without it the canonical one."
    )
    map: dict[str, Number] | None = option(
        None, "Texts that stand for numbers; other texts are then refused."
    )


class Validity(Section):
    """`[files] valid`: which rows are valid."""

    column: str = option(REQUIRED, "Column that tells whether a row is valid.")
    equals: Cells = option(
        ("1", "true"), "Its texts that mean valid.", shown='["1", "true"]'
    )


class Files(Section):
    """`[files]`: what the columns of CSV and Parquet files mean, for `replay`."""

    stream: Annotated[
        str,
        Matching(
            r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}",
            "must be 1 to 64 letters, digits, dot, _ and -",
        ),
    ] = option("files", "Name of the stream; `source` becomes <stream>/0.")
    format: Format = option("json", "What the lines of NDJSON files are.")
    time: Names | None = option(
        None, "Column with the event time, or several that are joined by one space."
    )
    time_format: str = option(
        "iso", "iso, epoch_s, epoch_ms, epoch_us, or a format such as %d.%m.%Y %H:%M."
    )
    timezone: str | None = option(
        None, "IANA zone of times without one; without it UTC, flagged."
    )
    device: str | None = option(None, "Column with the device.")
    device_fixed: str | None = option(None, "The one device of the files.")
    city: str | None = option(None, "Column with the city's slug.")
    city_fixed: str | None = option(None, "Slug of the one city of the files.")
    columns: dict[str, FileColumn] = option(
        {},
        "Wide form: column to what it holds; the order numbers the readings of a row.",
    )
    property: str | None = option(None, "Long form: column with the property.")
    value: str | None = option(None, "Long form: column with the number.")
    unit: str | None = option(None, "Long form: column with the unit.")
    properties: dict[str, str] = option(
        {}, "Long form: names in the file to our properties."
    )
    valid: Validity | None = option(
        None, "Validity column; rows that are not valid are published but not folded."
    )
    missing: Cells = option(("",), "Texts that mean no value.", shown='[""]')
    separator: str = option(",", "Separator of CSV, one ASCII character.")
    quote: str = option(
        '"', "Quote of CSV, one ASCII character; empty: nothing quotes."
    )
    decimal: Literal[".", ","] = option(".", "Decimal mark of CSV.")

    def maps_columns(self) -> bool:
        """Tell whether CSV and Parquet can be read, not only NDJSON."""
        return self.time is not None
