"""The oracle is proved: a correct run passes, and whatever is wrong with one is found.

The damages are those of a faulty product, not of a disk: the logs name every changed byte
with its right hash, so only the content can give them away.
"""

import ast
import base64
import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from streamproc.cli.main import run
from tests.chaos.setting import FACTS, configuration, local_output
from tests.chaos.traffic import Draft, Traffic
from tests.oracle.facts import Entry, read_facts, read_ledger, write_facts, write_ledger
from tests.oracle.folder import LocalFolder
from tests.oracle.judge import judge
from tests.oracle.published import all_rows
from tests.oracle.watcher import Watcher
from tests.support.damage import Row, change_rows, move

NOW_US = 1_772_400_000_000_000
TICK_US = 100_000
TICKS = 600
EACH = 2
PIECES = 4


@dataclass(frozen=True)
class Run:
    """What was published, and from what."""

    root: Path
    ledger: tuple[Entry, ...]

    def findings(self, sent: Sequence[Row] | None = None) -> list[str]:
        return judge(FACTS, self.ledger, LocalFolder(self.root), sent).findings

    def file(self, pattern: str) -> Path:
        """Return the largest file of a dataset, which has the most to be wrong about."""
        found = list(self.root.glob(f"{pattern}/**/*.parquet"))
        return max(found, key=lambda path: (path.stat().st_size, path.name))


def offline(drafts: Sequence[Draft]) -> list[Entry]:
    """Give records the offsets they would get."""
    next_offset: dict[tuple[str, int], int] = {}
    entries = []
    for draft in drafts:
        place = (draft.topic, draft.partition)
        offset = next_offset.get(place, 0)
        next_offset[place] = offset + 1
        entries.append(draft.at(offset))
    return entries


