"""`load`: file, secret files, environment and command line to `Settings`, or every fault."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamproc.codecs.arrow_layout import ArrowOptions
from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.json_strict import JsonOptions
from streamproc.codecs.strict import FieldOptions
from streamproc.config.beside import Beside
from streamproc.config.check_codecs import check_codecs
from streamproc.config.check_files import check_files
from streamproc.config.check_job import check_job, window_spec
from streamproc.config.check_source import (
    CITY,
    bytes_max,
    check_source,
    shared_topics,
    topic_cities,
)
from streamproc.config.file import File
from streamproc.config.job_options import Rule
from streamproc.config.layers import read_layers
from streamproc.config.parsed import parse
from streamproc.config.properties import merged, shipped_properties
from streamproc.config.settings import Codecs, Settings, Topics, topic_pattern
from streamproc.config.zones import VERSION, zone
from streamproc.core.definition import (
    CitySpec,
    Definition,
    DeviceSpec,
    PropertySpec,
    RuleSpec,
)
from streamproc.core.flush import BufferPolicy, FlushPolicy, SnapshotPolicy
from streamproc.errors import ConfigError


def load(
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read a configuration whole.

    Args:
        path: the operator's TOML; None for nothing but the other layers.
        env: variables `STREAMPROC_<SECTION>__<KEY>`, also `STREAMPROC_SECRETS_DIR` (or
            systemd's `CREDENTIALS_DIRECTORY`): a folder of files with such names, in any
            case, that hold one value each.
        overrides: dotted key (`output.root`) to value as the file would have it; strongest.

    Raises:
        ConfigError: `faults` holds every fault, one line each.
    """
    layers = read_layers(path, env, overrides or {})
    if not layers.readable:
        raise ConfigError(*layers.lines)
    parsed = parse(layers)
    properties = merged(parsed.file.properties, shipped_properties())
    check_job(parsed)
    check_source(parsed)
    known = {spec.property: spec for spec in properties}
    check_codecs(parsed, known)
    check_files(parsed, known)
    beside = Beside(Path() if path is None else path.parent, parsed, layers)
    file, devices = beside.resolved(), beside.devices()
    lines = [*layers.lines, *(layers.line(fault) for fault in parsed.faults)]
    if lines:
        raise ConfigError(*dict.fromkeys(lines))
    return _settings(path, file, devices, properties)


def _settings(
    path: Path | None,
    file: File,
    devices: tuple[DeviceSpec, ...],
    properties: tuple[PropertySpec, ...],
) -> Settings:
    output = file.output
    return Settings(
        path=path,
        job=file.job,
        source=file.source,
        group=file.source.group or f"streamproc-{file.job.name}",
        topics=_topics(file),
        registry=file.registry,
        codecs=_codecs(file, properties),
        output=output,
        s3=file.s3,
        flush=FlushPolicy(output.flush_rows, output.flush_bytes, output.flush_age_us),
        buffer=BufferPolicy(output.buffer_bytes),
        bytes_max=bytes_max(file),
        snapshot=SnapshotPolicy(output.snapshot_rows, output.snapshot_every_us),
        compaction=file.compaction,
        retain=file.retain,
        processing=file.processing,
        alerts=file.alerts,
        webhooks=file.webhooks,
        metrics=file.metrics,
        log=file.log,
        files=file.files,
        shutdown=file.shutdown,
        weights={slug: file.cities[slug].weight for slug in sorted(file.cities)},
        definition=_definition(file, devices, properties),
        zones={slug: zone(file.cities[slug].timezone) for slug in sorted(file.cities)},
    )


def _topics(file: File) -> Topics:
    placed = topic_cities(file)
    return Topics(
        cities=placed,
        shared=shared_topics(file),
        default=file.source.format,
        formats=dict(file.source.formats),
        pattern=topic_pattern(file.source, sorted(file.cities), CITY),
    )


def _codecs(file: File, properties: tuple[PropertySpec, ...]) -> Codecs:
    states = {spec.property: dict(spec.states) for spec in properties if spec.states}
    return Codecs(
        json=JsonOptions(**file.json_.model_dump(), states=states),
        avro=FieldOptions(**file.avro.model_dump()),
        protobuf=FieldOptions(**file.protobuf.model_dump()),
        arrow=ArrowOptions(**file.arrow.model_dump()),
        packed=None if file.packed is None else file.packed.options(),
        chirpstack=None
        if file.chirpstack is None
        else ChirpStackOptions(**file.chirpstack.model_dump(), states=states),
    )


def _definition(
    file: File,
    devices: tuple[DeviceSpec, ...],
    properties: tuple[PropertySpec, ...],
) -> Definition:
    """Build the definition, sorted by name, so that rearranging the file changes nothing."""
    placed = topic_cities(file)
    if file.files.city_fixed is not None:
        placed[file.files.stream] = file.files.city_fixed
    processing = file.processing
    return Definition(
        job=file.job.name,
        windows=tuple(
            sorted(map(window_spec, file.windows), key=lambda spec: spec.name)
        ),
        rules=tuple(sorted(map(_rule, file.rules), key=lambda spec: spec.name)),
        properties=properties,
        cities=tuple(
            CitySpec(slug, file.cities[slug].name or slug, file.cities[slug].timezone)
            for slug in sorted(file.cities)
        ),
        devices=devices,
        topic_cities=tuple(sorted(placed.items())),
        watermark=processing.watermark,
        dedup=processing.dedup,
        future_us=processing.future_max_us,
        past_us=processing.past_max_us,
        forget_us=processing.forget_after_us,
        devices_max=processing.devices_max,
        tzdata=VERSION,
    )


def _rule(rule: Rule) -> RuleSpec:
    return RuleSpec(
        name=rule.name,
        property=rule.property,
        window=rule.window,
        when=rule.when,
        clear=rule.clear,
        for_us=rule.for_us,
        severity=rule.severity,
        no_data_us=rule.no_data_us,
        cities=tuple(sorted(rule.cities)),
    )
