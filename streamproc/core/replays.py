"""Which refused records were put back, and by whom: the log of `dead-letters replay`.

A *replay* is one file, `_streamproc/<job>/dead-letters/<k>.json`; creating it, if absent,
claims its records for ever, so that no record is put back twice. It names exactly those
that a rehearsal through the processor accepted. They are then folded like any stream, one
log per source with topic id `dead-letters-<k>`, keeping source and offset; what a killed
replay left undone is finished by the next one.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from streamproc.core.values import TopicPartition
from streamproc.errors import LogCorrupt

REPLAY_VERSION: Final = 1
TOPIC_ID: Final = "dead-letters-"
_DIGITS: Final = 6


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replay.

    Attributes:
        owner: who ran it.
        heads: log folder → its newest record when quarantine was read; the log's own time.
        definition: sha256 of the definition it folds under, stored beside it.
        taken: source → offsets of its records that are put back, ascending.
        refused: how many were refused again; they stay in quarantine as they are.
        unusable: how many cannot be tried: cut payloads, unknown topics, names used twice.
        note: what was asked for.
    """

    version: int = REPLAY_VERSION
    k: int
    job: str
    owner: str
    code_version: str
    definition: str
    heads: dict[str, int]
    taken: dict[str, tuple[int, ...]]
    refused: int
    unusable: int
    note: str

    @property
    def records(self) -> int:
        """Return how many records are put back."""
        return sum(len(offsets) for offsets in self.taken.values())


_DECODER: Final = msgspec.json.Decoder(ReplayPlan)


def replays_folder(job: str) -> str:
    """Return the folder of a job's replays."""
    return f"_streamproc/{job}/dead-letters"


def plan_path(job: str, k: int) -> str:
    """Return the path of replay k."""
    return f"{replays_folder(job)}/{k:0{_DIGITS}d}.json"


def done_path(job: str, k: int) -> str:
    """Return the path of the mark that replay k has been folded whole."""
    return f"{replays_folder(job)}/{k:0{_DIGITS}d}.done"


def is_plan(path: str) -> bool:
    """Tell whether a path in the folder of replays is one."""
    name = path.rpartition("/")[2]
    return name.endswith(".json") and len(name) == _DIGITS + len(".json")


def topic_id_of(k: int) -> str:
    """Return the topic id of the logs of replay k."""
    return f"{TOPIC_ID}{k}"


def parts_source(source: str, topic_id: str) -> str:
    """Return the `source` of a log's aggregate rows.

    That of its readings, but for replays: their parts stand beside those of the log that
    refused the records, and (source, …, start, part) must stay unique.
    """
    return f"{topic_id}:{source}" if topic_id.startswith(TOPIC_ID) else source


def encode_plan(plan: ReplayPlan) -> bytes:
    """Return the plan's bytes."""
    return msgspec.json.encode(plan, order="deterministic")


def decode_plan(data: bytes, where: str) -> ReplayPlan:
    """Parse a plan. Raises `LogCorrupt`, naming `where`, on anything unexpected."""
    try:
        plan = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        msg = f"{where}: not a replay of dead letters: {error}"
        raise LogCorrupt(msg) from error
    if plan.version != REPLAY_VERSION:
        msg = f"{where}: version {plan.version}, this program reads {REPLAY_VERSION}"
        raise LogCorrupt(msg)
    return plan


def origin_of(source: str) -> TopicPartition:
    """Return the partition a `source` column names. Raises `ValueError` for other texts."""
    topic, _, partition = source.rpartition("/")
    return TopicPartition(topic, int(partition))


def all_taken(plans: Iterable[ReplayPlan]) -> dict[str, set[int]]:
    """Return source → offsets that some replay has put back."""
    taken: dict[str, set[int]] = {}
    for plan in plans:
        for source, offsets in plan.taken.items():
            taken.setdefault(source, set()).update(offsets)
    return taken
