"""SASL_SSL with SCRAM-SHA-512: the right credentials work, wrong ones are told apart."""

from dataclasses import replace

import pytest

from streamproc.connectors.kafka_check import check_connection
from streamproc.connectors.kafka_produce import KafkaProduce, Message
from streamproc.connectors.kafka_settings import KafkaConnection, KafkaSecurity
from streamproc.connectors.kafka_source import KafkaSource
from streamproc.errors import Unreachable, WorldError
from streamproc.testing.kafka_broker import ApacheKafka
from tests.support.kafka import (
    Recorder,
    fresh,
    open_at,
    options_for,
    take,
    until_assigned,
    values_of,
)


async def refusal(connection: KafkaConnection) -> WorldError:
    """Return the error of a start with this connection."""
    source = KafkaSource(options_for(connection, topics=("any",)))
    with pytest.raises(WorldError) as caught:
        await source.start(Recorder())
    await source.stop()
    return caught.value


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "ordinary"])
async def test_the_right_password_works_from_end_to_end(
    secure_kafka: ApacheKafka, raw: bool
) -> None:
    topic, listener = fresh("secure"), Recorder()
    async with KafkaProduce(secure_kafka.connection) as producer:
        await producer.create_topics([topic], 1)
        await producer.send([Message(topic, b"over TLS")])
    source = KafkaSource(options_for(secure_kafka.connection, topics=(topic,), raw=raw))

    await source.start(listener)
    (origin,) = await until_assigned(source, listener)
    open_at(source, 0, origin)
    batches = await take(source, 1)

    assert values_of(batches) == [b"over TLS"]
    assert (await source.bounds(origin)).end == 1
    assert len(await source.topic_id(topic)) == 22
    assert await source.hint(origin, 1, "1:00000000")
    await source.stop()


async def test_a_wrong_password_is_said_to_be_one(secure_kafka: ApacheKafka) -> None:
    right = secure_kafka.connection
    wrong = replace(right, security=replace(right.security, password="guessed"))  # noqa: S106 (wrong on purpose)

    error = await refusal(wrong)
    report = await check_connection(
        options_for(wrong, topics=("any",), ask_timeout_s=3)
    )

    assert not isinstance(error, Unreachable)
    assert "refused user 'streamproc' (SCRAM-SHA-512)" in str(error)
    assert "check user name, password and mechanism" in str(error)
    assert "guessed" not in str(error)
    assert not report.reachable
    assert "refused user 'streamproc'" in report.faults[0]


async def test_a_certificate_for_another_host_is_refused(
    secure_kafka: ApacheKafka,
) -> None:
    right = secure_kafka.connection
    by_address = right.bootstrap_servers.replace("localhost", "127.0.0.1")

    error = await refusal(replace(right, bootstrap_servers=by_address))

    assert not isinstance(error, Unreachable)
    assert "the certificate of 127.0.0.1" in str(error)


async def test_an_unknown_authority_is_refused(secure_kafka: ApacheKafka) -> None:
    right = secure_kafka.connection

    error = await refusal(
        replace(right, security=replace(right.security, ca_file=None))
    )

    assert "certificate of localhost" in str(error)


async def test_plain_text_to_a_tls_listener_is_explained(
    secure_kafka: ApacheKafka,
) -> None:
    plain = replace(secure_kafka.connection, security=KafkaSecurity())

    error = await refusal(plain)

    assert "does the listener expect TLS?" in str(error)
