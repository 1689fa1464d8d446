"""Who may be read next, and who must wait: pure decisions over bytes.

Two rules. *Shares*: cities that all have records waiting are served by weight, by deficit round
robin (Shreedhar and Varghese, 1995): a city may be read while its credit is above zero, what it is
served is taken from its credit, and when nobody with credit has anything left a new round gives
everybody credit again, never more than one round's worth, so that silence saves nothing up.
One batch may overdraw a credit; the rounds that follow make up for it. *Room*: what is fetched,
buffered and being written has one bound, and a city may hold only so much of it as leaves a part
free for the others (a dynamic threshold, Choudhury and Hahne, 1998): a lone city gets three
quarters, and the more is taken, the less anyone may take further.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

MEBIBYTE: Final = 1 << 20

QUANTUM: Final = 1 * MEBIBYTE
"""Payload bytes a round gives the city with the greatest weight: some 10 ms of work."""

GREED: Final = 3
"""A city may hold this many times what is free, times its weight over the greatest."""

Credits = Mapping[str, int]
"""Bytes a city may still be served this round; below zero where a batch went beyond."""


def quanta(weights: Mapping[str, int], quantum: int = QUANTUM) -> dict[str, int]:
    """Return what a round gives each city: `quantum` by weight, at least one byte."""
    most = max(weights.values(), default=1)
    return {city: max(1, quantum * w // most) for city, w in weights.items()}


def served(credit: Credits, city: str, size: int) -> dict[str, int]:
    """Return the credit after `size` bytes of a city were taken."""
    return {**credit, city: credit.get(city, 0) - size}


def in_turn(credit: Credits, cities: Collection[str]) -> frozenset[str]:
    """Return which of these cities may be read before a new round."""
    return frozenset(city for city in cities if credit.get(city, 0) > 0)


def next_round(
    credit: Credits, given: Mapping[str, int], cities: Collection[str]
) -> dict[str, int]:
    """Return the credit after so many rounds that one of `cities` may be read.

    Args:
        credit: as they stand.
        given: what one round gives each city (`quanta`).
        cities: those that may have something left; rounds in which none of them would get
            above zero are passed at once.
    """
    rounds = min(
        (max(1, -credit.get(city, 0) // given[city] + 1) for city in cities), default=1
    )
    return {
        city: min(credit.get(city, 0) + rounds * more, more)
        for city, more in given.items()
    }


@dataclass(frozen=True, slots=True)
class Room:
    """The one bound of what a process holds between broker and store, in bytes.

    Attributes:
        bytes_max: of what is fetched, buffered and being written together.
        reserve: kept for what is on its way already when intake is paused.
    """

    bytes_max: int
    reserve: int = 0

    def left(self, fetched: int, buffered: int) -> int:
        """Return how much more may be taken on; none or less: intake must pause."""
        return self.bytes_max - self.reserve - fetched - buffered


def too_greedy(
    held: Mapping[str, int], weights: Mapping[str, int], bytes_max: int
) -> frozenset[str]:
    """Return the cities that hold so much of the buffers that they must wait for commits.

    Args:
        held: city to bytes buffered or being written.
        weights: city to weight; one that is missing has the least.
        bytes_max: the bound of all buffers.
    """
    free = max(0, bytes_max - sum(held.values()))
    most = max(weights.values(), default=1)
    return frozenset(
        city
        for city, size in held.items()
        if size * most > GREED * free * weights.get(city, 1)
    )
