"""The city job: confluent-kafka and polars. Arguments: servers, topic, records."""

import sys

from bench.peers.confluent_polars.consume import consume
from bench.peers.contract import PARTITIONS
from bench.peers.polars_city import CityJob

consume(CityJob(PARTITIONS), sys.argv[1], sys.argv[2], int(sys.argv[3]))
