"""Files derived from a definition: replaced as a whole, never named by a commit log."""

from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (a connector that writes Parquet)

from streamproc.core.definition import Definition
from streamproc.core.ports import Store
from streamproc.core.schemas import PROPERTY

PROPERTIES: Final = "properties.parquet"


def properties_table(definition: Definition) -> pa.Table:
    """Return the published `property` table: one row a property, sorted by its name."""
    specs = sorted(definition.properties, key=lambda spec: spec.property)
    return pa.Table.from_pydict(
        {
            "property": [spec.property for spec in specs],
            "unit": [spec.unit for spec in specs],
            "name": [spec.name or None for spec in specs],
            "range_low": [spec.low for spec in specs],
            "range_high": [spec.high for spec in specs],
            "states": [list(spec.states) or None for spec in specs],
        },
        schema=PROPERTY,
    )


def properties_parquet(definition: Definition) -> bytes:
    """Return `properties.parquet`; equal definitions give equal bytes (of one pyarrow)."""
    sink = pa.BufferOutputStream()
    pq.write_table(properties_table(definition), sink, compression="zstd")
    return bytes(sink.getvalue())


def write_properties(store: Store, definition: Definition) -> None:
    """Replace `properties.parquet` at the root, unless its content is already this.

    Raises:
        StoreFault: the store failed.
    """
    data = properties_parquet(definition)
    if store.read(PROPERTIES) != data:
        store.replace(PROPERTIES, data)
