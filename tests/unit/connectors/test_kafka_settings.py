"""What the options refuse, and what they tell the two client libraries."""

import ssl
from pathlib import Path

import pytest

from streamproc.connectors.kafka_settings import (
    MEBIBYTE,
    KafkaConnection,
    KafkaOptions,
    KafkaSecurity,
    Mechanism,
    Protocol,
)
from streamproc.errors import ConfigError
from tests.support.kafka import scram

HERE = KafkaConnection(bootstrap_servers="localhost:9092")


def secure(protocol: Protocol, mechanism: Mechanism = "SCRAM-SHA-512") -> KafkaSecurity:
    return KafkaSecurity(
        protocol=protocol,
        mechanism=mechanism,
        username="town",
        password="secret",  # noqa: S106 (a test's)
    )


def test_the_consumer_never_follows_kafkas_own_positions() -> None:
    arguments = KafkaOptions(connection=HERE, group="g", topics=("t",)).aiokafka()

    assert arguments["enable_auto_commit"] is False
    assert arguments["auto_offset_reset"] == "none"
    assert arguments["isolation_level"] == "read_committed"
    assert arguments["check_crcs"] is True
    assert "value_deserializer" not in arguments
    assert "key_deserializer" not in arguments


def test_seconds_become_milliseconds() -> None:
    arguments = KafkaOptions(
        connection=HERE, group="g", topics=("t",), session_timeout_s=6, heartbeat_s=1
    ).aiokafka()

    assert arguments["session_timeout_ms"] == 6000
    assert arguments["heartbeat_interval_ms"] == 1000
    assert arguments["rebalance_timeout_ms"] == 120_000
    assert arguments["max_poll_interval_ms"] == 300_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topics": ()}, "either topics or a pattern"),
        ({"pattern": "t.*"}, "either topics or a pattern"),
        ({"session_timeout_s": 8}, "at most a third"),
        ({"heartbeat_s": 0}, "at most a third"),
        ({"partition_bytes_max": 9 * MEBIBYTE}, "between 1 and 8 MiB"),
        ({"fetch_bytes_max": MEBIBYTE}, "between 16 and 32 MiB"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    settings: dict[str, object], message: str
) -> None:
    given: dict[str, object] = {"topics": ("t",), **settings}
    with pytest.raises(ConfigError, match=message):
        KafkaOptions(connection=HERE, group="g", **given)  # type: ignore[arg-type]


def test_several_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaOptions(connection=HERE, group="g", heartbeat_s=30)

    assert len(caught.value.faults) == 2


def test_a_password_is_required_and_never_shown() -> None:
    with pytest.raises(ConfigError, match="user name and a password"):
        KafkaSecurity(protocol="SASL_SSL", username="town")

    assert "secret" not in repr(secure("SASL_SSL"))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_both_libraries_are_told_the_same(mechanism: Mechanism, tmp_path: Path) -> None:
    authority = str(scram(tmp_path).authority)
    security = KafkaSecurity(
        protocol="SASL_SSL",
        mechanism=mechanism,
        username="town",
        password="secret",  # noqa: S106 (a test's)
        ca_file=authority,
    )

    ours, theirs = security.aiokafka(), security.librdkafka()

    assert ours["security_protocol"] == theirs["security.protocol"] == "SASL_SSL"
    assert ours["sasl_mechanism"] == theirs["sasl.mechanisms"] == mechanism
    assert ours["sasl_plain_username"] == theirs["sasl.username"] == "town"
    assert ours["sasl_plain_password"] == theirs["sasl.password"] == "secret"  # noqa: S105 (a test's)
    assert theirs["ssl.ca.location"] == authority
    assert theirs["ssl.endpoint.identification.algorithm"] == "https"


def test_tls_is_new_enough_and_checks_chain_and_name(tmp_path: Path) -> None:
    files = scram(tmp_path)
    context = KafkaSecurity(
        protocol="SSL",
        ca_file=str(files.authority),
        certificate_file=str(files.keys),
    ).ssl_context()

    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_missing_certificate_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no/such/ca\.pem"):
        KafkaSecurity(protocol="SSL", ca_file="no/such/ca.pem").ssl_context()


def test_plain_text_has_neither_tls_nor_a_user() -> None:
    assert KafkaSecurity().ssl_context() is None
    assert KafkaSecurity().librdkafka() == {"security.protocol": "PLAINTEXT"}
