"""What a resolver remembers of the names a decoder sent before."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from streamproc.codecs.json_flat import FlatJson
from streamproc.core.definition import CitySpec, DeviceSpec
from streamproc.core.known_names import KnownCodes, KnownDevices
from streamproc.core.processor import PartitionProcessor
from streamproc.core.resolve import Resolver
from streamproc.core.series_table import SeriesTable
from streamproc.core.values import Emission, Flag
from streamproc.kernels.resolve import FLAGS, ID
from tests.support.processors import BASE, ORIGIN, ZONES
from tests.support.wire import records_of

NOW = 1_769_853_600_000


def strings(*names: str) -> pa.StringArray:
    return pa.array(names, pa.string())


def line(device: str, kind: str, minute: int = 0) -> bytes:
    time = NOW + 60_000 * minute
    text = f'{{"device":"{device}","property":"{kind}","time":{time},"value":1}}'
    return text.encode()


def step(processor: PartitionProcessor, decoder: FlatJson, *lines: bytes) -> Emission:
    records = records_of(lines)
    return processor.step(records, decoder.decode(records), 0)


def devices_of(emission: Emission) -> list[str]:
    return [str(name) for name in emission.readings.column("device").to_pylist()]


def test_codes_of_a_vocabulary_are_looked_up_once() -> None:
    asked: list[str] = []

    class Asking(dict[str, int]):
        def get(self, name: str, default: int = -1) -> int:  # type: ignore[override]
            asked.append(name)
            return super().get(name, default)

    known = KnownCodes(Asking(pm10=4))
    names = object()

    assert known.codes(strings("pm10"), names).tolist() == [4]
    assert known.codes(strings("pm10", "x"), names).tolist() == [4, -1]
    assert asked == ["pm10", "x"]
    assert known.codes(strings("x", "pm10"), object()).tolist() == [-1, 4]
    assert known.codes(strings("pm10"), None).tolist() == [4]


def test_what_the_kernel_accepted_is_remembered_and_what_it_refused_is_not() -> None:
    table = SeriesTable(["razlog"], ["pm10"])
    known = KnownDevices(table, {}, lambda _: 0)
    names = object()

    known.devices(strings("a", "b"), names).rows[0, ID] = 7

    assert known.devices(strings("a", "b", "c"), names).rows[:, ID].tolist() == [
        7,
        -1,
        -1,
    ]
    known.forget()
    assert known.devices(strings("a", "b", "c"), names).rows[:, ID].tolist() == [
        -1,
        -1,
        -1,
    ]


def test_listed_devices_bring_their_calibration_with_the_first_batch() -> None:
    cities = (CitySpec("razlog", "Razlog", "UTC"),)
    listed = DeviceSpec("razlog", "a", scale=2.0, offset=1.0)
    made = replace(BASE, cities=cities, devices=(listed,))
    resolver = Resolver(ORIGIN.topic, made, SeriesTable(["razlog"], ["pm10", "temp"]))

    found = resolver._devices.devices(strings("b", "a"), object())

    assert found.scale.tolist() == [1.0, 2.0]
    assert found.shift.tolist() == [0.0, 1.0]
    unlisted, calibrated = found.rows[:, FLAGS].tolist()
    assert (unlisted, calibrated) == (Flag.UNREGISTERED, Flag.CALIBRATED)


def test_a_name_that_only_a_refused_record_used_becomes_no_device() -> None:
    processor = PartitionProcessor(ORIGIN, BASE, ZONES)
    decoder = FlatJson()

    first = step(processor, decoder, line("ghost", "gas"), line("d1", "pm10"))
    second = step(processor, decoder, line("d1", "pm10", 1), line("ghost", "pm10", 1))

    assert devices_of(first) == ["d1"]
    assert devices_of(second) == ["d1", "ghost"]
    dictionary = second.readings.column("device").dictionary  # type: ignore[attr-defined]
    assert dictionary.to_pylist() == ["d1", "ghost"]


def test_devices_are_the_same_after_a_snapshot_let_some_of_them_go() -> None:
    made = replace(BASE, forget_us=60 * 60_000_000)
    processor = PartitionProcessor(ORIGIN, made, ZONES)
    decoder = FlatJson()
    step(processor, decoder, line("old", "pm10"), line("d1", "pm10"))
    step(processor, decoder, line("d1", "pm10", 300))
    processor.snapshot()

    emission = step(
        processor, decoder, line("d1", "pm10", 301), line("old", "pm10", 301)
    )

    assert devices_of(emission) == ["d1", "old"]


def test_two_decoders_in_turn_do_not_mix_their_names() -> None:
    processor = PartitionProcessor(ORIGIN, BASE, ZONES)
    one, other = FlatJson(), FlatJson()

    step(processor, one, line("a", "pm10"), line("b", "temp"))
    second = step(processor, other, line("b", "temp", 1), line("a", "pm10", 1))
    third = step(processor, one, line("c", "pm10", 2), line("a", "pm10", 2))

    assert devices_of(second) == ["b", "a"]
    assert devices_of(third) == ["c", "a"]


def test_views_of_the_dictionary_stay_as_they_were() -> None:
    table = SeriesTable(["razlog"], ["pm10"])
    views = []
    expected: list[str] = []
    for size in (1, 3, 100, 1000):
        names = [f"device {len(expected) + k}" for k in range(size)]
        table.add_devices(strings(*names), np.zeros(size, np.int32))
        expected += names
        views.append((len(expected), table.dictionary()))

    for count, view in views:
        view.validate(full=True)
        assert view.to_pylist() == expected[:count]
