"""The shipped property pack, and what the operator adds to it."""

import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from streamproc.config.job_options import Property
from streamproc.core.definition import PropertySpec

_PPB: Final = ("[ppb]", "ppb", "61")
_PPM: Final = ("[ppm]", "ppm", "59")


@lru_cache(maxsize=1)
def shipped_properties() -> tuple[PropertySpec, ...]:
    """Return the properties of `packs/properties.toml`, sorted by name."""
    place = resources.files("streamproc").joinpath("packs", "properties.toml")
    document = tomllib.loads(place.read_text(encoding="utf-8"))
    groups = document["groups"]
    return merged(
        _shipped(name, fields, groups)
        for name, fields in document["properties"].items()
    )


def _shipped(
    name: str, fields: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
) -> Property:
    """Return one property of the pack, `accepts` and `ppb` written out as units."""
    plain = dict(fields)
    units = dict(groups[plain.pop("accepts")]) if "accepts" in plain else {}
    mass = plain.pop("ppb", None)
    if mass is not None:
        units |= {unit: {"scale": mass} for unit in _PPB}
        units |= {unit: {"scale": 1000.0 * mass} for unit in _PPM}
    units |= plain.pop("units", {})
    return Property.model_validate({"property": name, **plain, "units": units})


def merged(
    own: Iterable[Property], shipped: Iterable[PropertySpec] = ()
) -> tuple[PropertySpec, ...]:
    """Return `shipped` with `own` over it, sorted by name."""
    found = {spec.property: spec for spec in shipped}
    found |= {option.property: _spec(option) for option in own}
    return tuple(found[name] for name in sorted(found))


def _spec(option: Property) -> PropertySpec:
    return PropertySpec(
        property=option.property,
        unit=option.unit,
        name=option.name or option.property,
        low=option.low,
        high=option.high,
        states=tuple(sorted(option.states.items())),
        units=tuple(
            (unit, how.scale, how.offset) for unit, how in sorted(option.units.items())
        ),
    )
