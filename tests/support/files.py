"""For tests of the file readers: a decoder small enough to read, and a plain view of batches."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from streamproc.connectors.files.inputs import FileBatch
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.core.schemas import DECODED
from streamproc.core.values import Decoded, Reason, Records, Reject


class TinyJson:
    """Lines such as `{"d": "a", "t": 5, "v": 1.0}` with `t` in microseconds."""

    def missing(self, records: Records) -> frozenset[int]:
        return frozenset()

    def learn(self, schema_id: int, schema: WireSchema | SchemaProblem) -> None: ...

    def decode(self, records: Records) -> Decoded:
        rows: list[dict[str, Any]] = []
        rejects = []
        for row, value in enumerate(records.values):
            try:
                found = json.loads(value or b"")
                rows.append(_reading(row, found))
            except (ValueError, TypeError, KeyError) as error:
                rejects.append(Reject(row, Reason.MALFORMED, str(error)))
        batch = pa.RecordBatch.from_pylist(rows, schema=DECODED)
        return Decoded(batch, tuple(rejects))


def _reading(row: int, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "row": row,
        "ordinal": 0,
        "device": found["d"],
        "property": "p",
        "unit": None,
        "event_time": int(found["t"]),
        "value": float(found["v"]),
        "quality": 1,
        "flags": 0,
    }


def line(device: str, time_us: int, value: float = 1.0) -> bytes:
    """Return one line that `TinyJson` reads."""
    return json.dumps({"d": device, "t": time_us, "v": value}).encode() + b"\n"


@dataclass(frozen=True)
class Row:
    """One record with its readings, as plain Python."""

    offset: int
    payload: bytes
    readings: tuple[tuple[Any, ...], ...]
    reject: tuple[str, str] | None


def plain(batches: Iterable[FileBatch]) -> list[Row]:
    """Return every record in order; checks the batches' own promises on the way."""
    rows: list[Row] = []
    reached: int | None = None
    for batch in batches:
        records = batch.records
        decoded = batch.decoded or TinyJson().decode(records)
        assert decoded.readings.schema == DECODED
        decoded.readings.validate(full=True)
        assert reached in {None, records.span.start}
        reached = records.span.end
        assert records.offsets.tolist() == list(
            range(records.span.start, records.span.end)
        )
        found: dict[int, list[tuple[Any, ...]]] = {}
        places = []
        for reading in decoded.readings.to_pylist():
            places.append((reading["row"], reading["ordinal"]))
            found.setdefault(reading["row"], []).append(
                (
                    reading["ordinal"],
                    reading["device"],
                    reading["property"],
                    reading["unit"],
                    reading["event_time"].isoformat(),
                    reading["value"],
                    reading["quality"],
                    reading["flags"],
                )
            )
        assert places == sorted(set(places))
        refused = {one.row: (str(one.reason), one.detail) for one in decoded.rejects}
        assert [one.row for one in decoded.rejects] == sorted(refused)
        assert not refused.keys() & found.keys()
        for row, payload in enumerate(records.values):
            assert payload is not None
            rows.append(
                Row(
                    int(records.offsets[row]),
                    payload,
                    tuple(found.get(row, ())),
                    refused.get(row),
                )
            )
    return rows


def put(path: Path, content: bytes) -> str:
    """Write a file and return its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)
