"""Measures over time, and whether they grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SHARE_MAX = 0.10
FEW: Mapping[str, float] = {
    "rss": 16 << 20,
    "descriptors": 3,
    "threads": 2,
    "staging": 4 << 20,
}
"""What an hour may add whatever the average is: bytes, or pieces."""


@dataclass(frozen=True)
class Line:
    """A line fitted to one measure: `hourly` is its slope."""

    name: str
    mean: float
    hourly: float
    allowed: float

    @property
    def flat(self) -> bool:
        return self.hourly <= self.allowed


@dataclass
class Samples:
    """Measures by name, each a list of (seconds, value)."""

    of: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, seconds: float, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.of.setdefault(name, []).append((seconds, value))

    def lines(self) -> list[Line]:
        """Fit the second half of each."""
        return [fitted(name, of[len(of) // 2 :]) for name, of in self.of.items()]


def fitted(name: str, points: Sequence[tuple[float, float]]) -> Line:
    """Return the line of least squares; `name` ends with one of `FEW`."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    common = sum((x - mean_x) * (y - mean_y) for x, y in points)
    slope = common / spread if spread else 0.0
    allowed = max(FEW[name.rpartition(" ")[2]], SHARE_MAX * mean_y)
    return Line(name, mean_y, slope * 3600, allowed)
