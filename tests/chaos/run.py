"""One run: the scene is set, faults come and go, and at the end everything is judged."""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streamproc.connectors.clock import SystemClock
from streamproc.connectors.kafka_produce import KafkaProduce
from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.tcp_proxy import TcpProxy
from tests.chaos.faults import FAULTS, Scene, schedule
from tests.chaos.generator import Generator, documents, end_offsets
from tests.chaos.setting import ALERTS, FACTS, PARTITIONS, configuration, topic_of
from tests.chaos.stores import Store, open_store
from tests.chaos.workers import Workers
from tests.oracle.facts import write_facts, write_ledger
from tests.oracle.folder import Away, Folder
from tests.oracle.judge import judge
from tests.oracle.watcher import Watcher
from tests.support.real_data import CHECKOUT

LOOK_S = 1.0
LAG_S = 120.0
CLOSE_S = 180.0
TOPICS = tuple(map(topic_of, FACTS.zones))


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    minutes: float
    seed: int
    workers: int
    store: str
    rate: float
    folder: Path
    only: tuple[str, ...] = ()


@dataclass
class Summary:
    """What came of it; `findings` is empty if every promise held."""

    seed: int
    store: str
    workers: int
    minutes: float
    rate: float
    seconds: float = 0.0
    recovery_s: float | None = None
    faults: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    acked: int = 0
    unanswered: int = 0
    producers: int = 1
    starts: int = 0
    looks: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    ended_by_themselves: list[dict[str, Any]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    repeat: str = ""


class Chaos:
    """A run in a folder of its own."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._clock = SystemClock()
        self._began = self._clock.monotonic_us()
        self.summary = Summary(
            plan.seed, plan.store, plan.workers, plan.minutes, plan.rate
        )
        self.summary.repeat = (
            f"python -m tests.chaos --minutes {plan.minutes:g} --seed {plan.seed} "
            f"--workers {plan.workers} --store {plan.store} --rate {plan.rate:g}"
        )

    async def run(self) -> Summary:
        """Run to the end and return the summary, also written as `summary.json`."""
        plan, summary = self._plan, self.summary
        plan.folder.mkdir(parents=True, exist_ok=True)
        async with TcpProxy() as proxy:
            broker = ApacheKafka(plan.folder / "kafka", proxy_port=proxy.port)
            await asyncio.to_thread(broker.start)
            try:
                proxy.target = broker.front
                async with open_store(plan.store, plan.folder) as store:
                    await self._with_broker(broker, proxy, store)
            finally:
                await asyncio.to_thread(broker.stop)
        summary.seconds = self._seconds()
        text = json.dumps(asdict(summary), indent=1)
        (plan.folder / "summary.json").write_text(text + "\n", encoding="utf-8")
        return summary

    async def _with_broker(
        self, broker: ApacheKafka, proxy: TcpProxy, store: Store
    ) -> None:
        plan = self._plan
        async with KafkaProduce(broker.connection) as produce:
            await produce.create_topics(TOPICS, PARTITIONS)
            await produce.create_topics([ALERTS], 1)
        config = plan.folder / "chaos.toml"
        text = configuration(f"127.0.0.1:{proxy.port}", store.output())
        config.write_text(text, encoding="utf-8")
        workers = Workers(config, plan.folder, plan.workers)
        rng = random.Random(plan.seed)
        generator = Generator(
            broker.bootstrap_servers, random.Random(rng.random()), plan.rate
        )
        scene = Scene(workers, broker, proxy, store, rng)
        workers.start_all()
        generator.start()
        try:
            async with self._watched(store.folder(), random.Random(rng.random())):
                await self._under_fire(scene, generator)
        finally:
            generator.stop()
            workers.close()
        await self._judged(broker, store, generator)

    # --- while it runs ----------------------------------------------------------------

    @asynccontextmanager
    async def _watched(self, folder: Folder, rng: random.Random) -> AsyncIterator[None]:
        """Let a reader of folders look every second (O6)."""
        watcher = Watcher(folder, rng)
        over = asyncio.Event()

        async def watch() -> None:
            while not over.is_set():
                await asyncio.to_thread(watcher.look)
                try:
                    async with asyncio.timeout(LOOK_S):
                        await over.wait()
                except TimeoutError:
                    continue
            await asyncio.to_thread(watcher.look)

        looking = asyncio.create_task(watch())
        try:
            yield
        finally:
            over.set()
            await looking
            self.summary.looks = watcher.looks
            self.summary.findings += watcher.findings

    async def _under_fire(self, scene: Scene, generator: Generator) -> None:
        summary = self.summary
        some = {(topic, p): 1 for topic in TOPICS for p in range(PARTITIONS)}
        if not await reaches(scene.store.folder(), some, LAG_S):
            summary.findings.append("O8 the workers did not even begin")
            return
        reviving = asyncio.create_task(self._revive(scene.workers))
        await self._faults(scene)
        self._say("faults are over")
        summary.unanswered = await asyncio.to_thread(generator.stop)
        began = self._seconds()
        ends = await asyncio.to_thread(
            end_offsets, scene.broker.bootstrap_servers, TOPICS
        )
        reached = await reaches(scene.store.folder(), ends, LAG_S)
        summary.recovery_s = round(self._seconds() - began, 1) if reached else None
        if not reached:
            summary.findings.append(f"O8 not everything was read {LAG_S} s after")
        self._say(f"lag 0 after {summary.recovery_s} s")
        reviving.cancel()
        await asyncio.gather(reviving, return_exceptions=True)
        codes = await asyncio.gather(
            *map(scene.workers.terminate, range(scene.workers.count))
        )
        for code in (*codes, *scene.codes):
            if code != 0:
                summary.findings.append(
                    f"O8 a worker that was to stop ended with {code}"
                )
        await self._close(scene.workers)
        summary.sent, summary.acked = generator.sent, generator.acked
        summary.producers = generator.producers
        summary.starts = scene.workers.starts
        summary.events = dict(scene.workers.events().most_common())
        summary.ended_by_themselves = list(map(asdict, scene.workers.ends))

    async def _faults(self, scene: Scene) -> None:
        plan, counted = self._plan, Counter[str]()
        until = self._seconds() + plan.minutes * 60
        kinds = list(plan.only) or [*FAULTS, *scene.store.faults]
        for kind in schedule(scene.rng, kinds):
            await scene.lasts(1.5, 6.0)
            if self._seconds() >= until:
                break
            fault = FAULTS.get(kind)
            told = await (
                fault(scene) if fault else scene.store.faults[kind](scene.rng)
            )
            counted[kind] += 1
            self._say(f"{kind}: {told}")
        self.summary.faults = dict(counted)

    async def _revive(self, workers: Workers) -> None:
        while True:
            workers.revive()
            await asyncio.sleep(1.0)

    async def _close(self, workers: Workers) -> None:
        """Let one last worker close every window, as an operator would."""
        command = ["-m", "streamproc", "run", str(self._plan.folder / "chaos.toml")]
        with (self._plan.folder / "close.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--until-end", "--close",
                cwd=CHECKOUT, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                async with asyncio.timeout(CLOSE_S):
                    code = await process.wait()
            except TimeoutError:
                process.kill()
                code = await process.wait()
        if code:
            self.summary.findings.append(f"O8 closing the windows ended with {code}")

    # --- at the end -------------------------------------------------------------------

    async def _judged(
        self, broker: ApacheKafka, store: Store, generator: Generator
    ) -> None:
        plan, summary = self._plan, self.summary
        self._say("reading back and judging")
        ledger, findings = await asyncio.to_thread(generator.ledger)
        summary.findings += [f"ledger: {finding}" for finding in findings]
        write_ledger(plan.folder / "ledger.ndjson", ledger)
        write_facts(plan.folder / "facts.json", FACTS)
        sent = await asyncio.to_thread(documents, broker.bootstrap_servers, ALERTS)
        verdict = await asyncio.to_thread(judge, FACTS, ledger, store.folder(), sent)
        summary.findings += verdict.findings
        summary.counts = verdict.counts
        left = [name for name in store.folder().names() if "/staging/" in name]
        if left:
            summary.findings.append(
                f"O8 left in staging: {len(left)}, such as {left[0]}"
            )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamproc", "inspect", store.inspected()),
            *("--verify", "--config", str(plan.folder / "chaos.toml")),
            cwd=CHECKOUT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await process.communicate()
        if process.returncode:
            words = told.decode(errors="replace")[-500:]
            summary.findings.append(f"inspect --verify: {process.returncode}: {words}")

    def _seconds(self) -> float:
        return (self._clock.monotonic_us() - self._began) / 1e6

    def _say(self, what: str) -> None:
        sys.stderr.write(f"{self._seconds():7.1f} s  {what}\n")


def heads_of(folder: Folder) -> dict[tuple[str, int], int]:
    """Return up to where each partition's log has come."""
    newest: dict[str, str] = {}
    for name in folder.names():
        home, _, file = name.rpartition("/")
        if name.startswith("_streamproc/") and home.endswith("/log"):
            newest[home] = max(newest.get(home, ""), file)
    heads = {}
    for home, file in newest.items():
        try:
            record = json.loads(folder.read(f"{home}/{file}"))
        except (FileNotFoundError, ValueError):
            continue
        heads[record["topic"], record["partition"]] = int(record["next"])
    return heads


async def reaches(
    folder: Folder, ends: Mapping[tuple[str, int], int], limit_s: float
) -> bool:
    """Wait until the logs have come to these offsets; False if they do not in time."""
    clock = SystemClock()
    until = clock.monotonic_us() + int(limit_s * 1e6)
    while clock.monotonic_us() < until:
        with suppress(Away):
            heads = await asyncio.to_thread(heads_of, folder)
            if all(heads.get(place, 0) >= end for place, end in ends.items()):
                return True
        await asyncio.sleep(0.5)
    return False
