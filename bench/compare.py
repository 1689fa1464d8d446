"""Two results of `make bench` side by side: `python -m bench.compare BEFORE.json AFTER.json`.

A difference counts where the medians are further apart than both interquartile ranges
together, and by more than a twentieth. Exit code 1 where something became slower.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHARE_MIN = 0.05
"""Two quiet runs on one machine differ by less."""


def compared(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[tuple[str, float, float, str]]:
    """Return (name, ns before, ns after, verdict); ns a reading where rows are known."""
    old = {bench["name"]: bench for bench in before["benchmarks"]}
    rows = []
    for new in after["benchmarks"]:
        known = old.get(new["name"])
        if known is None:
            rows.append((new["name"], float("nan"), _ns(new), "new"))
        else:
            rows.append((new["name"], _ns(known), _ns(new), verdict(known, new)))
    return rows


def verdict(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return `slower`, `faster`, or nothing where noise explains it."""
    was, now = before["stats"]["median"], after["stats"]["median"]
    noise = before["stats"]["iqr"] + after["stats"]["iqr"]
    if abs(now - was) <= max(noise, SHARE_MIN * was):
        return ""
    return "slower" if now > was else "faster"


def _ns(bench: Mapping[str, Any]) -> float:
    return float(bench["stats"]["median"] * 1e9 / bench["extra_info"].get("rows", 1))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args(arguments)
    before, after = (json.loads(p.read_text()) for p in (given.before, given.after))
    rows = compared(before, after)
    print(f"{'ns before':>12} {'ns after':>12} {'ratio':>6}")
    for name, was, now, said in rows:
        print(f"{was:12,.1f} {now:12,.1f} {now / was:6.2f}  {name}  {said}".rstrip())
    return 1 if any(said == "slower" for *_, said in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
