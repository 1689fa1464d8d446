"""The verdict: what must be against what is there, O1 to O5 and O7.

Every finding is a sentence that begins with the number of what was violated. Of one kind only
the first few are told one by one.
"""

import hashlib
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.oracle.alerting import Transition
from tests.oracle.facts import Entry, Facts
from tests.oracle.folder import Folder
from tests.oracle.logs import Log, Record, read_logs
from tests.oracle.published import DERIVED, Row, key_of, rows_in, visible
from tests.oracle.reference import LATE, Expected, Partition, Timer

EXAMPLES = 5
_FLAGS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[object, ...]


@dataclass
class Verdict:
    """What was found, and how much was looked at."""

    findings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, title: str, found: Sequence[object]) -> None:
        """Report `found` under one title, a few of them by name."""
        if found:
            some = "; ".join(map(str, found[:EXAMPLES]))
            self.findings.append(f"{title}: {len(found)}, such as {some}")


def judge(
    facts: Facts,
    ledger: Iterable[Entry],
    folder: Folder,
    sent: Sequence[Row] | None = None,
) -> Verdict:
    """Return everything that is wrong with a folder at rest.

    `sent` are the documents that the alert topic holds, None where there is no topic.
    """
    verdict = Verdict()
    logs = read_logs(folder)
    for log in logs:
        verdict.findings += log.findings
    of_source: dict[str, list[Entry]] = defaultdict(list)
    for entry in ledger:
        of_source[entry.source].append(entry)
    found = _published(folder, logs, verdict)
    _same_sources(of_source, logs, verdict)
    wanted: dict[Key, Row] = {}
    transitions: list[Transition] = []
    for log in logs:
        entries = sorted(of_source.get(log.source, []), key=lambda one: one.offset)
        entries = _within(log, entries, verdict)
        expected = _replay(facts, log, entries)
        wanted.update(_keyed(log.source, expected))
        transitions += expected.alerts
        _counts(log, entries, expected, verdict)
    alerts = [row for _, row in found if row["dataset"] == "alerts"]
    rest = [(name, row) for name, row in found if row["dataset"] != "alerts"]
    _compare(facts, wanted, rest, verdict)
    _compare_alerts(facts, transitions, alerts, verdict)
    if sent is not None:
        _compare_sent(alerts, sent, verdict)
    verdict.counts |= {
        "records": sum(map(len, of_source.values())),
        "readings": sum(key[0] == "readings" for key in wanted),
        "late": sum(key[0] == "late" for key in wanted),
        "quarantined": sum(key[0] == "quarantine" for key in wanted),
        "parts": sum(key[0] == "aggregates" for key in wanted),
        "transitions": len(transitions),
        "log records": sum(len(log.records) for log in logs),
        "commits": sum(log.kinds("commit") for log in logs),
        "takeovers": sum(log.kinds("takeover") for log in logs),
        "decisions": sum(len(r.get("timers", ())) for g in logs for r in g.records),
    }
    return verdict


# --- what is there --------------------------------------------------------------------


def _published(
    folder: Folder, logs: Sequence[Log], verdict: Verdict
) -> list[tuple[str, Row]]:
    """Return all rows; check that visible files are those the logs name (O4, O5)."""
    entries = [file for log in logs for r in log.records for file in r.get("files", ())]
    named = {file["path"]: file for file in entries}
    if len(named) != len(entries):
        verdict.findings.append("O4 a file is named by more than one record")
    there = set(visible(folder)) - set(DERIVED)
    verdict.add("O5 named and not there", sorted(named.keys() - there))
    verdict.add("O5 visible and not named", sorted(there - named.keys()))
    rows: list[tuple[str, Row]] = []
    for name in sorted(there):
        data = folder.read(name)
        told = named.get(name)
        digest = hashlib.sha256(data).hexdigest()
        if told and (told["size"], told["sha256"]) != (len(data), digest):
            verdict.findings.append(f"O4 {name} is not what the log names")
        try:
            inside = rows_in(name, data)
        except (OSError, ValueError, KeyError) as error:
            verdict.findings.append(f"O4 {name} cannot be read: {error}")
            continue
        if told and told["rows"] != len(inside):
            verdict.findings.append(f"O4 {name} has not {told['rows']} rows")
        rows += [(name, row) for row in inside]
    verdict.counts["files"] = len(there)
    return rows


