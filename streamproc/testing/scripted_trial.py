"""A trial for tests: what is deadly is known beforehand."""

from streamproc.core.ports import WireSchema
from streamproc.core.values import Records


class ScriptedTrial:
    """Implements `core.ports.Trial`: records whose value contains `text` are deadly.

    Attributes:
        tried: how many records it was asked about.
        closed: `close` was the last thing it was told.
        schemas: what it has learnt, by id.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.tried = 0
        self.closed = False
        self.schemas: dict[int, WireSchema] = {}

    def learn(self, schema_id: int, schema: WireSchema) -> None:
        """Remember it."""
        self.schemas[schema_id] = schema

    def deadly(self, records: Records) -> tuple[int, ...]:
        """Return the rows with the text."""
        self.tried += len(records)
        self.closed = False
        return tuple(
            row
            for row, value in enumerate(records.values)
            if self._text in (value or b"")
        )

    def close(self) -> None:
        """Take note."""
        self.closed = True
