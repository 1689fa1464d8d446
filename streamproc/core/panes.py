"""How a window is cut into panes, and how many of them a series may have open at once.

A pane is `gcd(every, size)` long, so a window is a whole number of panes and a reading is folded
once, however many windows overlap at it. Pane p lives in slot `p & mask`, so the panes that can
be open at once, `(size + lateness) / pane`, are rounded up to a power of two.

Coverage counts n-ths of a window (DESIGN.md, Coverage): a pane has `fine = n / gcd(n, panes)`
bits, `ratio = panes / gcd(n, panes)` of which make one n-th.
"""

from collections.abc import Sequence
from math import gcd
from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.core.definition import WindowSpec
from streamproc.kernels.windows_layout import PARTS_MAX, WORDS, Specs

I8 = npt.NDArray[np.int64]

SLOTS_MAX: Final = 4096
"""Panes of one series and spec that may be open at once (512 KiB of cells a series).

More would need `(size + lateness) / gcd(every, size)` above this: a configuration fault.
"""


def slots_of(spec: WindowSpec) -> int:
    """Return how many panes of one series can be open at once, as a power of two."""
    pane = gcd(spec.every_us, spec.size_us)
    needed = max(1, -(-(spec.size_us + spec.lateness_us) // pane))
    return 1 << (needed - 1).bit_length()


def cell_bytes(specs: Sequence[WindowSpec]) -> int:
    """Return the bytes of window state per series, quantiles not counted."""
    return 8 * WORDS * sum(slots_of(spec) for spec in specs)


def specs_of(windows: Sequence[WindowSpec]) -> Specs:
    """Return the windows as the kernels read them; each has at most SLOTS_MAX slots."""
    pane = [gcd(spec.every_us, spec.size_us) for spec in windows]
    slots = [slots_of(spec) for spec in windows]
    # Broken only by a caller that went past the configuration, which refuses this.
    for spec, count in zip(windows, slots, strict=True):
        assert count <= SLOTS_MAX, (
            f"window {spec.name}: {count} panes, at most {SLOTS_MAX}"
        )
    fine = np.ones((len(windows), PARTS_MAX + 1), np.int64)
    ratio = np.ones((len(windows), PARTS_MAX + 1), np.int64)
    for q, spec in enumerate(windows):
        panes = spec.size_us // pane[q]
        for parts in range(1, PARTS_MAX + 1):
            common = gcd(parts, panes)
            fine[q, parts], ratio[q, parts] = parts // common, panes // common
    return Specs(
        size=np.array([spec.size_us for spec in windows], np.int64),
        every=np.array([spec.every_us for spec in windows], np.int64),
        lateness=np.array([spec.lateness_us for spec in windows], np.int64),
        pane=np.array(pane, np.int64),
        sketched=np.array([bool(spec.quantiles) for spec in windows], np.int64),
        first=np.array([sum(slots[:q]) for q in range(len(slots))], np.int64),
        mask=np.array(slots, np.int64) - 1,
        fine=fine,
        ratio=ratio,
        slots=np.array([sum(slots)], np.int64),
        late_max=np.array(
            [-(-spec.size_us // spec.every_us) for spec in windows], np.int64
        ),
    )


def parts_of(interval_us: I8, windows: Sequence[WindowSpec]) -> npt.NDArray[np.uint8]:
    """Return n of DESIGN.md's coverage, uint8[device, spec]: 1..60, 0 without an interval.

    `interval_us` (int64[device]) is the declared reporting interval, 0 where there is none.

    A window shorter than the interval has one part: one reading covers it.
    """
    size = np.array([spec.size_us for spec in windows], np.int64)
    nth = np.clip(size[None, :] // np.maximum(interval_us, 1)[:, None], 1, PARTS_MAX)
    return np.where(interval_us[:, None] > 0, nth, 0).astype(np.uint8)
