"""The operator's TOML, with its overlays, as frozen options; units are converted here only.

`load` reads everything and lists all faults at once; `describe` says what a configuration
means; `config_schema` is what editors check a file with.
"""

from streamproc.config.check_store import load_s3
from streamproc.config.describe import describe
from streamproc.config.json_schema import config_schema
from streamproc.config.load import load
from streamproc.config.properties import shipped_properties
from streamproc.config.settings import Codecs, Settings, Topics
from streamproc.config.store_options import S3, bucket_of, is_bucket
from streamproc.config.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

__all__ = [
    "S3",
    "Codecs",
    "Settings",
    "Topics",
    "bucket_of",
    "config_schema",
    "describe",
    "format_duration",
    "format_size",
    "is_bucket",
    "load",
    "load_s3",
    "parse_duration",
    "parse_size",
    "shipped_properties",
]
