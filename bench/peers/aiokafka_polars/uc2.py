"""The UC2 job: aiokafka and polars. Arguments: servers, topic, records."""

import sys

from bench.peers.aiokafka_polars.consume import consume
from bench.peers.contract import PARTITIONS
from bench.peers.polars_uc2 import Uc2Job

consume(Uc2Job(PARTITIONS), sys.argv[1], sys.argv[2], int(sys.argv[3]))
