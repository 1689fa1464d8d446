"""The whole file as a model."""

from pydantic import ConfigDict
from pydantic_settings import BaseSettings, SettingsConfigDict

from streamproc.config.base import Section, option, several, table
from streamproc.config.codec_options import ChirpStackUplinks, PackedLayout
from streamproc.config.job_options import (
    Alerts,
    City,
    Device,
    Job,
    Log,
    MetricsPage,
    Output,
    Processing,
    Property,
    Rule,
    Shutdown,
    Webhook,
    Window,
)
from streamproc.config.keep_options import Compaction, Retain
from streamproc.config.source_options import (
    SLUG,
    ArrowFields,
    AvroFields,
    Files,
    Intake,
    JsonFields,
    ProtobufFields,
    Registry,
    Source,
)
from streamproc.config.store_options import S3

ENV_PREFIX = "STREAMPROC_"
NESTED = "__"


class File(Section):
    """The operator's file, with every overlay merged in."""

    model_config = ConfigDict(title="streamproc configuration")

    job: Job = table(Job, "What this configuration is called.")
    source: Source = table(Source, "The Kafka cluster and its topics.")
    intake: Intake = table(Intake, "How much is held between broker and store.")
    registry: Registry | None = option(None, "Schema registry, for Avro and Protobuf.")
    json_: JsonFields = table(JsonFields, "How flat JSON documents look.")
    avro: AvroFields = table(AvroFields, "How Avro records look.")
    protobuf: ProtobufFields = table(ProtobufFields, "How Protobuf messages look.")
    arrow: ArrowFields = table(ArrowFields, "How Arrow IPC streams look.")
    packed: PackedLayout | None = option(None, "Where in packed records everything is.")
    chirpstack: ChirpStackUplinks | None = option(
        None, "What in ChirpStack's uplinks becomes a reading."
    )
    output: Output = table(Output, "Where Parquet goes and how often.")
    compaction: Compaction = table(Compaction, "When dates are compacted.")
    retain: Retain = table(Retain, "How long dates are kept; for ever by default.")
    s3: S3 | None = option(None, "How the bucket of an s3:// root is reached.")
    cities: dict[str, City] = option(
        {},
        "The towns, by slug; at least one.",
        extra={"minProperties": 1, "propertyNames": {"pattern": f"^{SLUG}$"}},
    )
    devices_file: str | None = option(
        None, "CSV or TOML with a device list; relative to this file."
    )
    devices: tuple[Device, ...] = several("Devices: city, interval, calibration.")
    properties: tuple[Property, ...] = several("Properties beyond the shipped ones.")
    processing: Processing = table(Processing, "Time, lateness and limits.")
    windows: tuple[Window, ...] = several("Aggregations over event time; at least one.")
    rules: tuple[Rule, ...] = several("Alert rules.")
    alerts: Alerts = table(Alerts, "Where alerts go besides alerts/.")
    webhooks: tuple[Webhook, ...] = several("Receivers of alerts over HTTPS.")
    metrics: MetricsPage = table(MetricsPage, "/metrics, /healthz and /readyz.")
    log: Log = table(Log, "What is logged.")
    files: Files = table(Files, "What the columns of replayed files mean.")
    shutdown: Shutdown = table(Shutdown, "How a stop goes.")


class Environment(BaseSettings, File):
    """The file's shape for the settings library, which reads variables by it.

    Never made: the library would take its own choice of layers and of `os.environ`.
    """

    model_config = SettingsConfigDict(env_nested_delimiter=NESTED)
