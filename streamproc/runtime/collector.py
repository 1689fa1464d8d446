"""The process' memory, set for a service that makes columns by the megabyte."""

import ctypes
import gc
import sys
from importlib.abc import MetaPathFinder
from typing import Final

import pyarrow as pa

_YOUNG_OBJECTS = 50_000
"""More than a fetch makes on the ordinary path (20,000), so few collections meet its records."""

_MIDDLE_COLLECTIONS = 20
_OLD_COLLECTIONS = 100

# Parameters of glibc's mallopt(3), and their values: the largest that are allowed.
_TRIM_THRESHOLD: Final = (-1, (1 << 31) - 1)
_MMAP_THRESHOLD: Final = (-3, 32 << 20)
_ARENAS_MAX: Final = (-8, 1)


class _WithoutPandas(MetaPathFinder):
    """Lets Python's search find everything but pandas."""

    def find_spec(self, fullname: str, *_: object) -> None:
        """Leave the search to the next finder. Raises `ModuleNotFoundError` for pandas."""
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


def set_for_streaming() -> None:
    """Keep the collector and the allocator from work that comes back with every batch.

    Call it once, after all imports.
    """
    _leave_pandas_alone()
    _leave_records_to_reference_counting()
    _keep_pages()


def _leave_pandas_alone() -> None:
    """Keep pyarrow from importing pandas, which it does for the first array it makes of anything.

    Nothing here uses it, and where analysts have installed it beside us it costs 0.3 CPU-s at
    the start and 40 MB.
    """
    sys.meta_path.insert(0, _WithoutPandas())


def _leave_records_to_reference_counting() -> None:
    """Keep the collector from walking over records that reference counting frees anyway.

    Where raw batches are not to be had, aiokafka makes an object per record. With Python's own
    thresholds (700 objects) those of one fetch are walked over again and again, and with them
    everything that was imported: measured with 1.5 M JSON records from Kafka, 3.8 us of CPU a
    record before and 2.7 after. Objects that exist now are never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _MIDDLE_COLLECTIONS, _OLD_COLLECTIONS)


def _keep_pages() -> None:
    """Use freed memory again instead of giving it back: the kernel clears what it hands out.

    Columns of a batch are freed and asked for again a moment later. Measured with 3 M JSON
    records from Kafka: 16 % of all CPU went into clearing pages; system time 1.1 s before and
    0.7 after, and less memory in all, as one allocator serves numpy and Arrow.
    Without glibc nothing changes.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(*_TRIM_THRESHOLD)
        mallopt(*_MMAP_THRESHOLD)
        # What one thread frees the others use: they hand columns on, and rarely meet.
        mallopt(*_ARENAS_MAX)
