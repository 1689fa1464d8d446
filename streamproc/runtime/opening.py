"""Before a partition flows: where it begins, and whether it is the topic the log knows."""

from collections.abc import Sequence
from dataclasses import dataclass

from streamproc.core.chain import Genesis
from streamproc.core.fingerprint import fingerprint_of
from streamproc.core.ports import Bounds, Source, StartAt, Store
from streamproc.core.record import LogRecord, decode_record, topic_label
from streamproc.core.replays import TOPIC_ID
from streamproc.core.values import TopicPartition
from streamproc.errors import SourceMismatch
from streamproc.runtime.worker import PartitionWorker


@dataclass(frozen=True, slots=True)
class Start:
    """Where a partition without a log begins; `time_us` only with `StartAt.TIME`."""

    at: StartAt = StartAt.EARLIEST
    time_us: int | None = None


async def begin(
    source: Source,
    start: Start,
    origin: TopicPartition,
    bounds: Bounds,
    partitions: int = 0,
) -> Genesis:
    """Return the first record's content; used once, then the log knows better.

    `partitions`: how many the topic has, for `StartAt.LATEST`.

    Raises:
        Unreachable: the broker would not tell an offset for a time.
    """
    if start.at is StartAt.EARLIEST:
        return Genesis(bounds.begin, "start = earliest")
    if start.at is StartAt.LATEST:
        return Genesis(bounds.end, "start = latest", partitions)
    assert start.time_us is not None
    found = await source.offset_at(origin, start.time_us)
    offset = bounds.end if found is None else found
    return Genesis(offset, f"start = time {start.time_us} us")


def first_records(store: Store, job: str, topic: str) -> Sequence[LogRecord]:
    """Return the oldest record of each log this job has of topics of this name.

    Whatever ids the topics have or had. Reads one record of each log that may be one; blocking.

    Raises:
        LogCorrupt: a record that does not parse.
    """
    base = f"_streamproc/{job}"
    prefix = f"{base}/{topic_label(topic)}-"
    first: dict[str, str] = {}
    for file in store.list(base):
        folder, _, name = file.path.rpartition("/")
        if folder.startswith(prefix) and folder.endswith("/log") and name[:1].isdigit():
            first.setdefault(folder, file.path)
    found = []
    for path in first.values():
        data = store.read(path)
        # A label may end in what looks like an id, so the record decides.
        record = None if data is None else decode_record(data, path)
        if record is None or record.topic_id.startswith(TOPIC_ID):
            continue  # What was put back from quarantine is no topic that was deleted.
        if record.topic == topic:
            found.append(record)
    return found


def genesis_of_a_new_topic(
    earlier: Sequence[str], topic: str, topic_id: str, bounds: Bounds
) -> Genesis:
    """Return where an accepted topic that was created anew begins: with all it has.

    The configured start was meant for the topic before it.
    """
    before = ", ".join(earlier)
    note = f"start = earliest; {topic} was created anew as {topic_id}, before: {before}"
    return Genesis(bounds.begin, note)


def genesis_of_an_added_partition(
    planned: Genesis,
    logs: Sequence[LogRecord],
    origin: TopicPartition,
    bounds: Bounds,
) -> Genesis:
    """Return where a partition begins under `start = latest`: with all it has if it was added.

    `latest` means the end at the job's first start. A partition that came later held nothing
    then, and what was sent to it before anybody noticed is not to be skipped. Its number tells:
    `logs` are those of the same topic, and each says how many partitions there were (0 where it
    began under another start, and then this partition has no claim to `latest`, either).
    """
    before = min((record.partitions for record in logs), default=origin.partition + 1)
    if origin.partition < before:
        return planned
    note = "start = earliest; the partition was added after the job's first start"
    return Genesis(bounds.begin, note, planned.partitions)


def refuse_recreated(topic: str, topic_id: str, earlier: Sequence[str]) -> None:
    """Refuse a topic whose name this job knows under another id.

    Raises:
        SourceMismatch: naming both ids and what to do.
    """
    if earlier:
        msg = (
            f"{topic} was deleted and created anew: its id is {topic_id}, this job has "
            f"consumed {', '.join(earlier)}. What was left unread there is gone. "
            f"To go on: streamproc run CONFIG --accept-recreated {topic} (once); "
            "the new topic is read from its beginning and gets a log of its own"
        )
        raise SourceMismatch(msg)


def position_fault(origin: TopicPartition, position: int, bounds: Bounds) -> str | None:
    """Return why a log cannot go on at `position`, and what to do; None where it can."""
    place = f"{origin.topic} partition {origin.partition}"
    if position < bounds.begin:
        return (
            f"{place}: the log continues at offset {position}, the broker serves "
            f"[{bounds.begin}, {bounds.end}): {bounds.begin - position} offsets were "
            "removed (retention, delete-records) before they were read. To go on "
            f"without them: streamproc accept-gap CONFIG --topic {origin.topic} "
            f"--partition {origin.partition} --from {position} --to {bounds.begin} "
            "--reason …"
        )
    if position > bounds.end:
        return (
            f"{place}: the log continues at offset {position}, the broker serves "
            f"[{bounds.begin}, {bounds.end}): the topic ends before what was consumed. "
            "It was truncated (an unclean election). Nothing can be accepted for this "
            "log: read the topic under another job name, or create it anew"
        )
    return None


async def check_source(source: Source, worker: PartitionWorker, bounds: Bounds) -> None:
    """Refuse a topic that is not the one the log was written from (S4).

    A last record that retention or compaction has removed cannot be compared; the topic
    id and the bounds still hold. `bounds` must have been asked for after `open`: an owner
    before us may have gone on until then.

    Raises:
        SourceMismatch: the position is out of bounds, or the last record is another one.
    """
    fault = position_fault(worker.origin, worker.position, bounds)
    if fault is not None:
        raise SourceMismatch(fault, source=worker.origin.source)
    known = worker.head.fingerprint
    if known is None or known.offset < bounds.begin:
        return
    found = await source.read_one(worker.origin, known.offset)
    if len(found) and fingerprint_of(found, 0) != known:
        msg = (
            f"{worker.origin.topic} partition {worker.origin.partition}: the record at "
            f"offset {known.offset} is not the one that was consumed; the topic was "
            "truncated (an unclean election) and written anew, so records that are "
            "published are no longer in it. Nothing can be accepted for this log: read "
            "the topic under another job name, or create it anew"
        )
        raise SourceMismatch(msg, source=worker.origin.source)
