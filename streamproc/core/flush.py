"""When a span is committed: a pure decision over numbers, its answer a metric label."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

K = TypeVar("K")
MEBIBYTE = 1 << 20

BYTES_PER_REFOLD = 200
"""Bytes of state that are written and read again in the time of one reading's refold: 3 ns a
byte against 600 ns."""


class FlushReason(StrEnum):
    """Why a commit happens now."""

    ROWS = "rows"
    BYTES = "bytes"
    BUFFER = "buffer"
    AGE = "age"
    TIMER = "timer"
    CONFIG = "config"
    DRAIN = "drain"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Upper bounds of one commit.

    The default age gives at most one file per dataset, window, partition, city, date and
    minute; rows and bytes only cut in when a minute holds more than them. They bound one
    partition, `BufferPolicy` bounds all of them.

    `again_max`: readings that are fetched, decoded and folded again in the time that committing
    them takes (about 20 ms for 20,000). A revocation leaves what is not more to the next owner.
    """

    rows_max: int = 2_000_000
    bytes_max: int = 64 * MEBIBYTE
    age_us_max: int = 60_000_000
    again_max: int = 20_000

    def due(self, *, rows: int, size_bytes: int, age_us: int) -> FlushReason | None:
        """Return why the open span should be committed, None while it should not."""
        if rows >= self.rows_max:
            return FlushReason.ROWS
        if size_bytes >= self.bytes_max:
            return FlushReason.BYTES
        if age_us >= self.age_us_max:
            return FlushReason.AGE
        return None

    def worth(self, *, rows: int) -> bool:
        """Tell whether committing so many readings costs less than doing them again."""
        return rows > self.again_max


@dataclass(frozen=True, slots=True)
class BufferPolicy:
    """Upper bound of what all partitions of the process hold together.

    Asked after every batch, one commit is enough: whoever holds most holds at least what
    the batch has added to what was within the bound before.
    """

    bytes_max: int = 256 * MEBIBYTE

    @property
    def halved(self) -> "BufferPolicy":
        """Return the policy of half the bound."""
        return BufferPolicy(self.bytes_max // 2)

    def fullest(self, held: Mapping[K, int]) -> K | None:
        """Return whose span is committed next, None while all fit; `held` is in bytes."""
        if sum(held.values()) <= self.bytes_max:
            return None
        return max(held, key=lambda one: held[one])


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When a commit also writes the state, so that a refold stays short.

    `rows_max` readings or `age_us_max` since the last snapshot, whichever is first; a drain
    always writes one (EXACTLY_ONCE.md, "Snapshots need not be part of every commit"). When
    partitions are revoked, which most get back at once, only where it is cheaper than folding.
    """

    rows_max: int = 10_000_000
    age_us_max: int = 600_000_000

    def due(self, *, rows: int, age_us: int) -> bool:
        """Tell whether this commit should carry a snapshot."""
        return rows >= self.rows_max or age_us >= self.age_us_max

    def worth(self, *, rows: int, state_bytes: int) -> bool:
        """Tell whether writing and reading the state costs less than folding again."""
        return rows * BYTES_PER_REFOLD > state_bytes
