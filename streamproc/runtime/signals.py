"""SIGTERM and SIGINT: the first drains, a second one abandons at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _abandon() -> None:
    # What a SIGKILL may not break, this cannot: the next start replays what was held.
    os._exit(1)


@contextmanager
def stop_on_signals(
    stop: Callable[[], None], abandon: Callable[[], None] = _abandon
) -> Iterator[None]:
    """Call `stop` at the first signal and `abandon` at every later one.

    Belongs to the running event loop. Replaces its handlers, and removes them at the end.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def handle() -> None:
        nonlocal asked
        if asked:
            abandon()
        asked = True
        stop()

    for number in SIGNALS:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
