"""The limit on intake (`max_rate`): batches are cut so that no pause is longer than needed."""

from collections.abc import Iterator

from streamproc.core.values import Records

SLICES_PER_S = 10


class Pace:
    """Spreads records evenly: `wait_s` says how long to wait before the next slice."""

    def __init__(self, records_per_s: float | None) -> None:
        self._per_s = records_per_s
        self._next_us: int | None = None

    def slices(self, records: Records) -> Iterator[Records]:
        """Cut a batch into pieces of about a tenth of a second; whole without a limit."""
        if self._per_s is None or len(records) == 0:
            yield records
            return
        size = max(1, int(self._per_s / SLICES_PER_S))
        start = records.span.start
        for row in range(size, len(records), size):
            end = int(records.offsets[row])
            yield records.between(start, end)
            start = end
        yield records.between(start, records.span.end)

    def wait_s(self, now_us: int, count: int) -> float:
        """Account for `count` records taken now; return the pause due before them."""
        if self._per_s is None:
            return 0.0
        begin_us = now_us if self._next_us is None else max(self._next_us, now_us)
        self._next_us = begin_us + int(count / self._per_s * 1e6)
        return (begin_us - now_us) / 1e6
