"""A root against a ledger of what was sent: nothing lost, nothing doubled, nothing changed.

The ledger (`core.schemas.LEDGER`) comes from `simulate`, or from anybody who knows what was
produced. A reading is identified by (source, offset, ordinal).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from streamproc.analytics.dataset import open_quarantine, open_readings
from streamproc.analytics.roots import Root
from streamproc.errors import InputError

_ID: Final = ("source", "offset", "ordinal")
_RECORD: Final = ("source", "offset")
_EXAMPLES: Final = 5
_NEEDED: Final = (*_ID, "city", "device", "property", "event_time", "value", "bad")


@dataclass(frozen=True, slots=True)
class Difference:
    """One kind of difference: how many, and the first few as `source@offset.ordinal`."""

    kind: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        expected: readings the ledger expects; `refused` its bad records.
        found: rows of `readings/`; `quarantined` rows of `quarantine/`.
        differences: empty if all is well. Kinds: `missing`, `quarantined` (a good reading
            that was refused), `extra` (not in the ledger, or of a bad record), `double`,
            `city`, `device`, `property`, `event_time`, `value`, `accepted` (a bad record
            that is not in quarantine), `double_quarantine`.
    """

    expected: int
    refused: int
    found: int
    quarantined: int
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        """Tell that there is no difference."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def compare(root: Root, ledger: Path | str) -> Comparison:
    """Compare `readings/` and `quarantine/` with a ledger. Values must be equal exactly.

    Records in quarantine that the ledger does not know are only counted: it lists
    readings, and garbage has none.

    Raises:
        InputError: the ledger is not one.
    """
    known = _read_ledger(Path(ledger))
    good = known.filter(~pl.col("bad"))
    bad = known.filter("bad").select(_RECORD).unique()
    found = (
        open_readings(root)
        .select(*_ID, "city", "device", "property", "event_time", "value")
        .with_columns(pl.col("source", "city", "device", "property").cast(pl.String))
        .collect()
    )
    refused = (
        open_quarantine(root)
        .select(pl.col("source").cast(pl.String), "offset")
        .collect()
    )
    once = found.unique(_ID, keep="first", maintain_order=True)
    lost = good.join(once, on=_ID, how="anti")
    both = good.join(once, on=_ID, suffix="_found")
    kinds = {
        "missing": lost.join(refused, on=_RECORD, how="anti"),
        "quarantined": lost.join(refused, on=_RECORD, how="semi"),
        "extra": once.join(good, on=_ID, how="anti"),
        "double": found.filter(found.select(_ID).is_duplicated()).unique(_ID),
        **{
            name: both.filter(pl.col(name).ne_missing(pl.col(f"{name}_found")))
            for name in ("city", "device", "property", "event_time", "value")
        },
        "accepted": bad.join(refused, on=_RECORD, how="anti"),
        "double_quarantine": refused.filter(refused.is_duplicated()).unique(),
    }
    return Comparison(
        expected=len(good),
        refused=len(bad),
        found=len(found),
        quarantined=len(refused),
        differences=tuple(
            _difference(kind, rows) for kind, rows in kinds.items() if len(rows)
        ),
    )


def _read_ledger(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, columns=list(_NEEDED), hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"{path}: not a ledger: {error}"
        raise InputError(msg) from error
    names = pl.col("source", "city", "device", "property").cast(pl.String)
    frame = frame.with_columns(names)
    good = frame.filter(~pl.col("bad"))
    if good.select(_ID).is_duplicated().any():
        msg = f"{path}: not a ledger: a (source, offset, ordinal) stands there twice"
        raise InputError(msg)
    return frame


def _difference(kind: str, rows: pl.DataFrame) -> Difference:
    keys = _ID if "ordinal" in rows.columns else _RECORD
    first = rows.select(keys).sort(keys).head(_EXAMPLES)
    examples = tuple(
        f"{row[0]}@{'.'.join(map(str, row[1:]))}" for row in first.iter_rows()
    )
    return Difference(kind, len(rows), examples)