def _same_sources(
    of_source: Mapping[str, list[Entry]], logs: Sequence[Log], verdict: Verdict
) -> None:
    known = [log.source for log in logs]
    verdict.add(
        "O4 logs of one source", sorted({s for s in known if known.count(s) > 1})
    )
    verdict.add("O1 sources without a log", sorted(of_source.keys() - set(known)))


def _within(log: Log, entries: list[Entry], verdict: Verdict) -> list[Entry]:
    """Return what the log says was consumed; nothing may be left before or behind (O1)."""
    gaps = [(r["start"], r["next"]) for r in log.records if r["kind"] == "gap"]
    start = int(log.records[0]["start"])
    outside = [e for e in entries if not start <= e.offset < log.next]
    places = [f"{e.source} offset {e.offset}" for e in outside]
    verdict.add("O1 acknowledged and not consumed", places)
    return [
        e
        for e in entries
        if start <= e.offset < log.next
        and not any(low <= e.offset < high for low, high in gaps)
    ]


# --- what must be ---------------------------------------------------------------------


def _replay(facts: Facts, log: Log, entries: Sequence[Entry]) -> Expected:
    part_of: dict[int, int] = {}
    offsets = [entry.offset for entry in entries]
    for record in log.records:
        for offset in _slice(offsets, record):
            part_of[offset] = record["n"]
    timers = [
        Timer(t["offset"], t["kind"], t["city"], t["effective_us"])
        for record in log.records
        for t in record.get("timers", ())
    ]
    return Partition(facts, log.source, part_of).run(entries, timers)


def _slice(offsets: Sequence[int], record: Record) -> Sequence[int]:
    low, high = (bisect_left(offsets, record[end]) for end in ("start", "next"))
    return offsets[low:high]


def _keyed(source: str, expected: Expected) -> Iterable[tuple[Key, Row]]:
    for (offset, ordinal), row in expected.readings.items():
        yield ("readings", source, offset, ordinal), row
    for (offset, ordinal, window, start), row in expected.late.items():
        yield ("late", source, offset, ordinal, window, start), row
    for offset, row in expected.quarantine.items():
        yield ("quarantine", source, offset), row
    for part, row in expected.parts.items():
        series, *rest = part
        yield ("aggregates", source, *series, *rest), row


def _counts(
    log: Log, entries: Sequence[Entry], expected: Expected, verdict: Verdict
) -> None:
    """Hold each record's counts against the ledger (O4)."""
    offsets = [entry.offset for entry in entries]
    late: dict[int, int] = defaultdict(int)
    for (offset, _), row in expected.readings.items():
        late[offset] += bool(row["flags"] & LATE)
    wrong = []
    for record in log.records:
        if record["kind"] == "gap":
            continue
        low = bisect_left(offsets, record["start"])
        mine = entries[low : bisect_left(offsets, record["next"])]
        sound = [entry for entry in mine if entry.refused is None]
        counted = record.get("counts", {})
        wanted = {
            "records": len(mine),
            "decoded": len(sound),
            "quarantined": len(mine) - len(sound),
            "readings": sum(len(entry.readings) for entry in sound),
            "late": sum(late[entry.offset] for entry in sound),
            "skipped": record["next"] - record["start"] - len(mine),
        }
        wrong += [
            f"record {record['n']} of {log.source} counts {counted.get(name, 0)} "
            f"{name}, not {count}"
            for name, count in wanted.items()
            if counted.get(name, 0) != count
        ]
    verdict.add("O4 counts", wrong)


# --- comparing ------------------------------------------------------------------------

_NUMBER = {
    "readings": "O1",
    "quarantine": "O1",
    "late": "O2",
    "aggregates": "O2",
    "alerts": "O3",
}
_DATED_BY = {"quarantine": "broker_time", "aggregates": "start"}


