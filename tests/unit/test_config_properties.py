"""The shipped property pack: names, units, ranges and conversions."""

import math

import pytest

from streamproc.config import shipped_properties
from streamproc.core.definition import PropertySpec
from streamproc.simulate.towns import TOWNS

PACK = {spec.property: spec for spec in shipped_properties()}

# Every canonical unit of the pack, each checked by hand against UCUM's tables (the brackets
# and the dot of kW.h are UCUM's). A new unit has to be looked up and added here.
UCUM = frozenset(
    {
        *("1", "%", "deg", "s", "m", "cm", "mm", "mm/h", "m3", "m3/h", "m3/s", "kg", "km/h"),
        *("m/s", "/h", "/cm3", "Cel", "hPa", "kPa", "bar", "lx", "W", "W/m2", "kW.h", "var"),
        *("V", "A", "Hz", "dB", "dB[SPL]", "ug/m3", "mg/m3", "mg/L", "[ppm]", "[ppb]", "[pH]"),
        *("[NTU]", "Bq/m3", "uS/cm", "dBm"),
    }
)  # fmt: skip

# DOMAIN.md sections 1, 2.2 and 3: what the seven towns measure and the law is about.
NEEDED = frozenset(
    {
        *("pm1", "pm2_5", "pm10", "no", "no2", "nox", "o3", "so2", "co", "co2", "c6h6"),
        *(
            "radon",
            "temperature",
            "humidity",
            "pressure",
            "wind_speed",
            "wind_direction",
        ),
        *("precipitation", "dew_point", "solar_radiation", "illuminance", "snow_depth"),
        *("road_surface_state", "soil_moisture", "water_level", "water_flow"),
        *("water_pressure", "water_consumption", "turbidity", "laeq", "lamax"),
        *("traffic_load", "traffic_intensity", "traffic_occupancy", "vehicle_speed"),
        *(
            "vehicle_count",
            "parking_state",
            "fill_level",
            "lamp_state",
            "energy",
            "battery",
        ),
        "rssi",
    }
)


def convert(name: str, unit: str, value: float) -> float:
    for other, scale, offset in PACK[name].units:
        if other == unit:
            return value * scale + offset
    raise KeyError(unit)


def test_the_pack_has_what_the_towns_measure() -> None:
    assert PACK.keys() >= NEEDED


def test_the_pack_has_what_the_simulation_sends() -> None:
    signals = {s for town in TOWNS for kind in town.kinds for s in kind.signals}

    for signal in signals:
        spec = PACK[signal.property]
        assert spec.low is not None
        assert spec.high is not None
        assert spec.low <= signal.low <= signal.high <= spec.high, signal


@pytest.mark.parametrize("spec", PACK.values(), ids=PACK)
def test_a_shipped_property_is_sane(spec: PropertySpec) -> None:
    assert spec.unit in UCUM
    assert spec.name
    assert spec.property == spec.property.lower()
    assert spec.low is not None
    assert spec.high is not None
    assert math.isfinite(spec.low)
    assert math.isfinite(spec.high)
    assert spec.low < spec.high
    units = [unit for unit, _, _ in spec.units]
    assert len(units) == len(set(units))
    assert spec.unit not in units
    assert all(
        scale > 0 and math.isfinite(scale * 1e6 + offset)
        for _, scale, offset in spec.units
    )
    assert all(spec.low <= number <= spec.high for _, number in spec.states)


def test_properties_of_one_canonical_unit_agree_on_what_other_units_mean() -> None:
    gases = {
        "no",
        "no2",
        "nox",
        "o3",
        "so2",
        "co",
        "c6h6",
        "h2s",
        "nh3",
    }  # mass of a ppb
    meaning: dict[tuple[str, str], tuple[float, float]] = {}

    for spec in PACK.values():
        for unit, scale, offset in spec.units:
            if spec.property in gases and unit in {
                "ppb",
                "[ppb]",
                "61",
                "ppm",
                "[ppm]",
                "59",
            }:
                continue
            key = (spec.unit, unit)
            assert meaning.setdefault(key, (scale, offset)) == (scale, offset), (
                spec.property,
                unit,
            )


@pytest.mark.parametrize(
    ("name", "unit", "value", "expected"),
    [
        ("no2", "ppb", 100.0, 191.0),  # DOMAIN.md section 5: 293 K, 101.3 kPa
        ("o3", "[ppb]", 60.0, 120.0),
        ("so2", "61", 10.0, 26.6),
        ("co", "ppm", 10.0, 11.6),
        ("co", "GQ", 500.0, 0.5),
        ("co", "GP", 0.5, 0.5),
        ("pm10", "mg/m3", 0.05, 50.0),
        ("temperature", "degF", 212.0, 100.0),
        ("temperature", "[degF]", 32.0, 0.0),
        ("temperature", "K", 273.15, 0.0),
        ("humidity", "1", 0.81, 81.0),
        ("humidity", "P1", 81.0, 81.0),
        ("pressure", "Pa", 101_325.0, 1013.25),
        ("wind_speed", "km/h", 36.0, 10.0),
        ("snow_depth", "m", 1.2, 120.0),
        ("water_flow", "L/h", 1500.0, 1.5),
        ("water_pressure", "kPa", 410.0, 4.1),
        ("fill_level", "1", 0.5, 50.0),
        ("energy", "MJ", 3.6, 1.0),
        ("radon", "[pCi]/L", 4.0, 148.0),
    ],
)
def test_a_unit_becomes_the_canonical_one(
    name: str, unit: str, value: float, expected: float
) -> None:
    assert convert(name, unit, value) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "molar_mass"),
    [("no", 30.006), ("no2", 46.006), ("o3", 47.998), ("so2", 64.06), ("c6h6", 78.11),
     ("h2s", 34.08), ("nh3", 17.031)],
)  # fmt: skip
def test_a_ppb_of_a_gas_has_the_mass_that_its_molar_mass_says(
    name: str, molar_mass: float
) -> None:
    litres_per_mole = 8.314462618 * 293.15 / 101.325

    assert convert(name, "ppb", 1.0) == pytest.approx(
        molar_mass / litres_per_mole, rel=0.005
    )


def test_a_plain_number_is_no_percentage_by_itself() -> None:
    """A ratio is one only where the reading says unit "1" (DOMAIN.md section 5)."""
    assert PACK["humidity"].unit == "%"
    assert convert("humidity", "1", 1.0) == 100.0
