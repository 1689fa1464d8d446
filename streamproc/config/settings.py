"""What a configuration is once it is read: frozen options for each component.

Only `app.py` sees the whole; it hands every component its own part.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

from streamproc.codecs.arrow_layout import ArrowOptions
from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.json_strict import JsonOptions
from streamproc.codecs.packed_strict import PackedOptions
from streamproc.codecs.select import Options
from streamproc.codecs.strict import FieldOptions
from streamproc.config.job_options import (
    Alerts,
    Job,
    Log,
    MetricsPage,
    Output,
    Processing,
    Shutdown,
    Webhook,
)
from streamproc.config.keep_options import Compaction, Retain
from streamproc.config.source_options import Files, Format, Registry, Source
from streamproc.config.store_options import S3
from streamproc.core.definition import Definition
from streamproc.core.flush import BufferPolicy, FlushPolicy, SnapshotPolicy


@dataclass(frozen=True, slots=True)
class Topics:
    """What is read, and as what.

    Attributes:
        cities: topic to slug, for every topic of a template.
        shared: topics whose devices a list places, sorted.
        default: format of a topic that `formats` does not name.
        pattern: what a topic's whole name must match to be read.
    """

    cities: Mapping[str, str]
    shared: tuple[str, ...]
    default: Format
    formats: Mapping[str, Format]
    pattern: str

    @property
    def names(self) -> tuple[str, ...]:
        """Return every topic that is known by name, sorted."""
        return tuple(sorted({*self.cities, *self.shared}))

    def format_of(self, topic: str) -> Format:
        """Return what the records of a topic are."""
        return self.formats.get(topic, self.default)


@dataclass(frozen=True, slots=True)
class Codecs:
    """Each codec's options; of packed and chirpstack where the file has the section."""

    json: JsonOptions
    avro: FieldOptions
    protobuf: FieldOptions
    arrow: ArrowOptions
    packed: PackedOptions | None = None
    chirpstack: ChirpStackOptions | None = None

    def of(self, name: Format) -> Options | None:
        """Return the options of one format."""
        options: dict[Format, Options | None] = {
            "json": self.json,
            "avro": self.avro,
            "protobuf": self.protobuf,
            "arrow": self.arrow,
            "packed": self.packed,
            "chirpstack": self.chirpstack,
        }
        return options[name]


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, checked. Durations are µs, sizes bytes, files absolute.

    Attributes:
        path: the file; None where there was none.
        group: the consumer group.
        bytes_max: of what is fetched, buffered and being written together.
        weights: slug to share of the intake.
        definition: all that the processor's answers depend on.
        zones: slug to zone, from the tzdata package.
    """

    path: Path | None
    job: Job
    source: Source
    group: str
    topics: Topics
    registry: Registry | None
    codecs: Codecs
    output: Output
    s3: S3 | None
    flush: FlushPolicy
    buffer: BufferPolicy
    bytes_max: int
    snapshot: SnapshotPolicy
    compaction: Compaction
    retain: Retain
    processing: Processing
    alerts: Alerts
    webhooks: tuple[Webhook, ...]
    metrics: MetricsPage
    log: Log
    files: Files
    shutdown: Shutdown
    weights: Mapping[str, int]
    definition: Definition
    zones: Mapping[str, ZoneInfo]


def topic_pattern(source: Source, slugs: Sequence[str], city: str) -> str:
    """Return the pattern of the topics to read; `city` is the template's placeholder.

    Topics of slugs that are not configured are read too, unless they are to be ignored:
    their records go to quarantine instead of waiting unseen.
    """
    any_slug = r"[a-z0-9-]{1,32}"
    if source.unknown_topics == "ignore":
        any_slug = "(?:" + "|".join(re.escape(slug) for slug in slugs) + ")"
    parts = sorted(
        any_slug.join(re.escape(piece) for piece in template.split(city))
        for template in source.topics
    )
    return parts[0] if len(parts) == 1 else "|".join(f"(?:{part})" for part in parts)
