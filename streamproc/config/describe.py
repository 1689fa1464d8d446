"""What a configuration means, in numbers: topics, windows, rules, files and memory."""

from collections.abc import Mapping
from math import gcd
from typing import Any, Final

from streamproc.config.settings import Settings
from streamproc.config.store_options import S3, is_bucket
from streamproc.config.units import DAY_US, format_duration, format_size
from streamproc.core.definition import (
    Definition,
    RuleSpec,
    WindowSpec,
    rule_version,
)
from streamproc.core.panes import cell_bytes, slots_of
from streamproc.core.restoring import Recovery
from streamproc.kernels.sketch import EXACT_MAX
from streamproc.kernels.sketch_chains import BIN_BYTES

EXAMPLE_SERIES: Final = 100_000
_SERIES_BYTES: Final = 120
"""Of one series besides windows and rings: ids, flags and the device's name (estimate)."""

_RING_BYTES: Final = 16
_BINADES: Final = 3
"""Powers of two that one window of one series usually spans (estimate)."""


def describe(settings: Settings) -> dict[str, Any]:
    """Return plain data: what will be read, computed, written and held.

    Durations and sizes are given as numbers (µs, bytes) and as text. `memory` and
    `files_per_day` are upper estimates for steady traffic.
    """
    definition = settings.definition
    return {
        "job": settings.job.name,
        "group": settings.group,
        "definition": definition.sha256(),
        "tzdata": definition.tzdata,
        "source": _source(settings),
        "cities": [
            {
                "city": city.slug,
                "name": city.name,
                "timezone": city.timezone,
                "weight": settings.weights[city.slug],
                "devices": sum(
                    device.city == city.slug for device in definition.devices
                ),
            }
            for city in definition.cities
        ],
        "windows": [_window(spec) for spec in definition.windows],
        "rules": [_rule(spec) for spec in definition.rules],
        "properties": len(definition.properties),
        "output": _output(settings),
        "files_per_day": _files(settings),
        "memory": _memory(settings),
        "recovery": _recovery(settings),
    }


def _source(settings: Settings) -> Mapping[str, Any]:
    topics, source = settings.topics, settings.source
    return {
        "bootstrap_servers": source.bootstrap_servers,
        "protocol": source.protocol,
        "start": str(source.start.at),
        "pattern": topics.pattern,
        "topics": [
            {
                "topic": name,
                "city": topics.cities.get(name),
                "format": topics.format_of(name),
            }
            for name in topics.names
        ],
    }


def _window(spec: WindowSpec) -> Mapping[str, Any]:
    pane_us = gcd(spec.every_us, spec.size_us)
    return {
        "window": spec.name,
        "size_us": spec.size_us,
        "every_us": spec.every_us,
        "lateness_us": spec.lateness_us,
        "size": format_duration(spec.size_us),
        "every": format_duration(spec.every_us),
        "lateness": format_duration(spec.lateness_us),
        "panes": spec.size_us // pane_us,
        "slots": slots_of(spec),
        "quantiles": list(spec.quantiles),
        "bytes_per_series": cell_bytes([spec]) + _sketch_bytes(spec),
        "bytes_per_series_for_quantiles": _sketch_bytes(spec),
    }


def _sketch_bytes(spec: WindowSpec) -> int:
    """Return what quantiles cost per series: exact values first, bins beyond."""
    if not spec.quantiles:
        return 0
    open_panes = spec.size_us // gcd(spec.every_us, spec.size_us) + 1
    return open_panes * (8 * EXACT_MAX + BIN_BYTES * _BINADES)


def _rule(spec: RuleSpec) -> Mapping[str, Any]:
    return {
        "rule": spec.name,
        "version": rule_version(spec),
        "property": spec.property,
        "on": "readings" if spec.window is None else f"window {spec.window}",
        "when": spec.when,
        "clear": spec.clear,
        "for": format_duration(spec.for_us),
        "no_data": None
        if spec.no_data_us is None
        else format_duration(spec.no_data_us),
        "severity": spec.severity,
        "cities": list(spec.cities),
    }


def _output(settings: Settings) -> Mapping[str, Any]:
    return {
        "root": settings.output.root,
        **_bucket(settings),
        "codec": settings.output.codec,
        "flush_rows": settings.flush.rows_max,
        "flush_bytes": format_size(settings.flush.bytes_max),
        "buffer_bytes": format_size(settings.buffer.bytes_max),
        "flush_age": format_duration(settings.flush.age_us_max),
        "snapshot_every": format_duration(settings.snapshot.age_us_max),
        "snapshot_readings": settings.snapshot.rows_max,
    }


def _recovery(settings: Settings) -> Mapping[str, Any]:
    """Return what a start takes for a partition of 100,000 series, at worst."""
    state = _per_series(settings.definition) * EXAMPLE_SERIES
    readings = settings.snapshot.rows_max
    return {
        "per": "partition with 100,000 series; inspect and metrics tell the real ones",
        "snapshot_at_most": format_size(state >> 20 << 20),
        "load_seconds": round(Recovery(state, 0).seconds, 1),
        "refold_readings_at_most": readings,
        "refold_seconds_at_most": round(Recovery(0, readings).seconds, 1),
    }


def _bucket(settings: Settings) -> Mapping[str, Any]:
    if not is_bucket(settings.output.root):
        return {}
    s3 = settings.s3 or S3()
    keys = "of the configuration" if s3.access_key_id else "of the AWS environment"
    return {
        "endpoint": s3.endpoint or f"AWS in {s3.region}",
        "keys": keys,
        "patience": format_duration(s3.patience_us),
    }


def _files(settings: Settings) -> Mapping[str, Any]:
    """Return files per partition and city: a commit writes one per dataset and window."""
    commits = -(-DAY_US // settings.flush.age_us_max)
    windows = {
        spec.name: min(commits, -(-DAY_US // spec.every_us))
        for spec in settings.definition.windows
    }
    each = commits + sum(windows.values())
    return {
        "per": "partition and city, on time; late readings and alerts add to it",
        "readings": commits,
        "aggregates": windows,
        "total": each,
        "all_cities_one_partition_each": each * len(settings.definition.cities),
    }


def _per_series(definition: Definition) -> int:
    return (
        _SERIES_BYTES
        + _RING_BYTES * definition.dedup
        + cell_bytes(definition.windows)
        + sum(_sketch_bytes(spec) for spec in definition.windows)
    )


def _memory(settings: Settings) -> Mapping[str, Any]:
    definition = settings.definition
    per_series = _per_series(definition)
    buffered, together = settings.flush.bytes_max, settings.buffer.bytes_max
    return {
        "bytes_per_series": per_series,
        "state_of_100k_series": format_size(per_series * EXAMPLE_SERIES >> 20 << 20),
        "state_of_100k_series_bytes": per_series * EXAMPLE_SERIES,
        "buffered_per_partition_bytes": buffered,
        "buffered_per_partition": format_size(buffered),
        "buffered_together_bytes": together,
        "buffered_together": format_size(together),
        "fetched_and_buffered_bytes": settings.bytes_max,
        "fetched_and_buffered": format_size(settings.bytes_max),
    }
