"""Time zones from the tzdata package, so that they come with the program, not the host."""

from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]  # it has no stubs

VERSION: str = tzdata.IANA_VERSION
"""The release of the zone rules; part of the definition, since dates depend on it."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return every IANA zone there is."""
    text = resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8")
    return frozenset(text.split())


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Return the zone; `name` must be one of `zone_names`."""
    assert name in zone_names(), name
    place = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with place.open("rb") as data:
        return ZoneInfo.from_file(data, key=name)
