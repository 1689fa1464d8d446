"""What a refold depends on, as plain frozen values: the job's definition.

`config.py` builds it from the operator's file; the commit log keeps it content-addressed
(`config` records name its sha256); the processor and nothing else interprets it.
Every duration is int64 microseconds.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self

Watermark = Literal["city", "device"]

STATE_VERSION = 1
"""Raised when a snapshot written by older code can no longer be read as it is.

Then `core.state_versions` gets the step from the version before, and `STEPS` here.
"""

STEPS: Final[dict[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]]] = {}
"""State version → what makes a definition's JSON of the next one of it."""


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """One window definition, as the operator wrote it.

    Window k covers event times `[k * every_us, k * every_us + size_us)`, counted from 1970 UTC,
    and closes when its end plus `lateness_us` is reached by the watermark.
    Tumbling where `size_us == every_us`; else hopping, folded in panes of gcd(every, size).
    """

    name: str
    size_us: int
    every_us: int
    lateness_us: int
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One alert rule.

    Attributes:
        window: None for a rule on readings (variables: value); else on the window's aggregates
            (variables: count, invalid, sum, min, max, mean, m2, variance, stddev, first, last,
            coverage, p50 … any pNN the window's `quantiles` declare).
        when: expression that opens an episode; None for a pure `no_data` rule.
        clear: expression that ends it; None means "when `when` is false".
        for_us: how long `when` must hold; 0 fires at once.
        no_data_us: silence of a series seen before that opens an episode; None = never.
        cities: slugs it applies to; empty = all.
    """

    name: str
    property: str
    window: str | None
    when: str | None
    clear: str | None
    for_us: int
    severity: str
    no_data_us: int | None = None
    cities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PropertySpec:
    """One property: its canonical UCUM unit, plausible range and named states.

    `units` maps each further unit it may arrive in to `(scale, offset)`:
    canonical = value * scale + offset.
    """

    property: str
    unit: str
    name: str = ""
    low: float | None = None
    high: float | None = None
    states: tuple[tuple[str, float], ...] = ()
    units: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class CitySpec:
    """One town: `slug` is `[a-z0-9-]{1,32}`, `timezone` an IANA name."""

    slug: str
    name: str
    timezone: str


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One registered device; `interval_us` is its declared reporting interval, None if unknown.

    `scale` and `offset` calibrate: stored = canonical * scale + offset (flag `calibrated`).
    """

    city: str
    device: str
    interval_us: int | None = None
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Definition:
    """Everything the processor's answers depend on.

    Attributes:
        topic_cities: topic → slug, for topics that belong to one city. Records of any other
            topic are placed by the device list; a device that is not on it is quarantined.
        dedup: how many last accepted event times per series a reading is compared with (1..16).
        future_us: event times beyond broker time + this are quarantined.
        past_us: event times before broker time - this are quarantined; None = no bound.
        forget_us: series silent for this long (event time) leave the state at a snapshot.
        devices_max: devices per city and partition; the overflow is quarantined.
    """

    job: str
    windows: tuple[WindowSpec, ...]
    rules: tuple[RuleSpec, ...]
    properties: tuple[PropertySpec, ...]
    cities: tuple[CitySpec, ...]
    devices: tuple[DeviceSpec, ...] = ()
    topic_cities: tuple[tuple[str, str], ...] = ()
    watermark: Watermark = "city"
    dedup: int = 1
    future_us: int = 300_000_000
    past_us: int | None = None
    forget_us: int = 30 * 86_400_000_000
    devices_max: int = 1_000_000
    tzdata: str = ""

    def canonical(self) -> bytes:
        """Return the one JSON text of this definition: sorted keys, no spaces, UTF-8.

        Computed once, for 100,000 devices take more than a second.
        """
        return self._text

    def sha256(self) -> str:
        """Return the hex digest that records and files carry."""
        return self._sha256

    @cached_property
    def _text(self) -> bytes:
        document: dict[str, Any] = {"state_version": STATE_VERSION, **asdict(self)}
        return json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(self._text).hexdigest()

    @classmethod
    def from_canonical(cls, text: bytes) -> Self:
        """Rebuild a definition from `canonical()`; exact inverse, also of an older program's.

        Raises:
            ValueError: the text was written for a `STATE_VERSION` there is no way from.
        """
        document: Mapping[str, Any] = json.loads(text)
        version = document["state_version"]
        for step in range(version, STATE_VERSION):
            if step in STEPS:
                document = {**STEPS[step](document), "state_version": step + 1}
        if document["state_version"] != STATE_VERSION:
            msg = (
                f"definition has state version {version}, "
                f"this program reads {STATE_VERSION}"
            )
            raise ValueError(msg)
        plain = {k: v for k, v in document.items() if k != "state_version"}
        nested = {
            "windows": WindowSpec,
            "rules": RuleSpec,
            "properties": PropertySpec,
            "cities": CitySpec,
            "devices": DeviceSpec,
        }
        for key, kind in nested.items():
            plain[key] = tuple(kind(**_tuples(item)) for item in plain[key])
        return cls(**_tuples(plain))


def rule_version(rule: RuleSpec) -> str:
    """Return the 16 hex digits that name this rule's exact meaning in alert ids."""
    text = json.dumps(asdict(rule), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tuples(value: Any) -> Any:
    """Turn JSON's lists back into the tuples they were, one mapping deep and below."""
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value
