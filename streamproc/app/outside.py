"""Configuration to connectors: the broker, the registry, where alerts go."""

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from pydantic import SecretStr

from streamproc.config import S3, Settings, bucket_of
from streamproc.connectors.alert_topic import AlertTopic
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_settings import (
    KafkaConnection,
    KafkaOptions,
    KafkaSecurity,
)
from streamproc.connectors.object_client import ObjectOptions
from streamproc.connectors.schema_registry import HttpSchemaRegistry, RegistryOptions
from streamproc.connectors.webhook import Webhooks, WebhookTarget, parse_key
from streamproc.core.ports import AlertSink, SchemaRegistry
from streamproc.runtime.departures import EARLY_SINK
from streamproc.runtime.schemas import Schemas

SECOND_US = 1_000_000
PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


def kafka_options(settings: Settings) -> KafkaOptions:
    """Return the consumer's options. Raises `ConfigError` where they contradict."""
    source = settings.source
    protocol: Any = source.protocol.upper()
    security = KafkaSecurity(
        protocol=protocol,
        mechanism=source.mechanism,
        username=source.username,
        password=source.password.get_secret_value() if source.password else None,
        ca_file=source.ca_file,
        certificate_file=source.cert_file,
        key_file=source.key_file,
        key_password=(
            source.key_password.get_secret_value() if source.key_password else None
        ),
    )
    connection = KafkaConnection(
        bootstrap_servers=source.bootstrap_servers,
        security=security,
        client_id=f"streamproc-{settings.job.name}",
    )
    return KafkaOptions(
        connection=connection,
        group=settings.group,
        pattern=settings.topics.pattern,
        expected=settings.topics.names,
        alert_topic=settings.alerts.topic,
        instance_id=source.instance_id,
        session_timeout_s=source.session_timeout_us // SECOND_US,
        heartbeat_s=source.heartbeat_us / SECOND_US,
        rebalance_timeout_s=source.rebalance_timeout_us // SECOND_US,
        max_poll_interval_s=source.max_poll_interval_us // SECOND_US,
        topics_refresh_s=source.topics_refresh_us // SECOND_US,
        fetch_bytes_max=source.fetch_bytes,
        partition_bytes_max=source.partition_fetch_bytes,
    )


def object_options(root: str, s3: S3 | None) -> ObjectOptions:
    """Return how the bucket of an `s3://` root is reached."""
    bucket, prefix = bucket_of(root)
    given = s3 or S3()
    return ObjectOptions(
        bucket=bucket,
        prefix=prefix,
        region=given.region,
        endpoint=given.endpoint,
        access_key_id=given.access_key_id,
        secret_access_key=_revealed(given.secret_access_key),
        session_token=_revealed(given.session_token),
        path_style=given.path_style,
        allow_http=(given.endpoint or "").startswith("http://"),  # config has judged it
        ca_file=given.ca_file,
        timeout_s=given.timeout_us / SECOND_US,
        patience_s=given.patience_us / SECOND_US,
        at_once=given.at_once,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def open_registry(
    settings: Settings, clock: SystemClock
) -> AbstractAsyncContextManager[SchemaRegistry | None]:
    """Return the registry's client, closed by whoever enters it; None without `[registry]`."""
    registry = settings.registry
    if registry is None:
        return nullcontext()
    options = RegistryOptions(
        url=registry.url,
        username=registry.username,
        password=registry.password.get_secret_value() if registry.password else None,
        ca_file=registry.ca_file,
        cert_file=registry.cert_file,
        key_file=registry.key_file,
        timeout_s=registry.timeout_us / SECOND_US,
    )
    return HttpSchemaRegistry(
        options,
        monotonic_us=clock.monotonic_us,
        sleep=clock.sleep,
        jitter=random.random,
    )


def make_schemas(
    settings: Settings,
    registry: SchemaRegistry | None,
    clock: SystemClock,
    stopping: Callable[[], bool],
) -> Schemas:
    """Return what fetches writer schemas; without a registry every id is missing."""
    patience_us = 0 if settings.registry is None else settings.registry.patience_us
    return Schemas(registry, clock, patience_us, stopping)


def topic_sink(settings: Settings, connection: KafkaConnection) -> AlertTopic | None:
    """Return the alert topic's sink, None where none is configured."""
    topic = settings.alerts.topic
    return None if topic is None else AlertTopic(topic, connection.aiokafka())


def alert_sinks(
    settings: Settings, connection: KafkaConnection, clock: SystemClock
) -> dict[str, AlertSink]:
    """Return a sink per outbox: the alert topic, and each webhook on its own."""
    sinks: dict[str, AlertSink] = {}
    topic = topic_sink(settings, connection)
    if topic is not None:
        sinks[EARLY_SINK] = topic
    for number, hook in enumerate(settings.webhooks):
        target = WebhookTarget(
            url=hook.url,
            keys=tuple(parse_key(secret.get_secret_value()) for secret in hook.secrets),
            cities=hook.cities,
            ca_file=hook.ca_file,
            allow_http_loopback=hook.allow_http_loopback,
            allow_networks=PRIVATE_NETWORKS if hook.allow_private else (),
            timeout_s=hook.timeout_us / SECOND_US,
        )
        sinks[f"webhook-{number}"] = Webhooks(
            [target], clock=clock, jitter=random.random
        )
    return sinks
