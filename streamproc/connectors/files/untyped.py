"""Arrow's compute functions without their stubs.

The stubs refuse calls that are documented and work (`fill_null` with a scalar, `equal` with
a string, `take` with an array made from numpy), so the modules that live on them import
`pc` from here and take and return `Column`.
"""

from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute

pc: Final[Any] = pyarrow.compute
arrow: Final[Any] = pa

Column: TypeAlias = Any
"""An Arrow array; what is in it is said where it is used."""