def _compare(
    facts: Facts,
    wanted: Mapping[Key, Row],
    found: Sequence[tuple[str, Row]],
    verdict: Verdict,
) -> None:
    there: set[Key] = set()
    for dataset in ("readings", "quarantine", "late", "aggregates"):
        doubled, strange, other = [], [], []
        for name, row in found:
            if row["dataset"] != dataset:
                continue
            key = key_of(row)
            if key in there:
                doubled.append(key)
            there.add(key)
            if key not in wanted:
                strange.append((key, name))
                continue
            other += [(key, what) for what in _differences(wanted[key], row)]
            verdict.findings += _misplaced(facts, row, wanted[key].get("city"), name)
        missing = [k for k in wanted if k[0] == dataset and k not in there]
        number = _NUMBER[dataset]
        verdict.add(f"{number} {dataset} doubled", doubled)
        verdict.add(f"{number} {dataset} nobody sent", strange)
        verdict.add(f"{number} {dataset} missing", missing)
        verdict.add(f"{number} {dataset} different", other)


def _differences(wanted: Row, row: Row) -> list[str]:
    told = dict(row)
    if "flags" in wanted:
        told["flags"] &= _FLAGS
    return [
        f"{name} is {told[name]!r}, not {value!r}"
        for name, value in wanted.items()
        if name != "city" and not _equal(told[name], value)
    ]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
    return bool(one == other)


def _misplaced(facts: Facts, row: Row, city: str | None, name: str) -> list[str]:
    """Say if a row lies in the folder of another city or date (O7)."""
    found = []
    if city is not None and row["city"] != city:
        found.append(f"O7 {name} holds a row of {city}")
    dated = row[_DATED_BY.get(row["dataset"], "event_time")]
    zone = facts.zones.get(city or row["city"])
    if zone is None:
        return [*found, f"O7 {name} is of no city"]
    moment = _EPOCH + timedelta(microseconds=dated)
    day = moment.astimezone(ZoneInfo(zone)).date()
    if row["date"] != day.isoformat():
        found.append(f"O7 {name} holds a row of {day}")
    return found


def _compare_alerts(
    facts: Facts,
    transitions: Sequence[Transition],
    rows: Sequence[Row],
    verdict: Verdict,
) -> None:
    """Compare (O3): ids need only stand for the same episodes, whatever they are made of."""
    wanted = {_told(one): one for one in transitions}
    ids: dict[str, set[Key]] = defaultdict(set)
    seen: set[Key] = set()
    strange, doubled = [], []
    for row in rows:
        told = _row_told(row)
        if told in seen:
            doubled.append(told)
        seen.add(told)
        verdict.findings += _misplaced(facts, row, None, "alerts")
        if told in wanted and _equal(wanted[told].value, row["value"]):
            ids[row["alert_id"]].add(wanted[told].episode)
        else:
            strange.append((*told, row["value"]))
    verdict.add("O3 alerts doubled", doubled)
    verdict.add("O3 alerts nobody expected", strange)
    verdict.add("O3 alerts missing", [told for told in wanted if told not in seen])
    shared = [alert_id for alert_id, episodes in ids.items() if len(episodes) > 1]
    verdict.add("O3 alert ids of several episodes", shared)
    of_episode = Counter(episode for found in ids.values() for episode in found)
    split = [episode for episode, count in of_episode.items() if count > 1]
    verdict.add("O3 episodes under several ids", split)


def _compare_sent(rows: Sequence[Row], sent: Sequence[Row], verdict: Verdict) -> None:
    """Hold the topic against the files (O3): repeats are allowed, other content is not."""
    names = (
        *("alert_id", "transition", "state", "rule", "rule_version", "severity"),
        *("city", "device", "property", "window", "value", "source", "offset"),
    )
    there = {tuple(row[name] for name in names) for row in rows}
    told = {tuple(document[name] for name in names) for document in sent}
    verdict.add("O3 alerts that were not sent", list(there - told))
    verdict.add("O3 alerts sent that are not in alerts/", list(told - there))
    verdict.counts["alerts sent"] = len(sent)


def _told(one: Transition) -> Key:
    """Return all that a transition says but for its value, which need only be near."""
    source = one.episode[0]
    return (source, *one[1:9], one.offset)


def _row_told(row: Row) -> Key:
    names = ("transition", "rule", "severity", "city", "device", "property", "window")
    state = ("firing", "cleared")[row["transition"]]
    assert row["state"] == state, row
    told = (row["source"], *(row[name] for name in names))
    return (*told, row["event_time"], row["offset"])
