"""The bench of long logs writes what it says, and a start asks no more of a longer one."""

from pathlib import Path

from bench.log_start import FOLDER, Memory, fill, measure
from streamproc.analytics.logs import find_logs


def test_a_long_log_is_squashed_and_found_with_few_questions(tmp_path: Path) -> None:
    asked = []
    for commits in (1_500, 3_000):
        memory = Memory()
        fill(memory, commits, snapshot_every=50)
        root = tmp_path / str(commits)
        _, counted, head = measure(memory.files, root)
        asked.append(sum(counted.values()))
        (log,) = find_logs(root)
        found = list(log.records())
        assert log.folder == FOLDER
        assert found[-1].n == head == len(found) - 1
        assert sum(r.kind == "commit" for r in found) == commits

    assert max(asked) < 3 * 256 + 20
    assert asked[1] < asked[0] + 2 * 256
