"""The seven towns as plausible sources: zones, kinds of device, and how properties behave.

What each town measures follows DOMAIN.md section 1; levels and cycles are plausible,
not measured.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Signal:
    """How one property behaves: level, daily and weekly swing, noise, decimals, bounds.

    Units are the property's canonical unit. `peak_hour` is local solar time.
    """

    property: str
    level: float
    daily: float
    weekly: float
    noise: float
    decimals: int
    low: float
    high: float
    peak_hour: float = 15.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device: the signals it reports together and its share of a town's devices."""

    name: str
    signals: tuple[Signal, ...]
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Town:
    """A town: slug, name, IANA zone, solar offset in hours, wire format, kinds of device."""

    slug: str
    name: str
    timezone: str
    solar_h: float
    format: str
    kinds: tuple[Kind, ...]


AIR = Kind(
    "air",
    (
        Signal("pm10", 28.0, 9.0, 4.0, 3.0, 1, 0.0, 900.0, 19.0),
        Signal("pm2_5", 16.0, 6.0, 2.0, 2.0, 1, 0.0, 900.0, 20.0),
        Signal("no2", 24.0, 11.0, 6.0, 3.0, 1, 0.0, 900.0, 8.5),
    ),
)
WEATHER = Kind(
    "weather",
    (
        Signal("temperature", 9.0, 5.0, 0.5, 0.2, 2, -45.0, 50.0),
        Signal("humidity", 72.0, -12.0, 1.0, 1.2, 1, 0.0, 100.0),
        Signal("pressure", 1008.0, 0.8, 2.0, 0.1, 1, 870.0, 1085.0),
        Signal("wind_speed", 3.4, 1.3, 0.4, 0.8, 1, 0.0, 60.0),
    ),
)
INDOOR = Kind(
    "home",
    (
        Signal("temperature", 20.5, 1.5, 0.4, 0.1, 2, 5.0, 40.0, 18.0),
        Signal("humidity", 48.0, 4.0, 1.0, 0.6, 1, 0.0, 100.0, 7.0),
        Signal("co2", 640.0, 220.0, 60.0, 25.0, 0, 380.0, 9000.0, 21.0),
    ),
)
SNOW = Kind("snow", (Signal("snow_depth", 18.0, -0.6, 0.2, 0.2, 1, 0.0, 400.0),))
WATER = Kind(
    "water",
    (
        Signal("water_pressure", 4.1, -0.5, 0.1, 0.05, 3, 0.0, 25.0, 8.0),
        Signal("water_flow", 7.5, 4.0, 0.8, 0.4, 3, 0.0, 2000.0, 8.0),
    ),
)
TRAFFIC = Kind(
    "road",
    (
        Signal("vehicle_count", 22.0, 17.0, 8.0, 3.0, 0, 0.0, 5000.0, 16.5),
        Signal("vehicle_speed", 44.0, -6.0, 2.0, 2.5, 1, 0.0, 200.0, 16.5),
    ),
)
NOISE = Kind("noise", (Signal("laeq", 54.0, 7.0, 2.0, 1.5, 1, 20.0, 130.0, 14.0),))
WASTE = Kind("bin", (Signal("fill_level", 46.0, 14.0, 12.0, 0.8, 0, 0.0, 100.0, 20.0),))
LIGHT = Kind(
    "lamp", (Signal("illuminance", 260.0, 250.0, 5.0, 9.0, 0, 0.0, 120000.0, 13.0),)
)

TOWNS: tuple[Town, ...] = (
    Town("fundao", "Fundão", "Europe/Lisbon", -0.5, "json", (INDOOR, WEATHER)),
    Town("ange", "Ånge", "Europe/Stockholm", 1.0, "protobuf", (SNOW, WEATHER)),
    Town("dodoni", "Dodoni", "Europe/Athens", 1.4, "json", (WEATHER, WATER)),
    Town("jelgava", "Jelgava", "Europe/Riga", 1.6, "avro", (WEATHER, AIR)),
    Town("kezmarok", "Kežmarok", "Europe/Bratislava", 1.4, "json", (TRAFFIC, LIGHT)),
    Town("nevers", "Nevers", "Europe/Paris", 0.2, "arrow", (WATER, NOISE)),
    Town("razlog", "Razlog", "Europe/Sofia", 1.6, "json", (AIR, WASTE, TRAFFIC)),
)


def towns(count: int) -> tuple[Town, ...]:
    """Return `count` towns; beyond the seven, numbered copies of them (`razlog-2`)."""
    found = []
    for index in range(count):
        town = TOWNS[index % len(TOWNS)]
        lap = index // len(TOWNS)
        if lap == 0:
            found.append(town)
            continue
        number = lap + 1
        found.append(
            replace(town, slug=f"{town.slug}-{number}", name=f"{town.name} {number}")
        )
    return tuple(found)
