"""`[files]`: what the columns of CSV and Parquet files mean, as the operator wrote it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamproc.connectors.files.times import TimeFormat
from streamproc.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """One column of the wide form: the property it holds.

    Attributes:
        unit: None means the property's canonical one.
        map: texts that stand for numbers; any other text is then refused.
    """

    property: str
    unit: str | None = None
    map: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class FileMapping:
    """`[files]`: what the columns of CSV and Parquet files mean.

    Attributes:
        time: columns that make up the event time, joined by one space.
        time_format, timezone: see `TimeFormat`.
        device, device_fixed: the column with the device, or the one device.
        city: column with the city's slug; a device keeps the first city it had, rows with
            another one are quarantined. None: the topic or the device list decides.
        columns: wide form, column to what it holds.
        property, value, unit: long form, columns with the property's name, the number and
            (where there is one) the unit.
        properties: long form, names in the file to ours; others stay as they are.
        validity, valid: column, and the texts in it that mean valid. A row that is not
            becomes readings of quality 0, which are published and not folded.
        missing: texts that mean no value; so do null, and NaN in a column of floats.
        separator, quote, decimal: of CSV; `quote` None means that nothing quotes.

    Raises:
        ConfigError: every contradiction found.
    """

    time: tuple[str, ...]
    time_format: str = "iso"
    timezone: str | None = None
    device: str | None = None
    device_fixed: str | None = None
    city: str | None = None
    columns: Mapping[str, ColumnMapping] = field(default_factory=dict)
    property: str | None = None
    value: str | None = None
    unit: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    validity: str | None = None
    valid: tuple[str, ...] = ("1", "true")
    missing: tuple[str, ...] = ("",)
    separator: str = ","
    quote: str | None = '"'
    decimal: str = "."

    def __post_init__(self) -> None:
        faults = [*self._shape_faults(), *self._text_faults()]
        try:
            TimeFormat(self.time_format, self.timezone)
        except ConfigError as error:
            faults += error.faults
        if faults:
            raise ConfigError(*faults)

    def _shape_faults(self) -> list[str]:
        faults = []
        if not self.time:
            faults.append("files.time: name at least one column")
        if (self.device is None) == (self.device_fixed is None):
            faults.append(
                "files: give either device (a column) or device_fixed (a name)"
            )
        if self.device_fixed == "":
            faults.append("files.device_fixed: is empty")
        if bool(self.columns) == (self.value is not None):
            faults.append(
                "files: give either columns (wide) or property and value (long)"
            )
        if (self.property is None) != (self.value is None):
            faults.append("files: property and value belong together")
        names = [column.property for column in self.columns.values()]
        twice = sorted({name for name in names if names.count(name) > 1})
        faults += [f"files.columns: two columns hold {name!r}" for name in twice]
        return faults

    def _text_faults(self) -> list[str]:
        faults = []
        if len(self.separator.encode()) != 1 or self.separator in '\r\n"':
            faults.append(
                f"files.separator: {self.separator!r} is not one ASCII character"
            )
        if self.quote is not None and (
            len(self.quote.encode()) != 1 or self.quote in {"\r", "\n", self.separator}
        ):
            faults.append(f"files.quote: {self.quote!r} is not one ASCII character")
        if self.decimal not in {".", ","}:
            faults.append(f"files.decimal: {self.decimal!r} is neither . nor ,")
        return faults

    def time_columns(self) -> tuple[str, ...]:
        """Return the columns that placing a row needs."""
        more = (self.device, self.city) if self.city is not None else ()
        return tuple(dict.fromkeys([*self.time, *(name for name in more if name)]))

    def used_columns(self) -> tuple[str, ...]:
        """Return every column that is read."""
        more = (self.device, self.property, self.value, self.unit, self.validity)
        names = [*self.time_columns(), *more, *self.columns]
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def order(self) -> str:
        """Return the name of all that the order and number of rows hang on."""
        facts = [self.time, self.time_format, self.timezone, self.separator, self.quote]
        text = json.dumps(["mapping", *facts])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
