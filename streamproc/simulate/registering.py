"""Our wire schemas in a registry, so that framed formats carry ids it knows."""

import random

from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.connectors.schema_registry import HttpSchemaRegistry, RegistryOptions
from streamproc.core.ports import Clock, WireSchema

SUBJECTS = {"avro": READING_AVSC, "protobuf": READING_PROTO}


async def register_schemas(options: RegistryOptions, clock: Clock) -> dict[str, int]:
    """Register both schemas and return their ids by format; the same ids when called again.

    Raises:
        WorldError: the registry refused or does not answer.
    """
    async with HttpSchemaRegistry(
        options,
        monotonic_us=clock.monotonic_us,
        sleep=clock.sleep,
        jitter=random.random,
    ) as registry:
        return {
            kind: await registry.register(
                f"streamproc.wire.Reading-{kind}", WireSchema(kind, text)
            )
            for kind, text in SUBJECTS.items()
        }
