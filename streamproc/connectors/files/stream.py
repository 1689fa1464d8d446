"""A stream of files as one partition: what is new in the files, merged by event time.

Theory of operation
-------------------
`open_stream` reads the given files once to identify them (`content.facts_of`), decides what
is new (`plan`), and reads that once more to check it whole before anything is published:
times must not go back inside a file, and rows are counted. Then `FileStream.batches` merges
and decodes, in bounded memory. A resumed plan merges again from its first row and passes
over what was committed; the merge is a pure function of files and options.

One call handles one plan. The caller feeds it, commits, and calls again with the plan added
to `known`, until `plan` is None: an interrupted plan is completed before new files count.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from streamproc.connectors.files.content import FileFacts, facts_of, kind_of
from streamproc.connectors.files.inputs import FileBatch, Inputs, StreamOptions
from streamproc.connectors.files.merge import merged
from streamproc.connectors.files.plan import (
    known_sizes,
    planned,
    resumed,
    selected,
    unfinished,
)
from streamproc.connectors.files.untyped import arrow
from streamproc.core.ports import Decoder
from streamproc.core.record import InputPlan
from streamproc.core.values import TopicPartition
from streamproc.errors import InputError


def open_stream(
    files: Sequence[str],
    options: StreamOptions,
    known: Sequence[InputPlan],
    next_offset: int,
    decoder: Decoder,
) -> "FileStream":
    """Decide what is to be read now; see the module for the order of calls.

    Args:
        files: paths, in any order.
        options: how they are read.
        known: the log's plans, in order of `base`.
        next_offset: the log's position.
        decoder: reads NDJSON lines, here for their times only.

    Raises:
        InputError: a file cannot be used; the message names it, and the line if there is one.
        SourceMismatch: plans and position contradict each other.
    """
    paths = sorted({os.path.abspath(path) for path in files})  # noqa: PTH100  (`resolve` would follow links: the path is a name here)
    _check_kinds(paths, options)
    lengths = known_sizes(known)
    facts = [_facts(path, lengths) for path in paths]
    plan = unfinished(known, next_offset)
    inputs = Inputs(options, decoder)
    if plan is not None:
        selection = resumed(plan, facts, options.order())
        parts = inputs.check(selection.parts)
    else:
        selection = selected(known, facts)
        parts = inputs.check(selection.parts)
        plan = planned(next_offset, parts, options.order())
    return FileStream(plan, next_offset, selection.skipped, inputs)


def _check_kinds(paths: Sequence[str], options: StreamOptions) -> None:
    for path in paths:
        if kind_of(path) != "lines" and options.mapping is None:
            msg = f"{path}: needs a [files] mapping that says what its columns mean"
            raise InputError(msg)


def _facts(path: str, lengths: Sequence[int]) -> FileFacts:
    # Parquet ends with an index of what is before: it never grows, and has no lines.
    return facts_of(path, () if kind_of(path) == "parquet" else lengths)


class FileStream:
    """What is new in the files of a stream.

    Attributes:
        plan: what the offsets mean; None where nothing is new.
        skipped: given paths that hold nothing for this plan.
        homes: device to city, where the mapping has a city column; complete from the start.
        total_rows: rows that `batches` will yield.
    """

    def __init__(
        self,
        plan: InputPlan | None,
        next_offset: int,
        skipped: tuple[str, ...],
        inputs: Inputs,
    ) -> None:
        self.plan = plan
        self.skipped = skipped
        self.homes: Mapping[str, str] = inputs.homes
        self.total_rows = 0 if plan is None else plan.base + plan.total - next_offset
        self._next = next_offset
        self._inputs = inputs

    def batches(self) -> Iterator[FileBatch]:
        """Yield every row from `next_offset` on, in order, once.

        Raises:
            InputError: a file changed while it was read, or cannot be read any more.
        """
        if self.plan is None:
            return
        options = self._inputs.options
        origin = TopicPartition(options.stream, 0)
        offset = self.plan.base
        rows = merged(self._inputs.sources())
        for batch in _coalesced(rows, options.batch_rows, options.batch_bytes):
            start = offset
            offset += batch.num_rows
            if offset <= self._next:
                continue
            passed = max(0, self._next - start)
            yield self._inputs.batch(batch.slice(passed), origin, start + passed)


def _coalesced(
    batches: Iterator[pa.RecordBatch], rows_max: int, bytes_max: int
) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of useful size."""
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= rows_max or size >= bytes_max:
            yield from _sliced(held, rows_max, bytes_max)
            held, rows, size = [], 0, 0
    if held:
        yield from _sliced(held, rows_max, bytes_max)


def _sliced(
    held: list[pa.RecordBatch], rows_max: int, bytes_max: int
) -> Iterator[pa.RecordBatch]:
    whole = held[0] if len(held) == 1 else arrow.concat_batches(held)
    pieces = -(-whole.num_rows // rows_max)
    pieces = max(pieces, -(-whole.nbytes // bytes_max))
    step = -(-whole.num_rows // pieces)
    for start in range(0, whole.num_rows, step):
        yield whole.slice(start, step)
