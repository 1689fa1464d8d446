"""How to reach a Kafka cluster and how to behave there; units are in the names.

The same options give the arguments of both client libraries: aiokafka reads and writes
records, librdkafka (confluent-kafka) administers.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any, Literal

from streamproc.errors import ConfigError

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

MEBIBYTE = 1024 * 1024

_RETRY_BACKOFF_MS = 250  # at aiokafka's 100 a broker that is down fills the log


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """How a connection is protected and who we are.

    Attributes:
        ca_file: PEM; None means the system's certificate authorities.
        certificate_file: PEM with our certificate and its chain, for mutual TLS.
        password: never shown in `repr`.
    """

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    key_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what no broker could accept. Raises `ConfigError`."""
        if self.sasl and not (self.username and self.password):
            msg = f"{self.protocol} needs a user name and a password"
            raise ConfigError(msg)

    @property
    def sasl(self) -> bool:
        """Tell whether we log in with a name and a password."""
        return self.protocol.startswith("SASL_")

    @property
    def tls(self) -> bool:
        """Tell whether the connection is encrypted."""
        return self.protocol.endswith("SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a client context: TLS 1.2 or newer, chain and host name checked.

        Raises:
            ConfigError: a file is missing or is not PEM.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(
                ssl.Purpose.SERVER_AUTH, cafile=self.ca_file
            )
            if self.certificate_file is not None:
                context.load_cert_chain(
                    self.certificate_file, self.key_file, self.key_password or ""
                )
        except OSError as error:
            files = (self.ca_file, self.certificate_file, self.key_file)
            named = ", ".join(name for name in files if name)
            msg = f"TLS files ({named or 'system certificates'}): {error}"
            raise ConfigError(msg) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def aiokafka(self) -> dict[str, Any]:
        """Return the security arguments of every aiokafka client."""
        arguments: dict[str, Any] = {
            "security_protocol": self.protocol,
            "ssl_context": self.ssl_context(),
        }
        if self.sasl:
            arguments |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return arguments

    def librdkafka(self) -> dict[str, str]:
        """Return the security keys of a librdkafka configuration."""
        given: dict[str, str | None] = {"security.protocol": self.protocol}
        if self.tls:
            given |= {
                "ssl.endpoint.identification.algorithm": "https",
                "ssl.ca.location": self.ca_file,
                "ssl.certificate.location": self.certificate_file,
                "ssl.key.location": self.key_file,
                "ssl.key.password": self.key_password,
            }
        if self.sasl:
            given |= {
                "sasl.mechanisms": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConnection:
    """Where the cluster is: enough for administration and for producing."""

    bootstrap_servers: str
    security: KafkaSecurity = KafkaSecurity()
    client_id: str = "streamproc"
    request_timeout_s: int = 30

    def aiokafka(self) -> dict[str, Any]:
        """Return the arguments every aiokafka client takes."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": self.request_timeout_s * 1000,
            "retry_backoff_ms": _RETRY_BACKOFF_MS,
            **self.security.aiokafka(),
        }

    def librdkafka(self) -> dict[str, Any]:
        """Return a configuration for a confluent-kafka client that logs nothing."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": self.client_id,
            "socket.timeout.ms": self.request_timeout_s * 1000,
            "log_level": 0,  # failures come back as errors; the library writes to stderr
            **self.security.librdkafka(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaOptions:
    """A consumer's behaviour. Exactly one of `topics` and `pattern` is given.

    Defaults are those of EXACTLY_ONCE.md 1.3. `pattern` must match the whole name of a
    topic. A broker answers once it has `fetch_bytes_min` or after `fetch_wait_ms`: answering at
    every batch that comes in costs a whole core at 10,000 records/s and buys 30 ms.
    `rebalance_timeout_s` has to exceed the drain budget, or a slow drain costs the
    partitions. `fetch_bytes_max` bounds one answer of one broker, `partition_bytes_max`
    one partition in it, both compressed (A9). `records_max` bounds what one call of
    `fetch` returns: exactly for small numbers; as it stands to whole batches, up to 8 MiB
    as received, some 50 ms of work for whoever reads them. `topics_refresh_s` is how soon
    a new topic or partition is noticed. `expected` are topics known by name among those
    that match, `alert_topic` the one we write: rights on them are looked at once connected.
    `raw` is there to be turned off: then records go
    through aiokafka's objects, as they do with `headers`.
    """

    connection: KafkaConnection
    group: str
    topics: tuple[str, ...] = ()
    pattern: str | None = None
    expected: tuple[str, ...] = ()
    alert_topic: str | None = None
    instance_id: str | None = None
    session_timeout_s: int = 45
    heartbeat_s: float = 3
    rebalance_timeout_s: int = 120
    max_poll_interval_s: int = 300
    topics_refresh_s: int = 60
    fetch_wait_ms: int = 50
    fetch_bytes_min: int = 256 * 1024
    fetch_bytes_max: int = 16 * MEBIBYTE
    partition_bytes_max: int = 4 * MEBIBYTE
    records_max: int = 32 * 1024
    headers: bool = False
    raw: bool = True
    ask_timeout_s: int = 10
    hint_timeout_s: int = 5
    stop_timeout_s: int = 10

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other. Raises `ConfigError`."""
        faults = []
        if bool(self.topics) == (self.pattern is not None):
            faults.append("give either topics or a pattern")
        if not 0 < 3 * self.heartbeat_s <= self.session_timeout_s:
            faults.append(
                f"heartbeat ({self.heartbeat_s} s) must be at most a third of "
                f"session_timeout ({self.session_timeout_s} s)"
            )
        if not MEBIBYTE <= self.partition_bytes_max <= 8 * MEBIBYTE:
            faults.append("a partition's fetch limit must lie between 1 and 8 MiB")
        if not 16 * MEBIBYTE <= self.fetch_bytes_max <= 32 * MEBIBYTE:
            faults.append("a fetch limit must lie between 16 and 32 MiB")
        if faults:
            raise ConfigError(*faults)

    def aiokafka(self) -> dict[str, Any]:
        """Return the arguments of the group consumer, except assignor and topics."""
        return {
            **self.connection.aiokafka(),
            "group_id": self.group,
            "group_instance_id": self.instance_id,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "check_crcs": True,
            "session_timeout_ms": self.session_timeout_s * 1000,
            "heartbeat_interval_ms": round(self.heartbeat_s * 1000),
            "rebalance_timeout_ms": self.rebalance_timeout_s * 1000,
            "max_poll_interval_ms": self.max_poll_interval_s * 1000,
            "metadata_max_age_ms": self.topics_refresh_s * 1000,
            "fetch_max_wait_ms": self.fetch_wait_ms,
            "fetch_min_bytes": self.fetch_bytes_min,
            "fetch_max_bytes": self.fetch_bytes_max,
            "max_partition_fetch_bytes": self.partition_bytes_max,
        }
