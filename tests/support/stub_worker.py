"""What a supervisor starts, without a service in it: a script that takes the same arguments.

`warmup` prints an empty summary. `run` answers at its socket, says two lines on standard error, and
ends with a summary of one record at SIGTERM or when its standard input ends; where `STUB_CODE` is
set it ends with that at once.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from streamproc.obs.health import Judgement
from streamproc.obs.http import Answer, judged, serve_at

PAGE = (
    b"# HELP records_total Records.\n# TYPE records_total counter\nrecords_total 3.0\n"
)


async def main(number: str, socket: str) -> int:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    loop.add_reader(sys.stdin.fileno(), asked.set)
    ready = Judgement(healthy=True, ready=number != "9")
    routes = {
        "/metrics": lambda: Answer(PAGE),
        "/readyz": judged(lambda: ready, ready=True),
    }
    async with await serve_at(socket, routes):
        sys.stderr.write("a plain line\n")
        sys.stderr.write(json.dumps({"event": "hello", "worker": int(number)}) + "\n")
        sys.stderr.flush()
        await asked.wait()
        loop.remove_reader(sys.stdin.fileno())
    sys.stdout.write(json.dumps({"records": 1, "readings": 1}))
    Path(socket).with_suffix(".drained").touch()
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "warmup":
        sys.stdout.write("{}")
        sys.exit(0)
    if "STUB_CODE" in os.environ:
        sys.exit(int(os.environ["STUB_CODE"]))
    given = sys.argv[1:]
    sys.exit(
        asyncio.run(
            main(
                given[given.index("--as-worker") + 1],
                given[given.index("--socket") + 1],
            )
        )
    )
