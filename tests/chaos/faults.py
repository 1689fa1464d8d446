"""The faults, one function each: do it, let it last, undo it; and the order they come in.

What a seed fixes is the kinds, victims and lengths; when exactly a signal lands among the
workers' steps is the machine's, which is why runs are long and repeated.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator

from streamproc.testing.kafka_broker import ApacheKafka
from streamproc.testing.tcp_proxy import TcpProxy
from tests.chaos.stores import Store
from tests.chaos.workers import Workers


class Scene:
    """What faults act on. A proxy stands before the broker, and one before the store."""

    def __init__(
        self,
        workers: Workers,
        broker: ApacheKafka,
        proxy: TcpProxy,
        store: Store,
        rng: random.Random,
    ) -> None:
        self.workers = workers
        self.broker = broker
        self.proxy = proxy
        self.store = store
        self.rng = rng
        self.codes: list[int] = []

    def victim(self) -> int:
        return self.rng.randrange(self.workers.count)

    async def lasts(self, low_s: float, high_s: float) -> str:
        span_s = self.rng.uniform(low_s, high_s)
        await asyncio.sleep(span_s)
        return f"{span_s:.1f} s"


Fault = Callable[[Scene], Awaitable[str]]


# --- workers --------------------------------------------------------------------------


async def kill(scene: Scene) -> str:
    victim = scene.victim()
    scene.workers.kill(victim)
    told = await scene.lasts(0.0, 3.0)
    scene.workers.start(victim)
    return f"worker {victim}, away {told}"


async def kill_all(scene: Scene) -> str:
    for worker in range(scene.workers.count):
        scene.workers.kill(worker)
    scene.workers.start_all()
    return "every worker"


async def zombie(scene: Scene) -> str:
    """Stop a worker for longer than its session lives, and wake it."""
    victim = scene.victim()
    scene.workers.signal(victim, signal.SIGSTOP)
    told = await scene.lasts(8.0, 16.0)
    scene.workers.signal(victim, signal.SIGCONT)
    return f"worker {victim}, {told}"


async def terminate(scene: Scene) -> str:
    victim = scene.victim()
    code = await scene.workers.terminate(victim)
    scene.codes.append(code)
    scene.workers.start(victim)
    return f"worker {victim}, exit {code}"


async def terminate_twice(scene: Scene) -> str:
    victim = scene.victim()
    code = await scene.workers.terminate(victim, twice=True)
    scene.workers.start(victim)
    return f"worker {victim}, exit {code}"


# --- broker and network ---------------------------------------------------------------


async def broker_kill(scene: Scene) -> str:
    await asyncio.to_thread(scene.broker.kill)
    told = await scene.lasts(0.5, 10.0)
    await asyncio.to_thread(scene.broker.start)
    return f"down {told}"


async def broker_restart(scene: Scene) -> str:
    await asyncio.to_thread(scene.broker.stop)
    await asyncio.to_thread(scene.broker.start)
    return "in order"


async def network_reset(scene: Scene) -> str:
    times = scene.rng.randint(1, 4)
    count = 0
    for _ in range(times):
        count += scene.proxy.reset()
        await asyncio.sleep(0.5)
    return f"{count} connections"


async def network_refuses(scene: Scene) -> str:
    scene.proxy.refusing = True
    scene.proxy.reset()
    return await _healed(scene.proxy, await scene.lasts(1.0, 6.0))


async def network_delay(scene: Scene) -> str:
    scene.proxy.delay_s = scene.rng.uniform(0.1, 1.0)
    told = f"{scene.proxy.delay_s:.2f} s each way for"
    return f"{told} {await _healed(scene.proxy, await scene.lasts(4.0, 10.0))}"


async def network_slow(scene: Scene) -> str:
    scene.proxy.bytes_per_s = scene.rng.choice((5_000.0, 20_000.0))
    return await _healed(scene.proxy, await scene.lasts(4.0, 10.0))


async def network_hole(scene: Scene) -> str:
    scene.proxy.hold("up", "down")
    return await _healed(scene.proxy, await scene.lasts(2.0, 12.0))


async def network_one_way(scene: Scene) -> str:
    scene.proxy.hold("down" if scene.rng.random() < 0.5 else "up")
    return await _healed(scene.proxy, await scene.lasts(2.0, 12.0))


async def network_half_open(scene: Scene) -> str:
    return f"{scene.proxy.cut_off()} connections"


async def _healed(proxy: TcpProxy, told: str) -> str:
    proxy.heal()
    return told


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        *(kill, kill_all, zombie, terminate, terminate_twice),
        *(broker_kill, broker_restart),
        *(network_reset, network_refuses, network_delay, network_slow),
        *(network_hole, network_one_way, network_half_open),
    )
}
_TWICE = ("kill", "zombie", "terminate")
"""Kinds of which a round has two: each round has every kind, in random order."""


def schedule(rng: random.Random, kinds: list[str]) -> Iterator[str]:
    """Yield kinds for ever, every one of them in each round."""
    while True:
        deck = [*kinds, *(kind for kind in _TWICE if kind in kinds)]
        rng.shuffle(deck)
        yield from deck
