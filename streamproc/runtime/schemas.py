"""Writer schemas are fetched before a batch is decoded, so that decoding stays pure."""

from collections.abc import Callable

from streamproc.core.ports import (
    Clock,
    Decoder,
    SchemaProblem,
    SchemaRegistry,
    WireSchema,
)
from streamproc.core.values import Records

RETRY_S = 1.0


class Schemas:
    """Teaches decoders the schema ids a batch needs.

    A registry that does not answer is asked again until `patience_us` has passed; only then
    do its records go to quarantine, as `registry_unavailable`.
    """

    def __init__(
        self,
        registry: SchemaRegistry | None,
        clock: Clock,
        patience_us: int,
        stopping: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._patience_us = patience_us
        self._stopping = stopping

    async def teach(self, decoder: Decoder, records: Records) -> bool:
        """Make every schema id of `records` known to `decoder`, or known to be missing.

        Returns False where the service stops meanwhile: the batch must not be decoded then,
        or an outage that might have healed would put it into quarantine.
        """
        for schema_id in sorted(decoder.missing(records)):
            answer = await self._fetch(schema_id)
            if answer is None:
                return False
            decoder.learn(schema_id, answer)
        return True

    async def _fetch(self, schema_id: int) -> WireSchema | SchemaProblem | None:
        if self._registry is None:
            return SchemaProblem(
                missing=True, detail="no [registry] is configured for this format"
            )
        began_us = self._clock.monotonic_us()
        while True:
            answer = await self._registry.fetch(schema_id)
            if isinstance(answer, WireSchema) or answer.missing:
                return answer
            waited_us = self._clock.monotonic_us() - began_us
            if waited_us >= self._patience_us:
                return answer
            if self._stopping():
                return None
            await self._clock.sleep(RETRY_S)
