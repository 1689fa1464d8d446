"""The test broker itself: it goes when its owner goes, however that happens."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from streamproc.testing.kafka_broker import ApacheKafka

_OWNER = """
import sys
from pathlib import Path
from streamproc.testing.kafka_broker import ApacheKafka
broker = ApacheKafka(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
sys.stdin.read()
"""


def test_a_broker_does_not_outlive_an_owner_that_was_killed(
    kafka: ApacheKafka, tmp_path: Path
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    broker = psutil.Process(int(owner.stdout.readline()))
    assert broker.is_running()

    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()

    gone, alive = psutil.wait_procs([broker], timeout=20)
    assert gone
    assert not alive
