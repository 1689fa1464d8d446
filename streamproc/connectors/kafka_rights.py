"""Which of Kafka's rights we lack, in words an operator can act on.

Kafka hides a topic that we may not describe: a pattern does not match it, and nothing tells it
from one that is not there yet. So rights are asked for by name, once connected. What is
needed (SECURITY.md, control 18): Read and Describe on topics, Read on the group, Write and
Describe on the alert topic; nothing on the cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamproc.connectors.kafka_admin import KafkaAdmin
from streamproc.connectors.kafka_settings import KafkaOptions
from streamproc.errors import Forbidden

READING = ("Read", "Describe")
JOINING = ("Read",)
WRITING = ("Write", "Describe")


@dataclass(frozen=True, slots=True)
class Lack:
    """Operations we may not do on a `topic` or `group`; `essential` where nothing works without."""

    kind: str
    name: str
    operations: tuple[str, ...]
    essential: bool


async def lacking(admin: KafkaAdmin, options: KafkaOptions) -> Sequence[Lack]:
    """Return what we lack; nothing where the broker does not tell rights.

    A topic that does not exist (yet) lacks nothing if its name is covered. Nor does what
    nobody answers for: a cluster that is mending itself must not keep us from starting.
    """
    names = sorted({*options.topics, *options.expected})
    alerts = options.alert_topic
    asked = [*names, *([alerts] if alerts is not None else [])]
    rights = await admin.rights_on_topics(asked)
    found = [_lack("topic", name, READING, rights[name]) for name in names]
    topics = [lack for lack in found if lack is not None]
    if topics and len(topics) == len(names):
        topics = [replace(x, essential=True) for x in topics]
    joining = await admin.rights_on_group(options.group)
    others = [_lack("group", options.group, JOINING, joining)]
    if alerts is not None:
        others.append(_lack("topic", alerts, WRITING, rights[alerts]))
    essential = [replace(x, essential=True) for x in others if x is not None]
    return [*topics, *essential]


def _lack(
    kind: str, name: str, needed: Sequence[str], rights: frozenset[str] | None
) -> Lack | None:
    if rights is None:
        return None
    missing = tuple(right for right in needed if right.upper() not in rights)
    return Lack(kind, name, missing, essential=False) if missing else None


def told(user: str | None, lack: Lack) -> str:
    """Say what is missing and the command that gives it; `user` as it logs in, if it does."""
    who = f"user {user!r}" if user else "this client"
    principal = f"User:{user}" if user else "User:…"
    operations = " ".join(f"--operation {name}" for name in lack.operations)
    return (
        f"Kafka: {who} lacks {' and '.join(lack.operations)} on {lack.kind} {lack.name}; "
        f"allow it: kafka-acls.sh --add --allow-principal {principal} {operations} "
        f"--{lack.kind} {lack.name}"
    )


def forbidden(
    user: str | None, kind: str, name: str, operations: tuple[str, ...]
) -> Forbidden:
    """Return the error for a right that a broker has just refused."""
    text = told(user, Lack(kind, name, operations, essential=True))
    return Forbidden(text, topic=name if kind == "topic" else "")


def refused(user: str | None, lacks: Sequence[Lack]) -> list[Forbidden]:
    """Return an error for each topic we can do without.

    Raises:
        Forbidden: something is missing without which there is nothing to do.
    """
    if any(lack.essential for lack in lacks):
        raise Forbidden("\n".join(told(user, lack) for lack in lacks))
    return [forbidden(user, x.kind, x.name, x.operations) for x in lacks]