def envelope(entry: Entry) -> str:
    return json.dumps(
        {
            "topic": entry.topic,
            "partition": entry.partition,
            "offset": entry.offset,
            "key": base64.b64encode(entry.device.encode()).decode(),
            "headers": [],
            "timestamp": entry.broker // 1000,
            "value_base64": base64.b64encode(entry.payload).decode(),
        }
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A minute of three towns, as the product publishes it in many small commits."""
    folder = tmp_path_factory.mktemp("oracle")
    traffic = Traffic(random.Random(7), devices=6)
    drafts = [
        draft
        for tick in range(TICKS)
        for draft in traffic.records(NOW_US + tick * TICK_US, EACH)
    ]
    ledger = offline(drafts)
    lines = folder / "minute.ndjson"
    config, root = folder / "chaos.toml", folder / "root"
    text = configuration("localhost:9092", local_output(root))
    config.write_text(text, encoding="utf-8")
    for piece in range(1, PIECES + 1):
        # A file that has grown is read on from where it ended, by a new owner.
        end = len(ledger) * piece // PIECES
        lines.write_text("\n".join(map(envelope, ledger[:end])) + "\n", "utf-8")
        assert run(["replay", str(config), str(lines), "--json"]) == 0
    return Run(root, tuple(ledger))


@pytest.fixture
def harmed(sound: Run, tmp_path: Path) -> Run:
    """A copy that may be harmed."""
    shutil.copytree(sound.root, tmp_path / "root")
    return replace(sound, root=tmp_path / "root")


def test_a_correct_run_passes(sound: Run) -> None:
    verdict = judge(FACTS, sound.ledger, LocalFolder(sound.root))

    assert verdict.findings == []
    for what in ("readings", "late", "quarantined", "parts", "transitions", "commits"):
        assert verdict.counts[what] > 20, what


def test_the_traffic_has_what_the_oracle_must_judge(sound: Run) -> None:
    rows = [row for _, row in all_rows(LocalFolder(sound.root))]

    def values(dataset: str, column: str) -> set[Any]:
        return {row[column] for row in rows if row["dataset"] == dataset}

    flags = values("readings", "flags")
    assert all(any(flag & bit for flag in flags) for bit in (1, 2, 4))
    assert any(flag & 7 == 0 for flag in flags)
    assert values("aggregates", "close_reason") >= {"watermark", "late", "final"}
    assert values("alerts", "rule") == {rule.name for rule in FACTS.rules}
    assert values("alerts", "transition") == {0, 1}
    assert len(values("quarantine", "reason")) == 6
    assert len(values("readings", "date")) > 1


def test_the_oracle_imports_nothing_of_the_product() -> None:
    folder = Path(__file__).parents[1] / "oracle"
    imported = {
        name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }

    assert {name for name in imported if name.startswith("tests.oracle")}
    ours = [n for n in imported if n.startswith(("streamproc", "tests."))]
    assert all(name.startswith("tests.oracle") for name in ours), ours


def test_ledger_and_facts_can_be_judged_again_later(sound: Run, tmp_path: Path) -> None:
    write_ledger(tmp_path / "ledger", sound.ledger)
    write_facts(tmp_path / "facts", FACTS)

    assert read_ledger(tmp_path / "ledger") == list(sound.ledger)
    assert read_facts(tmp_path / "facts") == FACTS


# --- files and logs -------------------------------------------------------------------


def _remove(harmed: Run) -> None:
    harmed.file("readings").unlink()


def _flip(harmed: Run) -> None:
    path = harmed.file("aggregates")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _double(harmed: Run) -> None:
    path = harmed.file("readings")
    shutil.copy(path, path.with_name("again.parquet"))


def _foreign(harmed: Run) -> None:
    path = harmed.file("late")
    shutil.copy(path, harmed.file("quarantine").with_name("foreign.parquet"))


def _text(harmed: Run) -> None:
    harmed.file("readings").with_name("notes.txt").write_text("?", encoding="utf-8")


def _log(harmed: Run) -> Path:
    return min(harmed.root.glob("_streamproc/*/*/*/log"))


def _no_record(harmed: Run) -> None:
    (_log(harmed) / f"{2:020}.json").unlink()


def _other_record(harmed: Run) -> None:
    path = _log(harmed) / f"{2:020}.json"
    path.write_bytes(path.read_bytes().replace(b'"decoded"', b' "decoded"'))


def _no_log(harmed: Run) -> None:
    shutil.rmtree(_log(harmed).parent)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_remove, "O5 named and not there"),
        (_remove, "O1 readings missing"),
        (_flip, "O4 .* is not what the log names"),
        (_double, "O5 visible and not named"),
        (_double, "O1 readings doubled"),
        (_foreign, "O5 visible and not named"),
        (_foreign, "O1 quarantine|O4 .* cannot be read"),
        (_text, "O5 visible and not named"),
        (_no_record, "O4 .*record 2 is missing"),
        (_other_record, "O4 .*record 3: does not name the record before it"),
        (_no_log, "O1 sources without a log"),
    ],
)
def test_harm_to_files_and_logs_is_found(
    harmed: Run, damage: Callable[[Run], None], expected: str
) -> None:
    damage(harmed)

    assert any(re.match(expected, finding) for finding in harmed.findings())


# --- content, with logs that fit ------------------------------------------------------


def _first(**changes: Any) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        return [{**rows[0], **changes}, *rows[1:]]

    return change


def _without_first(rows: list[Row]) -> list[Row]:
    return rows[1:]


def _twice(rows: list[Row]) -> list[Row]:
    return [*rows, rows[0]]


@pytest.mark.parametrize(
    ("dataset", "change", "expected"),
    [
        ("readings", _without_first, "O1 readings missing: 1"),
        ("readings", _twice, "O1 readings doubled: 1"),
        ("readings", {"value": -1.5}, "O1 readings different: 1"),
        ("readings", {"flags": 7}, "O1 readings different: 1"),
        ("readings", {"offset": 10**6}, "O1 readings nobody sent: 1"),
        ("aggregates/window=5s", _without_first, "O2 aggregates missing: 1"),
        ("aggregates/window=30s", {"mean": 50.01}, "O2 aggregates different: 1"),
        ("aggregates/window=hop", {"count": 77}, "O2 aggregates different: 1"),
        ("aggregates/window=5s", {"part": 9999}, "O2 aggregates nobody sent: 1"),
        ("late", _without_first, "O2 late missing: 1"),
        ("late", {"behind_us": -1}, "O2 late different: 1"),
        ("quarantine", _without_first, "O1 quarantine missing: 1"),
        ("quarantine", {"reason": "past"}, "O1 quarantine different: 1"),
        ("quarantine", {"payload": b"?"}, "O1 quarantine different: 1"),
        ("alerts", _without_first, "O3 alerts missing: 1"),
        ("alerts", _twice, "O3 alerts doubled: 1"),
        ("alerts", {"value": 86.5}, "O3 alerts nobody expected: 1"),
    ],
)
def test_wrong_content_is_found_although_every_hash_fits(
    harmed: Run,
    dataset: str,
    change: Callable[[list[Row]], list[Row]] | dict[str, Any],
    expected: str,
) -> None:
    changing = _first(**change) if isinstance(change, dict) else change
    change_rows(harmed.root, harmed.file(dataset), changing)

    findings = harmed.findings()

    assert any(finding.startswith(expected) for finding in findings), findings
    assert not any(finding.startswith("O5") for finding in findings), findings


@pytest.mark.parametrize("dataset", ["readings", "aggregates", "late", "quarantine"])
def test_rows_in_another_towns_folder_are_found(harmed: Run, dataset: str) -> None:
    path = harmed.file(dataset)
    city = path.parent.parent.name
    other = "city=ange" if city != "city=ange" else "city=razlog"
    move(harmed.root, path, path.parents[2] / other / path.parent.name)

    findings = harmed.findings()

    # A part is known by its town, a reading by its offset.
    expected = "O2 aggregates nobody sent" if dataset == "aggregates" else "O7 "
    assert any(finding.startswith(expected) for finding in findings), findings


def test_alerts_in_another_towns_folder_are_found(harmed: Run) -> None:
    path = harmed.file("alerts/city=ange")
    move(harmed.root, path, harmed.root / "alerts/city=razlog" / path.parent.name)

    assert any("O3 alerts nobody expected" in f for f in harmed.findings())


def test_rows_in_another_days_folder_are_found(harmed: Run) -> None:
    path = harmed.file("readings")
    move(harmed.root, path, path.parents[1] / "date=2020-02-02")

    assert any(finding.startswith("O7 ") for finding in harmed.findings())


def test_one_episode_under_two_ids_is_found(harmed: Run) -> None:
    def rename(rows: list[Row]) -> list[Row]:
        cleared = max(range(len(rows)), key=lambda i: rows[i]["transition"])
        assert rows[cleared]["transition"] == 1
        return [
            {**row, "alert_id": "new" if i == cleared else row["alert_id"]}
            for i, row in enumerate(rows)
        ]

    change_rows(harmed.root, harmed.file("alerts"), rename)

    assert any("episodes under several ids" in f for f in harmed.findings())


def test_two_episodes_under_one_id_are_found(harmed: Run) -> None:
    def same(rows: list[Row]) -> list[Row]:
        return [{**row, "alert_id": "one"} for row in rows]

    change_rows(harmed.root, harmed.file("alerts"), same)

    assert any("ids of several episodes" in f for f in harmed.findings())


# --- ledger and topic -----------------------------------------------------------------


def test_a_record_that_was_acknowledged_and_not_consumed_is_found(sound: Run) -> None:
    last = max(sound.ledger, key=lambda entry: (entry.source, entry.offset))
    more = (*sound.ledger, replace(last, offset=last.offset + 1))

    findings = replace(sound, ledger=more).findings()

    assert any("O1 acknowledged and not consumed" in f for f in findings)


def test_a_record_that_nobody_sent_is_found(sound: Run) -> None:
    fewer = replace(sound, ledger=sound.ledger[1:])

    assert any("nobody sent" in finding for finding in fewer.findings())
    assert any("O4 counts" in finding for finding in fewer.findings())


def test_the_alert_topic_may_repeat_and_must_not_differ(sound: Run) -> None:
    rows = [row for _, row in all_rows(LocalFolder(sound.root))]
    sent = [row for row in rows if row["dataset"] == "alerts"]

    assert sound.findings([*sent, *sent[:5]]) == []
    assert any("not sent: 1" in finding for finding in sound.findings(sent[1:]))
    other = [*sent, {**sent[0], "value": -1.0}]
    assert any("not in alerts/: 1" in finding for finding in sound.findings(other))


# --- a reader while it runs -----------------------------------------------------------


def test_a_reader_of_folders_finds_nothing_while_files_come(harmed: Run) -> None:
    path = harmed.file("readings")
    data = path.read_bytes()
    path.unlink()
    watcher = Watcher(LocalFolder(harmed.root), random.Random(0))
    watcher.look()
    path.write_bytes(data)
    watcher.look()

    assert watcher.findings == []
    assert watcher.files > 20
    assert watcher.rows > len(harmed.ledger)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_remove, "was there and is not any more"),
        (_double, "was there already"),
        (_text, "cannot be read"),
    ],
)
def test_a_reader_of_folders_finds_what_must_never_be(
    harmed: Run, damage: Callable[[Run], None], expected: str
) -> None:
    watcher = Watcher(LocalFolder(harmed.root), random.Random(0))
    watcher.look()
    damage(harmed)
    watcher.look()

    assert any(expected in finding for finding in watcher.findings), watcher.findings


def test_a_reader_of_folders_finds_a_changed_file_sooner_or_later(
    harmed: Run,
) -> None:
    watcher = Watcher(LocalFolder(harmed.root), random.Random(0))
    watcher.look()
    for path in harmed.root.glob("readings/**/*.parquet"):
        path.write_bytes(path.read_bytes() + b"?")
    for _ in range(watcher.files):
        watcher.look()

    assert any("has changed" in finding for finding in watcher.findings)
