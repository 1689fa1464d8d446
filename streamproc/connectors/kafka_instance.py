"""Two processes with one `instance_id`: the older one finds out, and ends.

Theory of operation
-------------------
A broker gives a static membership to whoever asks last. aiokafka's heartbeats name no
instance (version 1, RAN), so the older process is not told that it was replaced, only that its member
is not known, as after a session that ran out; aiokafka joins again, thereby replaces the
newer one, and so on at every heartbeat. The commit log would keep the data right all the time,
but nobody would get anywhere. So whoever has lost its membership asks the group, before
it joins again, whether its name is in somebody else's hands.
"""

from typing import Any

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_settings import KafkaOptions
from streamproc.errors import WorldError


class Instance:
    """The static membership of one consumer; without an `instance_id` there is nothing to lose."""

    def __init__(self, options: KafkaOptions, admin: KafkaAdmin) -> None:
        self._name = options.instance_id
        self._group = options.group
        self._admin = admin
        self._member = ""

    def joined(self, consumer: Any) -> None:
        """Take note of the member we are: the group has just given us our partitions."""
        self._member = _member_of(consumer)

    async def taken(self, consumer: Any) -> WorldError | None:
        """Return the error if our membership is another process' by now.

        One that has run out, or is still ours, is no error; nor one that nobody tells of.
        """
        if self._name is None or not self._member or _member_of(consumer):
            return None
        try:
            members = await self._admin.static_members(self._group)
        except WorldError:
            return None
        if members.get(self._name, self._member) == self._member:
            return None
        return WorldError(
            f"Kafka: another process of group {self._group} has joined with our "
            f"instance_id {self._name!r}; every process needs one of its own"
        )


def _member_of(consumer: Any) -> str:
    """Return aiokafka's member id; empty once the broker does not know it any more."""
    return str(consumer._coordinator.member_id)  # noqa: SLF001 (nothing public tells)
