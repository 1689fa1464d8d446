"""One page and one judgement for several processes: pure.

Every sample keeps its own numbers and gets a label that says whose it is, so that Prometheus sums,
and a counter of a process that began anew is an ordinary reset.
"""

from collections.abc import Mapping

from streamproc.obs.health import Judgement


def merged(pages: Mapping[str, str], label: str = "worker") -> str:
    """Return pages in Prometheus' text format as one.

    Args:
        pages: whose it is to its page; names need no escaping.
        label: the label that carries the name, before those a sample has.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for who, page in pages.items():
        family = ""
        for line in page.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
            elif line and not line.startswith("#"):
                samples.setdefault(family, []).append(_labelled(line, label, who))
    lines: list[str] = []
    for family, head in heads.items():
        lines += head
        lines += samples.pop(family, [])
    return "\n".join(lines) + "\n"


def _labelled(sample: str, label: str, who: str) -> str:
    own = f'{label}="{who}"'
    name, brace, rest = sample.partition("{")
    if brace and " " not in name:
        return f"{name}{{{own},{rest}"
    name, _, value = sample.partition(" ")
    return f"{name}{{{own}}} {value}"


def combined(judgements: Mapping[str, Judgement]) -> Judgement:
    """Return good only where all are, and every reason with whose it is."""
    reasons = tuple(
        f"worker {who}: {reason}"
        for who, found in judgements.items()
        for reason in found.reasons
    )
    return Judgement(
        all(found.healthy for found in judgements.values()),
        all(found.ready for found in judgements.values()),
        reasons,
    )
