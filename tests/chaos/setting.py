"""The scene: three towns, windows of seconds, rules that fire often; and its configuration."""

from collections.abc import Sequence
from pathlib import Path

from tests.oracle.facts import Condition, Facts, Rule, Window

S = 1_000_000

FACTS = Facts(
    zones={
        "ange": "Europe/Stockholm",
        "fundao": "Europe/Lisbon",
        "razlog": "Europe/Sofia",
    },
    units={"pm10": "ug/m3", "temperature": "Cel"},
    windows=(
        Window("5s", size=5 * S, every=5 * S, lateness=2 * S),
        Window("30s", size=30 * S, every=30 * S, lateness=5 * S),
        Window("hop", size=20 * S, every=10 * S, lateness=3 * S),
    ),
    # No limit is a mean of few values with two decimals: the last bit decides nothing.
    rules=(
        Rule(
            "high",
            "pm10",
            Condition("value", ">", 85.003),
            Condition("value", "<", 75.003),
        ),
        Rule("warm", "temperature", Condition("value", ">", 65.003), held_for=4 * S),
        Rule(
            "mean-high",
            "pm10",
            Condition("mean", ">", 60.0003),
            Condition("mean", "<", 55.0003),
            window="5s",
            held_for=10 * S,
        ),
        Rule("silent", "temperature", no_data=8 * S, severity="info"),
    ),
)

ALERTS = "alerts"
PARTITIONS = 2


def topic_of(city: str) -> str:
    return f"telemetry.{city}"


def configuration(
    bootstrap: str, output: Sequence[str], source: Sequence[str] = ()
) -> str:
    """Return the TOML for workers; `output` and `source` are further lines of theirs."""
    lines = [
        "[job]", 'name = "chaos"',
        "[source]", f'bootstrap_servers = "{bootstrap}"',
        'topics = "telemetry.{city}"', 'session_timeout = "6s"', 'heartbeat = "1s"',
        'rebalance_timeout = "15s"', 'topics_refresh = "5s"', *source,
        "[processing]", 'idle_after = "4s"',
        "[shutdown]", 'drain = "10s"',
        "[metrics]", "enabled = false",
        "[alerts]", f'topic = "{ALERTS}"',
        "[output]", 'flush_age = "2s"', 'snapshot_every = "10s"', *output,
    ]  # fmt: skip
    for city, zone in FACTS.zones.items():
        lines += [f"[cities.{city}]", f'timezone = "{zone}"']
    for window in FACTS.windows:
        lines += [
            "[[windows]]", f'name = "{window.name}"', f'every = "{window.every // S}s"',
            f'size = "{window.size // S}s"', f'lateness = "{window.lateness // S}s"',
        ]  # fmt: skip
    for rule in FACTS.rules:
        lines += _rule(rule)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule) -> list[str]:
    lines = ["[[rules]]", f'name = "{rule.name}"', f'property = "{rule.property}"']
    lines.append(f'severity = "{rule.severity}"')
    for key, text in (
        ("when", rule.when),
        ("clear", rule.clear),
        ("window", rule.window),
    ):
        if text is not None:
            lines.append(f'{key} = "{text}"')
    for key, span in (("for", rule.held_for), ("no_data", rule.no_data)):
        if span:
            lines.append(f'{key} = "{span // S}s"')
    return lines


def local_output(root: Path) -> list[str]:
    return [f'root = "{root}"']
