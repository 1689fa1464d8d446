"""How much of what: counts of one batch by city, for metrics and the operator's tables."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamproc.core.values import UNKNOWN_CITY, Flag, Ignored, Reject
from streamproc.kernels.resolve import Accepted

I4 = npt.NDArray[np.int32]
B1 = npt.NDArray[np.bool_]


def by_city(codes: I4, slugs: Sequence[str]) -> dict[str, int]:
    """Return how often each city's code occurs, by slug; cities that do not are left out."""
    counts = np.bincount(codes, minlength=len(slugs))
    return {slug: int(n) for slug, n in zip(slugs, counts, strict=True) if n}


def late_rows(rows: Accepted) -> B1:
    """Return bool by row: it missed a window."""
    late: B1 = (rows.flags & np.uint16(Flag.LATE)) != 0
    return late


def by_reason(
    rejects: Sequence[Reject], topic_city: str | None
) -> dict[tuple[str, str], int]:
    """Return rejects by (city of the topic, reason)."""
    city = topic_city or UNKNOWN_CITY
    return dict(Counter((city, reject.reason.value) for reject in rejects))


def by_kind(
    ignored: Sequence[Ignored], topic_city: str | None
) -> dict[tuple[str, str], int]:
    """Return ignored records by (city of the topic, kind)."""
    city = topic_city or UNKNOWN_CITY
    return dict(Counter((city, record.kind) for record in ignored))
