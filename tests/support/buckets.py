"""Stores in a bucket, in real time."""

import random
import time

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.object_client import ObjectOptions, Waiting
from streamproc.connectors.object_store import ObjectStore


def real_time() -> Waiting:
    """Return the process' own time and chance."""
    return Waiting(SystemClock().monotonic_us, time.sleep, random.random)


def store_at(options: ObjectOptions) -> ObjectStore:
    """Return a store in real time."""
    return ObjectStore(options, real_time())
