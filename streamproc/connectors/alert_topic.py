"""Alerts to a Kafka topic.

Key `<city>/<device>`, so the alerts of one device keep their order; the value is the JSON of
`core.alerts.alert_document`; headers `alert_id` and `transition` let a consumer drop doubles
without parsing. The producer is idempotent, so its own retries never double a record; a
send that is tried again by the caller may.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from streamproc.connectors.kafka_rights import WRITING, forbidden
from streamproc.core.alerts import alert_document
from streamproc.core.values import AlertTransition
from streamproc.errors import Unreachable, WorldError

_ABANDON_S = 2.0
"""How long a request in flight may still take when we disconnect."""


class AlertTopic:
    """An `AlertSink`; connects at the first `send`.

    Args:
        topic: where alerts go.
        arguments: of `AIOKafkaProducer`: addresses, client id, security.
        delivery_s: for one `send`, the connection included. An idempotent producer never
            gives up by itself (aiokafka `sender._can_retry`), so this bound is ours.
    """

    def __init__(
        self, topic: str, arguments: Mapping[str, Any], *, delivery_s: float = 30.0
    ) -> None:
        self._topic = topic
        self._arguments = dict(arguments)
        self._delivery_s = delivery_s
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        """Return once every replica in sync has all of them.

        Raises:
            Unreachable: not all were acknowledged in time; some may be there.
            WorldError: the broker refuses us or the topic.
        """
        if not alerts:
            return
        try:
            async with asyncio.timeout(self._delivery_s):
                await self._deliver(alerts)
        except TimeoutError as error:
            await self._abandon()
            msg = f"alert topic {self._topic}: no answer within {self._delivery_s:g} s"
            raise Unreachable(msg) from error
        except KafkaError as error:
            # After a fatal error an idempotent producer refuses all further work.
            await self._abandon()
            if isinstance(error, TopicAuthorizationFailedError):
                user = self._arguments.get("sasl_plain_username")
                raise forbidden(user, "topic", self._topic, WRITING) from error
            kind = Unreachable if error.retriable else WorldError
            msg = f"alert topic {self._topic}: {type(error).__name__}: {error}"
            raise kind(msg) from error
        except asyncio.CancelledError:
            await self._abandon()
            raise

    async def close(self) -> None:
        """Disconnect; everything acknowledged is already safe."""
        await self._abandon()

    async def _deliver(self, alerts: Sequence[AlertTransition]) -> None:
        producer = await self._connected()
        acknowledged = [
            await producer.send(
                self._topic,
                key=f"{alert.city}/{alert.device}".encode(),
                value=msgspec.json.encode(alert_document(alert)),
                headers=[
                    ("alert_id", alert.alert_id.encode()),
                    ("transition", b"%d" % alert.transition),
                ],
            )
            for alert in alerts
        ]
        # All of them are looked at, or asyncio complains of failures nobody saw.
        for outcome in await asyncio.gather(*acknowledged, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._arguments, enable_idempotence=True, acks="all"
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _abandon(self) -> None:
        """Disconnect without the flush of `stop`, which waits for ever on a dead broker."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        producer._closed = True  # noqa: SLF001  (aiokafka has no stop without a flush)
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(_ABANDON_S):
                await producer._sender.close()  # noqa: SLF001  (as above)
        await producer.client.close()
