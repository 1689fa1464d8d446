"""The store behind an output root: a folder, or a bucket."""

import os
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from streamproc.app.outside import object_options
from streamproc.config import Settings, is_bucket, load_s3
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.local_store import LocalStore
from streamproc.connectors.object_client import Waiting
from streamproc.connectors.object_store import ObjectStore

OpenStore: TypeAlias = LocalStore | ObjectStore

_CHECK_PATIENCE_S = 3.0


def open_store(settings: Settings, clock: SystemClock) -> OpenStore:
    """Return the store of the output root, not yet tried; the caller closes it.

    Raises:
        StoreFault: the root cannot be used.
    """
    root = settings.output.root
    if not is_bucket(root):
        return LocalStore(Path(root))
    return ObjectStore(object_options(root, settings.s3), real_time(clock))


def open_store_at(
    root: str, clock: SystemClock, env: Mapping[str, str] = os.environ
) -> OpenStore:
    """Return the store of a root that no configuration names; `env` says how a bucket is reached.

    Raises:
        ConfigError: what `env` says of it has faults.
        StoreFault: the root cannot be used.
    """
    if not is_bucket(root):
        return LocalStore(Path(root))
    return ObjectStore(object_options(root, load_s3(None, env)), real_time(clock))


def probe_store(settings: Settings) -> str:
    """Try that the output root keeps what the protocol rests on; return what was seen.

    Raises:
        StoreFault: it does not.
        Unreachable: it does not answer.
    """
    root, clock = settings.output.root, SystemClock()
    store: OpenStore
    if is_bucket(root):
        options = object_options(root, settings.s3)
        patience_s = min(options.patience_s, _CHECK_PATIENCE_S)
        hasty = replace(options, patience_s=patience_s)
        store = ObjectStore(hasty, real_time(clock))
    else:
        store = LocalStore(Path(root))
    try:
        return store.self_test()
    finally:
        store.close()


def real_time(clock: SystemClock) -> Waiting:
    """Return the process' own time and chance."""
    return Waiting(clock.monotonic_us, time.sleep, random.random)
