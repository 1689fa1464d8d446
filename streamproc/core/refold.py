"""Published readings as accepted rows again, to rebuild the state that no file holds.

Files name city, device and property, so nothing is resolved a second time: a reading that was
published is accepted, whatever the rules of today say of it. Ids are given in order of first
acceptance, as `step` gave them. Quality and value are as published; flags are found anew by the
fold, and time of ingestion has no use there.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from streamproc.core.resolve import Resolver, dictionary_column
from streamproc.core.series_table import SeriesTable
from streamproc.kernels import resolve as kernels
from streamproc.kernels.resolve import Accepted


def accepted_before(
    table: SeriesTable, resolver: Resolver, batch: pa.RecordBatch
) -> Accepted:
    """Return published rows (ROUTED_READING, whole in order) as the fold takes them.

    Enters their devices and series into `table`, in order of first acceptance.
    """
    resolver.forget_names()
    device = dictionary_column(batch.column("device"))
    kind = dictionary_column(batch.column("property"))
    codes = resolver.property_codes
    kinds = np.array([codes.get(n, -1) for n in _texts(kind.names)], np.int32)
    names = _texts(device.names)
    ids = np.array([table.device_ids.get(n, -1) for n in names], np.int32)
    used, first = np.unique(device.codes, return_index=True)
    fresh = [int(code) for code in used[np.argsort(first)] if ids[code] < 0]
    places = np.array([resolver.place(names[c]) for c in fresh], np.int32)
    assert (places >= 0).all(), "a published reading has a city"
    ids[fresh] = np.arange(len(table.devices), len(table.devices) + len(fresh))
    new = pa.array([names[code] for code in fresh], pa.string())
    table.add_devices(new, places)
    np.add.at(table.city_devices, places, 1)
    count = batch.num_rows
    working = table.working(count, np.unique(kinds))
    row_device, row_kind = ids[device.codes], kinds[kind.codes]
    series = np.empty(count, np.int32)
    counters = np.array([0, 0, 0, table.series_count], np.int64)
    kernels.series_of_rows(row_device, row_kind, working, series, counters)
    more = int(counters[kernels.SERIES]) - table.series_count
    table.add_series(working.new_device[:more], working.new_property[:more])
    event = np.asarray(batch.column("event_time").view(pa.int64()))
    return Accepted(
        row=np.arange(count, dtype=np.int32),
        ordinal=np.array(batch.column("ordinal")),
        series=series,
        device=row_device,
        property=row_kind,
        city=table.device_city[row_device],
        event=event.copy(),
        value=np.array(batch.column("value")),
        quality=np.array(batch.column("quality")),
        flags=np.zeros(count, np.uint16),
        offset=np.array(batch.column("offset")),
        ingest=event.copy(),
    )


def _texts(names: pa.StringArray) -> list[Any]:
    return names.to_pylist()
