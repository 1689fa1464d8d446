"""Step 5: whose reading is it, of what, in which unit; or why not.

The city comes from the topic, else from the device list, never from the payload. A record
is refused whole: its first faulty reading (by ordinal) names the reason. One reading is
checked in this order: city and device, property, unit, event time (1700..2200, then
`future_us` and `past_us` against broker time), value, device cap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamproc.core.definition import Definition, DeviceSpec, PropertySpec
from streamproc.core.known_names import KnownCodes, KnownDevices
from streamproc.core.series_table import SeriesTable
from streamproc.core.values import Decoded, Reason, Records, Reject
from streamproc.kernels import resolve as kernels

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
Column: TypeAlias = "pa.Array[Any]"

_REASONS = {
    kernels.UNKNOWN_CITY: Reason.UNKNOWN_CITY,
    kernels.UNKNOWN_DEVICE: Reason.UNKNOWN_DEVICE,
    kernels.OTHER_CITY: Reason.UNKNOWN_DEVICE,
    kernels.UNKNOWN_PROPERTY: Reason.UNKNOWN_PROPERTY,
    kernels.UNKNOWN_UNIT: Reason.UNKNOWN_UNIT,
    kernels.BAD_TIME: Reason.BAD_TIME,
    kernels.FUTURE: Reason.FUTURE,
    kernels.PAST: Reason.PAST,
    kernels.BAD_VALUE: Reason.BAD_VALUE,
    kernels.DEVICE_CAP: Reason.DEVICE_CAP,
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """What became of a batch: accepted rows in order, and every refused record by row."""

    accepted: kernels.Accepted
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True)
class _Refused:
    """What a message says of the reading that had a record refused."""

    device: str
    kind: str
    unit: str
    event_us: int
    broker_us: int

    @property
    def ahead_s(self) -> float:
        return (self.event_us - self.broker_us) / 1e6


_DETAILS: Mapping[int, Callable[[_Refused], str]] = {
    kernels.UNKNOWN_CITY: lambda r: (
        f"device {r.device!r}: the topic belongs to no city"
    ),
    kernels.UNKNOWN_DEVICE: lambda r: f"device {r.device!r} is not on the device list",
    kernels.UNKNOWN_PROPERTY: lambda r: f"property {r.kind!r} is not declared",
    kernels.UNKNOWN_UNIT: lambda r: f"unit {r.unit!r} is not declared for {r.kind!r}",
    kernels.BAD_TIME: lambda r: f"event time {r.event_us} us is outside 1700..2200",
    kernels.FUTURE: lambda r: f"event time is {r.ahead_s:.3f} s ahead of broker time",
    kernels.PAST: lambda r: f"event time is {-r.ahead_s:.3f} s behind broker time",
    kernels.BAD_VALUE: lambda r: (
        f"value of {r.kind!r} is not finite in its canonical unit"
    ),
}
"""What depends on the reading alone."""


@dataclass(frozen=True, slots=True)
class _Column:
    """A dictionary column: codes by row, -1 where null, and the names by code."""

    codes: I4
    names: pa.StringArray

    def named(self, rows: I4) -> list[str]:
        """Return the names of rows, empty where null."""
        codes = self.codes[rows]
        found = self.names.take(pa.array(codes, pa.int32(), mask=codes < 0))
        return [name or "" for name in found.to_pylist()]


def dictionary_column(column: Column) -> _Column:
    """Return codes (int32[n], -1 for null) and names of a dictionary array."""
    assert isinstance(column, pa.DictionaryArray), column.type
    indices = column.indices
    if indices.null_count:
        indices = indices.fill_null(-1)
    codes = np.asarray(indices).astype(np.int32, copy=False)
    names: Any = column.dictionary
    return _Column(codes, names)


def _int64(column: Column) -> I8:
    return np.asarray(column.view(pa.int64()))


class _Registry:
    """The property registry as arrays."""

    def __init__(self, properties: Sequence[PropertySpec]) -> None:
        self.codes = {spec.property: code for code, spec in enumerate(properties)}
        units = {unit for spec in properties for unit, _, _ in spec.units}
        units |= {spec.unit for spec in properties}
        self.units = {unit: code for code, unit in enumerate(sorted(units))}
        shape = (len(properties), len(self.units))
        self.action = np.full(shape, kernels.REFUSED, np.int8)
        self.scale = np.ones(shape)
        self.shift = np.zeros(shape)
        for code, spec in enumerate(properties):
            for unit, scale, shift in spec.units:
                place = (code, self.units[unit])
                self.action[place] = kernels.CONVERTED
                self.scale[place], self.shift[place] = scale, shift
            self.action[code, self.units[spec.unit]] = kernels.AS_IS
        lows = [-np.inf if spec.low is None else spec.low for spec in properties]
        highs = [np.inf if spec.high is None else spec.high for spec in properties]
        self.low, self.high = np.array(lows, float), np.array(highs, float)
        many = [any(u != spec.unit for u, _, _ in spec.units) for spec in properties]
        self.many = np.array(many, np.int8)

    def of_batch(self, property_of: I4, unit_of: I4) -> kernels.Properties:
        """Return the kernel's view for one batch's codes."""
        return kernels.Properties(
            self.low,
            self.high,
            self.many,
            self.action,
            self.scale,
            self.shift,
            property_of,
            unit_of,
        )


class Resolver:
    """Resolves the batches of one topic against a definition; new series go to `table`."""

    def __init__(self, topic: str, definition: Definition, table: SeriesTable) -> None:
        self._table = table
        self._registry = _Registry(definition.properties)
        self._cities = {spec.slug: code for code, spec in enumerate(definition.cities)}
        self.topic_city = dict(definition.topic_cities).get(topic)
        self._listed: dict[str, DeviceSpec] = {}
        for spec in definition.devices:
            # A device listed under two cities belongs to this topic's, else to the first.
            if spec.city == self.topic_city or spec.device not in self._listed:
                self._listed[spec.device] = spec
        self._devices = KnownDevices(table, self._listed, self.place)
        self._properties = KnownCodes(self._registry.codes)
        self._units = KnownCodes(self._registry.units)
        past = definition.past_us
        self._limits = kernels.Limits(
            definition.future_us,
            kernels.UNBOUNDED if past is None else past,
            definition.devices_max,
        )

    @property
    def property_codes(self) -> dict[str, int]:
        """Return the code of every property."""
        return self._registry.codes

    def place(self, device: str) -> int:
        """Return the code of a device's city, or minus the fault."""
        spec = self._listed.get(device)
        if self.topic_city is not None:
            if spec is not None and spec.city != self.topic_city:
                return -kernels.OTHER_CITY
            return self._cities[self.topic_city]
        if spec is not None:
            return self._cities[spec.city]
        return -(kernels.UNKNOWN_DEVICE if self._listed else kernels.UNKNOWN_CITY)

    def interval_us(self, device: str) -> int:
        """Return a device's declared interval, 0 without one."""
        spec = self._listed.get(device)
        return 0 if spec is None or spec.interval_us is None else spec.interval_us

    def forget_names(self) -> None:
        """Look every name up again: the table has changed other than by `resolve`."""
        for known in (self._devices, self._properties, self._units):
            known.forget()

    def resolve(self, records: Records, decoded: Decoded) -> Resolved:
        """Accept or refuse every record of a batch; new devices and series get ids."""
        batch = decoded.readings
        device = dictionary_column(batch.column("device"))
        kind = dictionary_column(batch.column("property"))
        unit = dictionary_column(batch.column("unit"))
        n, table = batch.num_rows, self._table
        rows = kernels.Decoded(
            row=np.asarray(batch.column("row")),
            ordinal=np.asarray(batch.column("ordinal")),
            device=device.codes,
            property=kind.codes,
            unit=unit.codes,
            event=_int64(batch.column("event_time")),
            value=np.asarray(batch.column("value")),
            quality=np.asarray(batch.column("quality")),
            flags=np.asarray(batch.column("flags")),
            offset=records.offsets,
            broker=records.broker_us,
        )
        lasting = decoded.vocabulary
        devices = self._devices.devices(device.names, lasting)
        properties = self._registry.of_batch(
            self._properties.codes(kind.names, lasting),
            self._units.codes(unit.names, lasting),
        )
        names = table.working(n, properties.property_of)
        accepted, rejected = _room(n, len(records))
        counters = np.array([0, 0, 0, table.series_count], np.int64)
        kernels.resolve(
            len(table.devices),
            kernels.Decoded._make(_plain(column) for column in rows),
            devices,
            properties,
            self._limits,
            names,
            accepted,
            rejected,
            counters,
        )
        fresh = names.new_name[: counters[kernels.NEW_DEVICES]]
        table.add_devices(
            device.names.take(pa.array(fresh, pa.int32())),
            devices.rows[fresh, kernels.CITY].astype(np.int32),
        )
        series = int(counters[kernels.SERIES]) - table.series_count
        table.add_series(names.new_device[:series], names.new_property[:series])
        count, refused = (
            int(counters[kernels.ACCEPTED]),
            int(counters[kernels.REJECTED]),
        )
        own = self._rejects(rejected, refused, rows, (device, kind, unit), records)
        return Resolved(
            kernels.Accepted._make(column[:count] for column in accepted),
            tuple(sorted((*decoded.rejects, *own), key=lambda reject: reject.row)),
        )

    def _rejects(
        self,
        rejected: kernels.Rejected,
        count: int,
        rows: kernels.Decoded,
        columns: tuple[_Column, _Column, _Column],
        records: Records,
    ) -> list[Reject]:
        record, fault, reading = (part[:count] for part in rejected)
        refused = map(
            _Refused,
            *(column.named(reading) for column in columns),
            rows.event[reading].tolist(),
            records.broker_us[record].tolist(),
        )
        ordinals = rows.ordinal[reading].tolist()
        return [
            Reject(
                row, _REASONS[code], f"reading {ordinal}: {self._detail(code, what)}"
            )
            for row, code, ordinal, what in zip(
                record.tolist(), fault.tolist(), ordinals, refused, strict=True
            )
        ]

    def _detail(self, fault: int, refused: _Refused) -> str:
        if fault == kernels.OTHER_CITY:
            listed = self._listed[refused.device].city
            return (
                f"device {refused.device!r} is registered under {listed!r}, "
                f"the topic belongs to {self.topic_city!r}"
            )
        if fault == kernels.DEVICE_CAP:
            most = self._limits.devices_max
            return f"device {refused.device!r} is one more than devices_max = {most}"
        return _DETAILS[fault](refused)


def _plain(column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return the column as the kernel is compiled for it: read-only, as Arrow's memory is.

    Numba would compile each mix of read-only and writable arguments anew.
    """
    plain = np.ascontiguousarray(column).view()
    plain.flags.writeable = False
    return plain


def _room(readings: int, records: int) -> tuple[kernels.Accepted, kernels.Rejected]:
    accepted = kernels.Accepted(
        row=np.empty(readings, np.int32),
        ordinal=np.empty(readings, np.int32),
        series=np.empty(readings, np.int32),
        device=np.empty(readings, np.int32),
        property=np.empty(readings, np.int32),
        city=np.empty(readings, np.int32),
        event=np.empty(readings, np.int64),
        value=np.empty(readings, np.float64),
        quality=np.empty(readings, np.int8),
        flags=np.empty(readings, np.uint16),
        offset=np.empty(readings, np.int64),
        ingest=np.empty(readings, np.int64),
    )
    rejected = kernels.Rejected(*(np.empty(records, np.int32) for _ in range(3)))
    return accepted, rejected
