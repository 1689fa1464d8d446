"""How long a start takes for one partition: its snapshot is loaded, what follows it folded again.

The two rates are from docs/performance.md, rounded down (the profile `full`, 115 MB/s, and three
windows with quantiles, some 620 ns a reading beside reading the files). A machine half as fast
takes twice as long; the point is to see an hour coming, not a second.
"""

from dataclasses import dataclass
from typing import Final

LOAD_BYTES_PER_S: Final = 100_000_000
REFOLD_READINGS_PER_S: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start has to read: bytes of the snapshot, and readings published since."""

    snapshot_bytes: int
    readings: int

    @property
    def seconds(self) -> float:
        """Return how long that is expected to take."""
        return (
            self.snapshot_bytes / LOAD_BYTES_PER_S
            + self.readings / REFOLD_READINGS_PER_S
        )
