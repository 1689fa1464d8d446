"""Every peer's version, in one place. The ranges of streamproc's own are in its lock."""

from collections.abc import Mapping

FASTAVRO = "fastavro==1.13.1"
ORJSON = "orjson==3.13.0"
POLARS = "polars==2.1.0"

PYPI: Mapping[str, tuple[str, ...]] = {
    "confluent_polars": ("confluent-kafka==2.16.1", POLARS),
    "aiokafka_polars": ("aiokafka[lz4]==0.14.0", POLARS),
    "quix": ("quixstreams==3.28.1", FASTAVRO),
    "bytewax": ("bytewax[kafka]==0.21.1", ORJSON, FASTAVRO),
    "faust": ("faust-streaming==0.15.3", "aiokafka[lz4]==0.14.0", ORJSON, FASTAVRO),
    "pathway": ("pathway==0.33.0", FASTAVRO),
}

MAVEN: Mapping[str, Mapping[str, str]] = {
    "kafka_streams": {
        "kafka.version": "4.4.0",
        "jackson.version": "2.21.3",
        "avro.version": "1.12.0",
        "slf4j.version": "1.7.36",
    },
    # The newest connector is for Flink 2.2, so that is the newest Flink.
    "flink": {
        "flink.version": "2.2.1",
        "flink.connector.version": "5.0.0-2.2",
        "jackson.version": "2.21.3",
        "avro.version": "1.12.0",
        "slf4j.version": "1.7.36",
    },
}


def versions(name: str) -> str:
    """Return a peer's pins as one line."""
    if name in PYPI:
        return ", ".join(PYPI[name])
    return ", ".join(
        f"{key.removesuffix('.version')}=={v}" for key, v in MAVEN[name].items()
    )
