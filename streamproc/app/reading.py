"""An output root for the reading side: a folder, or a bucket."""

import os
from collections.abc import Mapping
from pathlib import Path

from streamproc.analytics.roots import BucketPath, RootPath
from streamproc.app.outside import object_options
from streamproc.app.storing import real_time
from streamproc.config import Settings, is_bucket, load_s3
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.object_store import ObjectStore
from streamproc.errors import InputError


def root_of(settings: Settings, *, connect: bool) -> RootPath | None:
    """Return the output root of a configuration; None for a bucket nobody may ask yet."""
    root = settings.output.root
    if not is_bucket(root):
        return Path(root)
    if not connect:
        return None
    options = object_options(root, settings.s3)
    return BucketPath(ObjectStore(options, real_time(SystemClock())))


def open_root(
    root: str, config: Path | None = None, env: Mapping[str, str] = os.environ
) -> RootPath:
    """Return a folder or a bucket, for everything in `analytics`; never writes.

    Args:
        root: a folder's name, or `s3://bucket/prefix`.
        config: the configuration whose `[s3]` says how the bucket is reached; without it
            `STREAMPROC_S3__*` and the AWS environment do.
        env: variables.

    Raises:
        InputError: no such folder, or nothing in the bucket has that prefix.
        ConfigError: `[s3]` has faults.
        StoreFault, Unreachable: the bucket cannot be read.
    """
    if not is_bucket(root):
        if not Path(root).is_dir():
            msg = f"{root}: is not a folder"
            raise InputError(msg)
        return Path(root)
    try:
        options = object_options(root, load_s3(config, env))
    except ValueError as error:
        msg = f"{root}: {error}"
        raise InputError(msg) from error
    path = BucketPath(ObjectStore(options, real_time(SystemClock())))
    if not path.is_dir():
        msg = f"{root}: nothing is there"
        raise InputError(msg)
    return path
