"""`streamproc demo`: the whole thing with nothing installed but the package."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from streamproc.analytics.ledger import Comparison, compare
from streamproc.app.service import open_service
from streamproc.cli.console import DONE, FAULT, err, out, print_json
from streamproc.cli.demo_queries import show_queries
from streamproc.cli.demo_setup import DEMO, write_config
from streamproc.cli.live import LiveView
from streamproc.config import load as load_settings
from streamproc.connectors.clock import SystemClock
from streamproc.connectors.embedded_broker import EmbeddedBroker
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.connectors.schema_registry import RegistryOptions
from streamproc.runtime.observer import Totals
from streamproc.simulate.ledger import LedgerWriter
from streamproc.simulate.publish import to_broker
from streamproc.simulate.registering import register_schemas
from streamproc.simulate.towns import TOWNS
from streamproc.simulate.traffic import Message, TrafficOptions, traffic
from streamproc.simulate.wire import WireOptions
from streamproc.testing.registry import LocalRegistry


def demo(
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long.")] = 30,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Empty or new folder to keep: ledger.parquet, data/, the config."
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live/--no-live", help="Watch it.")] = True,
    seed: Annotated[int, typer.Option(help="Same seed, same traffic.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> int:
    """Run seven towns against an embedded broker, check every reading, query the result.

    Exits with 3 if the output differs from what was sent.

    Example: `streamproc demo --seconds 10 --output demo --no-live`
    """
    if output is not None:
        if output.exists() and any(output.iterdir()):
            msg = f"{output} is not empty"
            raise typer.BadParameter(msg, param_hint="--output")
        output.mkdir(parents=True, exist_ok=True)
        return _demo(output, seconds, seed, live=live, as_json=as_json)
    with tempfile.TemporaryDirectory(prefix="streamproc-demo-") as folder:
        return _demo(Path(folder), seconds, seed, live=live, as_json=as_json)


def _demo(folder: Path, seconds: int, seed: int, *, live: bool, as_json: bool) -> int:
    totals = asyncio.run(_run(folder, seconds, seed, live=live))
    found = compare(folder / "data", folder / "ledger.parquet")
    if as_json:
        print_json({"totals": totals, "ledger": found})
    else:
        _show(totals, found)
        show_queries(folder / "data")
    return DONE if found.ok else FAULT


async def _run(folder: Path, seconds: int, seed: int, *, live: bool) -> Totals:
    """Simulate and consume side by side; then start again to the end and close."""
    topics = {f"telemetry.{town.slug}": DEMO.partitions for town in TOWNS}
    clock = SystemClock()
    totals = Totals()
    with EmbeddedBroker(topics) as broker, LocalRegistry() as registry:
        options = RegistryOptions(url=registry.url)
        ids = await register_schemas(options, clock)
        config = write_config(folder, broker.bootstrap_servers, registry.url)
        settings = load_settings(config, {})
        connection = KafkaConnection(bootstrap_servers=broker.bootstrap_servers)
        wire = WireOptions("mixed", partitions=DEMO.partitions, schema_ids=ids)
        with LiveView(settings, seconds, shown=live) as view:
            async with open_service(settings, observers=(totals, view)) as service:
                view.watch(service)
                running = asyncio.create_task(service.run())
                messages = _messages(clock.wall_us(), seconds, seed)
                with LedgerWriter(folder / "ledger.parquet") as ledger:
                    async with KafkaProduce(connection) as produce:
                        sending = asyncio.create_task(
                            to_broker(
                                messages,
                                wire,
                                produce,
                                ledger,
                                clock=clock,
                                live=True,
                                progress=view.sent,
                            )
                        )
                        await asyncio.wait(
                            [sending, running], return_when=asyncio.FIRST_COMPLETED
                        )
                        if running.done():
                            sending.cancel()
                            await running
                        await sending
                service.stop()
                await running
        err.print("stopped; starting again to the end, and closing every window …")
        async with open_service(
            settings, until_end=True, close=True, observers=(totals,)
        ) as last:
            await last.run()
    return totals


def _messages(begin_us: int, seconds: int, seed: int) -> Iterator[Message]:
    return traffic(
        TrafficOptions(
            devices=DEMO.devices,
            rate=DEMO.rate,
            start_us=begin_us,
            duration_us=seconds * 1_000_000,
            seed=seed,
            disorder_us=DEMO.disorder_us,
            bad=DEMO.bad,
        )
    )


def _show(totals: Totals, found: Comparison) -> None:
    out.print(
        f"\n[bold]{totals.records:,}[/] records, [bold]{totals.readings:,}[/] readings, "
        f"{totals.late:,} late, {totals.quarantined:,} quarantined, "
        f"{totals.windows:,} aggregates, {totals.alerts:,} alert transitions, "
        f"{totals.files:,} files"
    )
    if found.ok:
        out.print(
            f"[green]ledger: all {found.expected:,} readings are there exactly once, "
            f"all {found.refused:,} broken records are in quarantine[/]"
        )
        return
    for difference in found.differences:
        examples = ", ".join(difference.examples)
        err.print(
            f"ledger: {difference.kind}: {difference.count} ({examples})", style="red"
        )
