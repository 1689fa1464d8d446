"""Harming a published root in ways that its logs do not give away."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq  # noqa: TID251  (writes what a faulty product would)

Row = dict[str, Any]


def change_rows(
    root: Path, path: Path, change: Callable[[list[Row]], list[Row]]
) -> None:
    """Rewrite a published file and let its log name the new bytes, all hashes sound."""
    table = pq.read_table(io.BytesIO(path.read_bytes()))
    rows = change(table.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    name = path.relative_to(root).as_posix()
    data = path.read_bytes()
    told = {
        "size": len(data),
        "rows": len(rows),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    reseal(root, name, told)


def move(root: Path, path: Path, folder: Path) -> None:
    """Publish a file in another folder, and let its log say so."""
    folder.mkdir(parents=True, exist_ok=True)
    there = path.rename(folder / path.name)
    reseal(
        root,
        path.relative_to(root).as_posix(),
        {"path": there.relative_to(root).as_posix()},
    )


def reseal(root: Path, name: str, told: Row) -> None:
    """Change what the log tells of a file, and every hash that follows."""
    for log in root.glob("_streamproc/*/*/*/log"):
        names = sorted(log.glob("*.json"))
        records = [json.loads(path.read_bytes()) for path in names]
        files = [file for record in records for file in record.get("files", ())]
        mine = [file for file in files if file["path"] == name]
        if not mine:
            continue
        mine[0].update(told)
        before = None
        for path, record in zip(names, records, strict=True):
            if before is not None:
                record["prev_sha256"] = hashlib.sha256(before).hexdigest()
            before = json.dumps(record).encode()
            path.write_bytes(before)
        return
    raise AssertionError(name)
