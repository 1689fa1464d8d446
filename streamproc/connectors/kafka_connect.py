"""Why a cluster does not answer, in words an operator can act on.

aiokafka reports every failed bootstrap as "Unable to bootstrap" and keeps the reason to its
log: a wrong password looks like a broker that is down. So after a failure every address is
tried once more by hand, and what went wrong there is told.
"""

import asyncio
import socket
import ssl
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from streamproc.connectors.kafka_settings import KafkaConnection
from streamproc.errors import Unreachable, WorldError

PROBE_TIMEOUT_S = 5

_REFUSED = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)


async def why_unreachable(connection: KafkaConnection) -> WorldError:
    """Try every bootstrap address and return an error that says what happened at each.

    A refused password, mechanism or certificate gives a plain `WorldError` (waiting does
    not help), everything else `Unreachable`.
    """
    findings: list[WorldError] = []
    for host, port, _ in collect_hosts(connection.bootstrap_servers, randomize=False):
        found = await _try(connection, host, port)
        if found is None:
            msg = (
                f"{host}:{port} answers, but the cluster's brokers do not; check the "
                "addresses they advertise (advertised.listeners)"
            )
            findings.append(Unreachable(msg))
        else:
            findings.append(found)
    final = [error for error in findings if not error.retriable]
    kind = WorldError if final else Unreachable
    return kind("Kafka: " + "; ".join(str(error) for error in final or findings))


async def why_no_address(connection: KafkaConnection) -> WorldError | None:
    """Return why no bootstrap address lets us in, None as soon as one does."""
    for host, port, _ in collect_hosts(connection.bootstrap_servers, randomize=False):
        if await _try(connection, host, port) is None:
            return None
    return await why_unreachable(connection)


async def _try(connection: KafkaConnection, host: str, port: int) -> WorldError | None:
    arguments: dict[str, Any] = connection.aiokafka()
    for other in ("bootstrap_servers", "retry_backoff_ms"):  # not a connection's
        del arguments[other]
    arguments["request_timeout_ms"] = PROBE_TIMEOUT_S * 1000
    place = f"{host}:{port}"
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            conn = await create_conn(host, port, **arguments)
    except (KafkaError, OSError, asyncio.IncompleteReadError) as error:
        return _explain(connection, place, error)
    await conn.close()
    return None


def _explain(
    connection: KafkaConnection, place: str, error: BaseException
) -> WorldError:
    security = connection.security
    refusal = next((e for e in _chain(error) if isinstance(e, _REFUSED)), None)
    if refusal is not None:
        return WorldError(
            f"{place} refused user {security.username!r} ({security.mechanism}): "
            f"{refusal}; check user name, password and mechanism"
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return WorldError(
            f"the certificate of {place} is not accepted: {error.verify_message}; "
            f"{_remedy(error)}"
        )
    if isinstance(error, ssl.SSLError):
        return WorldError(
            f"{place} does not speak TLS as we do ({error.reason}); is "
            f"{security.protocol} the listener's protocol?"
        )
    hint = "" if security.tls else "; does the listener expect TLS?"
    return Unreachable(
        _silence(place, error) or f"{place} closed the connection ({error}){hint}"
    )


_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    """Say what to do about a certificate, by OpenSSL's code of what is wrong with it."""
    if error.verify_code == _EXPIRED:
        return "renew the broker's certificate (or its authority's)"
    if error.verify_code in _OTHER_NAME:
        return "use the name that stands in it, or have this one added to it"
    return "name the authority that signed it in [source] ca_file"


def _silence(place: str, error: BaseException) -> str | None:
    """Name the ordinary reasons why nobody answers."""
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {place}"
    if isinstance(error, socket.gaierror):
        return f"the host name of {place} is not known"
    if isinstance(error, TimeoutError):
        return f"{place} does not answer within {PROBE_TIMEOUT_S} s"
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and all that caused it."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
