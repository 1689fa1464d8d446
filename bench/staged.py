"""`streamproc`, with its stages measured: a child of `bench.endtoend --stages`.

    python -m bench.staged STAGES.json run CONFIG --until-end --close --json

The command behind the first word runs as always; `STAGES.json` gets a `Budget.document`.
A stage that cannot be found is an error: then this table is out of date.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.budget import Budget

COLLECTOR = "garbage collector"

PLACES: tuple[tuple[str, str], ...] = (
    ("records: checksum", "connectors.kafka_batches:verify"),
    ("records: decompression", "connectors.kafka_batches:unpack"),
    ("records: walking batches", "connectors.kafka_batches:BatchReader.read"),
    ("decode", "app.root:make_decoder"),
    ("resolve", "core.resolve:Resolver.resolve"),
    ("fold", "core.windows:Windows.fold"),
    ("close windows by decision", "core.windows:Windows.close"),
    ("alerts", "core.alerts:AlertEngine.on_rows"),
    ("alerts", "core.alerts:AlertEngine.on_closed"),
    ("alerts", "core.alerts:AlertEngine.on_timer"),
    ("tables: readings", "core.emission:Tables.readings"),
    ("tables: aggregates", "core.emission:Tables.aggregates"),
    ("tables: late, quarantine", "core.emission:Tables.late"),
    ("tables: late, quarantine", "core.emission:Tables.quarantine"),
    ("step: the rest", "core.processor:PartitionProcessor.step"),
    ("closing: the rest", "core.processor:PartitionProcessor.take"),
    ("snapshot", "core.processor:PartitionProcessor.snapshot"),
    ("snapshot", "runtime.partition_log:PartitionLog.stage_snapshot"),
    ("Parquet: buffering", "connectors.parquet_sink:ParquetWriter.append"),
    ("Parquet: writing", "connectors.parquet_sink:ParquetWriter.write"),
    ("log: commit", "runtime.partition_log:PartitionLog.commit"),
    ("log: publish", "runtime.partition_log:PartitionLog.publish"),
    ("log: clean", "runtime.partition_log:PartitionLog.clean"),
    ("log: open", "runtime.partition_log:PartitionLog.open"),
    ("worker: the rest", "runtime.worker:PartitionWorker.step"),
    ("worker: the rest", "runtime.worker:PartitionWorker.freeze"),
    ("worker: the rest", "runtime.worker:PartitionWorker.write"),
)
"""Stage, and the function; of several with one name the sum is shown."""

FIRST = "connectors.kafka_batches:BatchReader.read"
MAKES_DECODERS = "app.root:make_decoder"


def place(path: str) -> tuple[Any, str]:
    """Return who holds a function, and under which name. Raises `AttributeError`."""
    module, _, names = path.partition(":")
    holder: Any = import_module(f"streamproc.{module}")
    *outer, last = names.split(".")
    for name in outer:
        holder = getattr(holder, name)
    getattr(holder, last)
    return holder, last


def measure(budget: Budget) -> None:
    """Put a measured function in every place."""
    for stage, path in PLACES:
        holder, name = place(path)
        function = getattr(holder, name)
        if path == MAKES_DECODERS:
            made: Callable[..., Any] = _decoders(budget, stage, function)
        else:
            made = budget.wrap(stage, function)
        if path == FIRST:
            made = _noting(budget, made)
        setattr(holder, name, made)
    budget.watch_collector(COLLECTOR)


def _noting(budget: Budget, function: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*args: Any) -> Any:
        budget.begin()
        return function(*args)

    return noting


def _decoders(
    budget: Budget, stage: str, make: Callable[..., Any]
) -> Callable[..., Any]:
    """Return what makes decoders whose class is measured."""
    known = set()

    def made(*args: Any) -> Any:
        decoder = make(*args)
        kind: Any = type(decoder)
        if kind not in known:
            known.add(kind)
            kind.decode = budget.wrap(stage, kind.decode)
        return decoder

    return made


def main() -> int:
    target, *arguments = sys.argv[1:]
    budget = Budget()
    measure(budget)
    # Imported last: it may bind names of what is measured.
    run = import_module("streamproc.cli.main").run
    code: int = run(arguments)
    Path(target).write_text(json.dumps(budget.document()))
    return code


if __name__ == "__main__":
    sys.exit(main())
