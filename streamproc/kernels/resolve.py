"""Resolve: decoded readings become accepted rows of known series, record by record.

A record is accepted whole or refused whole: the first fault of its first faulty reading is its
reason, and a refused record leaves no trace, neither a series nor a device.
"""

# ruff: noqa: PLR0917  (a kernel is flat)

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel
from streamproc.kernels.bytes_raw import int64, prefetch
from streamproc.kernels.sketch import Int

U2 = npt.NDArray[np.uint16]
I1 = npt.NDArray[np.int8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

# Faults, in the order in which one reading is checked.
(
    FINE,
    UNKNOWN_CITY,
    UNKNOWN_DEVICE,
    OTHER_CITY,
    UNKNOWN_PROPERTY,
    UNKNOWN_UNIT,
    BAD_TIME,
    FUTURE,
    PAST,
    BAD_VALUE,
    DEVICE_CAP,
) = range(11)

# What is done with a unit.
AS_IS, CONVERTED, REFUSED = range(3)

NO_TIME: Final = -1
UNBOUNDED: Final = -1
TIME_US_MIN: Final = -8_520_336_000_000_000
"""1700-01-01."""
TIME_US_MAX: Final = 7_258_118_400_000_000
"""2200-01-01."""

OUT_OF_RANGE_FLAG: Final = 8
UNIT_DEFAULTED_FLAG: Final = 16
CALIBRATED_FLAG: Final = 128
UNREGISTERED_FLAG: Final = 256

# Counters.
ACCEPTED, REJECTED, NEW_DEVICES, SERIES = range(4)
COUNTERS: Final = 4


class Decoded(NamedTuple):
    """One batch's readings, sorted by (row, ordinal); int32 codes into the batch's names.

    unit is -1 where none was stated. offset, broker int64: by row of the batch, not by reading.
    """

    row: I4
    ordinal: I4
    device: I4
    property: I4
    unit: I4
    event: I8
    value: F8
    quality: I1
    flags: U2
    offset: I8
    broker: I8


# Words of a device name's row: half a cache line, for a batch of many devices meets each once.
ID, CITY, FLAGS = range(3)
DEVICE_WORDS: Final = 4
DEVICE_BYTES: Final = 8 * DEVICE_WORDS

AHEAD: Final = 24
"""Readings ahead of its turn a device's row is asked for; half as many ahead its series."""


class Devices(NamedTuple):
    """The batch's device names, resolved: by batch code.

    rows int64[n, DEVICE_WORDS]: ID, -1 where new (written when accepted); CITY, or minus the
    fault; FLAGS to set. scale, shift float64[n], applied where flags say calibrated.
    """

    rows: I8
    scale: F8
    shift: F8


class Properties(NamedTuple):
    """The registry. By property: low, high float64 (infinite: none), units int8 (more than one).

    By (property, unit): action int8, scale, shift float64. By batch code: property_of,
    unit_of int32, -1 where unknown.
    """

    low: F8
    high: F8
    units: I1
    action: I1
    scale: F8
    shift: F8
    property_of: I4
    unit_of: I4


class Limits(NamedTuple):
    """future_us, past_us (UNBOUNDED: none), devices_max: int64 scalars."""

    future_us: Int
    past_us: Int
    devices_max: Int


class Accepted(NamedTuple):
    """Accepted readings, in order. reading: index into the batch; the rest as published."""

    row: I4
    ordinal: I4
    series: I4
    device: I4
    property: I4
    city: I4
    event: I8
    value: F8
    quality: I1
    flags: U2
    offset: I8
    ingest: I8


class Rejected(NamedTuple):
    """Refused records: row of the batch, fault, and the reading (index) that had it: int32."""

    row: I4
    fault: I4
    reading: I4


class Names(NamedTuple):
    """Series by (device, column of property): lookup int32[d, c], -1 where there is none.

    column int32 by property; devices int64 by city, how many it has.
    New series: new_device, new_property int32; new devices: new_name int32, batch codes.
    """

    lookup: I4
    column: I4
    devices: I8
    new_device: I4
    new_property: I4
    new_name: I4


@kernel
def series_of(
    device: Int,
    code: Int,
    first: Int,
    lookup: I4,
    column_of: I4,
    new_device: I4,
    new_property: I4,
    counters: I8,
) -> Int:
    """Return the series of a device and property (see `Names`), the next id if it is new.

    `first` is the number of series before this batch.
    """
    column = column_of[code]
    series = np.int64(lookup[device, column])
    if series < 0:
        series = counters[SERIES]
        counters[SERIES] = series + 1
        lookup[device, column] = series
        new_device[series - first] = device
        new_property[series - first] = code
    return series


@kernel
def _time_fault(event: Int, broker: Int, future_us: Int, past_us: Int) -> Int:
    if event < TIME_US_MIN or event >= TIME_US_MAX:
        return BAD_TIME
    if broker == NO_TIME:
        return FINE
    if event > broker + future_us:
        return FUTURE
    if past_us != UNBOUNDED and event < broker - past_us:
        return PAST
    return FINE


@kernel
def resolve(
    known_devices: Int,
    decoded: Decoded,
    devices: Devices,
    properties: Properties,
    limits: Limits,
    names: Names,
    accepted: Accepted,
    rejected: Rejected,
    counters: I8,
) -> None:
    """Accept or refuse every record; all outputs have room for the whole batch.

    `counters[SERIES]` holds the number of series before, and after; new devices and series
    get the next ids in order of acceptance.
    """
    # Attributes of a tuple cost a reference count at each use; locals do not.
    in_row = decoded.row
    in_ordinal = decoded.ordinal
    in_device = decoded.device
    in_property = decoded.property
    in_unit = decoded.unit
    in_event = decoded.event
    in_value = decoded.value
    in_quality = decoded.quality
    in_flags = decoded.flags
    in_offset = decoded.offset
    in_broker = decoded.broker
    device_rows = devices.rows
    device_scale = devices.scale
    device_shift = devices.shift
    kind_low = properties.low
    kind_high = properties.high
    kind_units = properties.units
    kind_action = properties.action
    kind_scale = properties.scale
    kind_shift = properties.shift
    kind_property_of = properties.property_of
    kind_unit_of = properties.unit_of
    name_devices = names.devices
    name_new_name = names.new_name
    name_new_device = names.new_device
    name_new_property = names.new_property
    name_lookup = names.lookup
    name_column = names.column
    out_row = accepted.row
    out_ordinal = accepted.ordinal
    out_series = accepted.series
    out_device = accepted.device
    out_property = accepted.property
    out_city = accepted.city
    out_event = accepted.event
    out_value = accepted.value
    out_quality = accepted.quality
    out_flags = accepted.flags
    out_offset = accepted.offset
    out_ingest = accepted.ingest
    future_us = limits.future_us
    past_us = limits.past_us
    devices_max = limits.devices_max
    first_series = counters[SERIES]
    n = np.int64(0)
    new_devices = np.int64(0)
    refused = np.int64(0)
    size = in_row.size
    device_base = device_rows.ctypes.data
    lookup_base = name_lookup.ctypes.data
    lookup_bytes = 4 * name_lookup.shape[1]
    i = np.int64(0)
    while i < size:
        if i + AHEAD < size:
            prefetch(device_base + DEVICE_BYTES * int64(in_device[i + AHEAD]))
            near = int64(device_rows[in_device[i + AHEAD // 2], ID])
            prefetch(lookup_base + lookup_bytes * near)
        row = np.int64(in_row[i])
        broker = in_broker[row]
        offset = in_offset[row]
        begin = n
        devices_before = new_devices
        fault: Int = FINE
        while i < size and in_row[i] == row:
            name = in_device[i]
            city = device_rows[name, CITY]
            if city < 0:
                fault = -city
                break
            code = np.int64(kind_property_of[in_property[i]])
            if code < 0:
                fault = UNKNOWN_PROPERTY
                break
            value = in_value[i]
            flags = np.int64(in_flags[i]) | device_rows[name, FLAGS]
            stated = in_unit[i]
            if stated < 0:
                if kind_units[code] > 0:
                    flags |= UNIT_DEFAULTED_FLAG
            else:
                unit = np.int64(kind_unit_of[stated])
                action = np.int64(kind_action[code, unit]) if unit >= 0 else REFUSED
                if action == REFUSED:
                    fault = UNKNOWN_UNIT
                    break
                if action == CONVERTED:
                    value = value * kind_scale[code, unit] + kind_shift[code, unit]
            fault = _time_fault(in_event[i], broker, future_us, past_us)
            if fault != FINE:
                break
            if flags & CALIBRATED_FLAG:
                value = value * device_scale[name] + device_shift[name]
            if not np.isfinite(value):
                fault = BAD_VALUE
                break
            if value < kind_low[code] or value > kind_high[code]:
                flags |= OUT_OF_RANGE_FLAG
            if device_rows[name, ID] < 0:
                if name_devices[city] >= devices_max:
                    fault = DEVICE_CAP
                    break
                device_rows[name, ID] = known_devices + new_devices
                name_new_name[new_devices] = name
                name_devices[city] += 1
                new_devices += 1
            out_row[n] = row
            out_ordinal[n] = in_ordinal[i]
            out_device[n] = device_rows[name, ID]
            out_property[n] = code
            out_city[n] = city
            out_event[n] = in_event[i]
            out_value[n] = value
            out_quality[n] = in_quality[i]
            out_flags[n] = flags
            out_offset[n] = offset
            out_ingest[n] = in_event[i] if broker == NO_TIME else broker
            n += 1
            i += 1
        if fault == FINE:
            for k in range(begin, n):
                known = name_lookup[out_device[k], name_column[out_property[k]]]
                # The call costs the references of its arrays: only for new series.
                out_series[k] = (
                    known
                    if known >= 0
                    else series_of(
                        np.int64(out_device[k]),
                        np.int64(out_property[k]),
                        first_series,
                        name_lookup,
                        name_column,
                        name_new_device,
                        name_new_property,
                        counters,
                    )
                )
            continue
        n = begin
        while new_devices > devices_before:
            new_devices -= 1
            name = name_new_name[new_devices]
            name_devices[device_rows[name, CITY]] -= 1
            device_rows[name, ID] = -1
        rejected.row[refused] = row
        rejected.fault[refused] = fault
        rejected.reading[refused] = i
        refused += 1
        while i < size and in_row[i] == row:
            i += 1
    counters[ACCEPTED] = n
    counters[REJECTED] = refused
    counters[NEW_DEVICES] = new_devices


@kernel
def series_of_rows(
    device: I4, code: I4, names: Names, series: I4, counters: I8
) -> None:
    """Write the series of rows that were accepted before (refold), new ones in their order."""
    first = counters[SERIES]
    lookup = names.lookup
    column_of = names.column
    new_device = names.new_device
    new_property = names.new_property
    for i in range(device.size):
        series[i] = series_of(
            np.int64(device[i]),
            np.int64(code[i]),
            first,
            lookup,
            column_of,
            new_device,
            new_property,
            counters,
        )
