"""Alerts to web hooks, signed as https://www.standardwebhooks.com says.

One request a transition: `webhook-id` is `<alert_id>.<transition>`, `webhook-timestamp` the
second it is sent, `webhook-signature` one `v1,<base64>` for each key: HMAC-SHA256 over
`<id>.<timestamp>.<body>`. A retry keeps the id, so a receiver can drop what it has.

A target comes from the operator's file, but names are resolved by others: every attempt
resolves once, refuses addresses that are not public, and connects to just the address it
has checked (`webhook_pin`). Redirects are not followed.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httpx
import msgspec

from streamproc.connectors.webhook_pin import (
    AddressRefused,
    PinnedTransport,
    Resolve,
    resolve_by_system,
    tls_context,
)
from streamproc.core.alerts import alert_document
from streamproc.core.ports import Clock
from streamproc.core.values import AlertTransition
from streamproc.errors import ConfigError, Unreachable, WorldError

TOLERANCE_S: Final = 300
"""How far a timestamp may be from the receiver's clock (SECURITY.md 15)."""

KEYS_MAX: Final = 2
KEY_PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 65)
"""What the standard asks of a secret."""

ANSWER_BYTES_MAX: Final = 64 * 1024
_RETRIABLE: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTarget:
    """Where alerts are posted.

    Attributes:
        url: https, without user, password or fragment.
        keys: one secret, or two while the receiver changes over; never shown by `repr`.
        cities: slugs whose alerts go there; empty = all.
        allow_http_loopback: take an http URL, which then leads to a loopback address only.
        allow_networks: networks that may be connected to although they are not public,
            as `10.1.0.0/16`.
        ca_file: PEM bundle to verify the server with; None for the system's.
        timeout_s: of one attempt, from name resolution to the end of the answer.
        attempts_max: attempts before `send` gives up.
        backoff_s, backoff_s_max: before attempt k the pause is a random part of
            `min(backoff_s_max, backoff_s * 2**(k - 1))` ("full jitter").
    """

    url: str
    keys: tuple[bytes, ...] = field(repr=False)
    cities: tuple[str, ...] = ()
    allow_http_loopback: bool = False
    allow_networks: tuple[str, ...] = ()
    ca_file: str | None = None
    timeout_s: float = 10.0
    attempts_max: int = 5
    backoff_s: float = 0.5
    backoff_s_max: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what must never be sent to. Raises `ConfigError` with every fault."""
        if faults := [*_url_faults(self), *_key_faults(self.keys)]:
            raise ConfigError(*faults)


class WebhookRejected(ValueError):
    """A receiver must not act on this request; the message says why."""


class Webhooks:
    """An `AlertSink` for one or several targets; each gets its alerts in order.

    What a target has taken is not sent to it again when `send` is repeated because of
    another one.

    Args:
        targets: where to.
        clock: wall clock for the timestamps, sleep for the pauses.
        jitter: returns a number in [0, 1), to spread attempts.
        resolve: host name and port to addresses; None for the system's resolver.
    """

    def __init__(
        self,
        targets: Sequence[WebhookTarget],
        *,
        clock: Clock,
        jitter: Callable[[], float],
        resolve: Resolve | None = None,
    ) -> None:
        self._lanes = tuple(
            _Lane(target, clock, jitter, resolve or resolve_by_system)
            for target in targets
        )

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        """Return once every target has taken all of its alerts.

        Raises:
            Unreachable: a target did not answer, or asked to come back later.
            WorldError: a target refused an alert or redirected, or may not be connected to.
        """
        outcomes = await asyncio.gather(
            *(lane.send(alerts) for lane in self._lanes), return_exceptions=True
        )
        failed = [outcome for outcome in outcomes if outcome is not None]
        for error in failed:
            if not isinstance(error, WorldError):
                raise error
        if failed:
            kind = Unreachable if any(_may_heal(e) for e in failed) else WorldError
            raise kind("; ".join(str(error) for error in failed))
        for lane in self._lanes:
            lane.taken.clear()

    async def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes:
            await lane.close()


class _Lane:
    """One target, its connections, and what it has taken of an unfinished `send`."""

    def __init__(
        self,
        target: WebhookTarget,
        clock: Clock,
        jitter: Callable[[], float],
        resolve: Resolve,
    ) -> None:
        self._target = target
        url = httpx.URL(target.url)
        # A path may hold a token, so messages stop before it.
        self._label = f"webhook {url.scheme}://{url.host}"
        self._clock = clock
        self._jitter = jitter
        # One client a target: pooled connections are told apart by address and port only,
        # so two names behind one address would share a connection verified for one.
        self._client = httpx.AsyncClient(
            transport=PinnedTransport(
                resolve,
                networks=target.allow_networks,
                loopback=target.allow_http_loopback,
                context=tls_context(target.ca_file),
            ),
            timeout=target.timeout_s,
            follow_redirects=False,
            trust_env=False,
        )
        self.taken: set[str] = set()

    async def send(self, alerts: Sequence[AlertTransition]) -> None:
        for alert in alerts:
            if self._target.cities and alert.city not in self._target.cities:
                continue
            number = webhook_id(alert)
            if number not in self.taken:
                await self._deliver(number, webhook_body(alert))
                self.taken.add(number)

    async def close(self) -> None:
        await self._client.aclose()

    async def _deliver(self, number: str, body: bytes) -> None:
        problem = ""
        for attempt in range(self._target.attempts_max):
            if attempt:
                longest_s = self._target.backoff_s * 2.0 ** (attempt - 1)
                await self._clock.sleep(
                    self._jitter() * min(longest_s, self._target.backoff_s_max)
                )
            try:
                status = await self._attempt(number, body)
            except AddressRefused as error:
                msg = f"{self._label}: {error}"
                raise WorldError(msg) from error
            except (httpx.TransportError, OSError, TimeoutError) as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
                return
            problem = f"status {status}"
            if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _RETRIABLE:
                msg = f"{self._label}: refused {number}: {problem}"
                raise WorldError(msg)
        msg = f"{self._label}: {self._target.attempts_max} attempts, last {problem}"
        raise Unreachable(msg)

    async def _attempt(self, number: str, body: bytes) -> int:
        now_s = self._clock.wall_us() // 1_000_000
        headers = {
            "content-type": "application/json",
            "user-agent": "streamproc",
            **signed_headers(number, now_s, body, self._target.keys),
        }
        async with (
            asyncio.timeout(self._target.timeout_s),
            self._client.stream(
                "POST", self._target.url, content=body, headers=headers
            ) as answer,
        ):
            size = 0
            async for piece in answer.aiter_raw():
                size += len(piece)
                if size > ANSWER_BYTES_MAX:
                    break  # nobody reads it; the connection is not used again
            return answer.status_code


def webhook_id(alert: AlertTransition) -> str:
    """Return `<alert_id>.<transition>`, the same for every attempt."""
    return f"{alert.alert_id}.{alert.transition}"


def webhook_body(alert: AlertTransition) -> bytes:
    """Return the JSON body: `type`, `timestamp` (event time) and `data`."""
    data = alert_document(alert)
    return msgspec.json.encode(
        {
            "type": f"alert.{alert.state}",
            "timestamp": data["event_time"],
            "data": data,
        }
    )


def signed_headers(
    number: str, timestamp_s: int, body: bytes, keys: Sequence[bytes]
) -> dict[str, str]:
    """Return the three headers of the standard, one signature for each key."""
    return {
        "webhook-id": number,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(
            _signature(number, str(timestamp_s), body, key) for key in keys
        ),
    }


def verify(
    headers: Mapping[str, str], body: bytes, keys: Sequence[bytes], now_s: float
) -> str:
    """Check a request as a receiver must, and return its `webhook-id`.

    A replay within the five minutes carries a known id: drop ids you have seen.

    Args:
        headers: of the request; names in any case.
        body: the bytes as received, before any parsing.
        keys: the secrets that are valid now.
        now_s: the receiver's clock, seconds since 1970 UTC.

    Raises:
        WebhookRejected: a header is missing, the timestamp is more than five minutes off,
            or no signature is by one of the keys.
    """
    low = {name.lower(): value for name, value in headers.items()}
    try:
        number = low["webhook-id"]
        timestamp = low["webhook-timestamp"]
        signatures = low["webhook-signature"].split()
    except KeyError as error:
        msg = f"header {error.args[0]} is missing"
        raise WebhookRejected(msg) from error
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):  # noqa: PLR2004  (a bound, so that int() stays cheap)
        msg = "webhook-timestamp is not a number of seconds"
        raise WebhookRejected(msg)
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        msg = f"webhook-timestamp is more than {TOLERANCE_S} s off"
        raise WebhookRejected(msg)
    good = False
    for key in keys:
        expected = _signature(number, timestamp, body, key).encode()
        for given in signatures:
            good |= hmac.compare_digest(given.encode(errors="replace"), expected)
    if not good:
        msg = "no signature is by a known key"
        raise WebhookRejected(msg)
    return number


def parse_key(text: str) -> bytes:
    """Return the bytes of `whsec_<base64>`, the form secrets have in files.

    Raises:
        ConfigError: another form, or not 24 to 64 bytes; the secret is not in the message.
    """
    encoded = text.strip()
    try:
        if not encoded.startswith(KEY_PREFIX):
            raise ValueError  # noqa: TRY301  (one message for every malformed secret)
        key = base64.b64decode(encoded.removeprefix(KEY_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        msg = f"a webhook key is {KEY_PREFIX} and base64"
        raise ConfigError(msg) from None
    if faults := _key_faults((key,)):
        raise ConfigError(*faults)
    return key


def _signature(number: str, timestamp: str, body: bytes, key: bytes) -> str:
    signed = b"%s.%s.%s" % (number.encode(errors="replace"), timestamp.encode(), body)
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _may_heal(error: Any) -> bool:
    return isinstance(error, WorldError) and error.retriable


def _key_faults(keys: Sequence[bytes]) -> list[str]:
    if not 1 <= len(keys) <= KEYS_MAX:
        return [f"a webhook has 1 or {KEYS_MAX} keys, not {len(keys)}"]
    return [
        f"a webhook key has {KEY_BYTES.start} to {KEY_BYTES.stop - 1} bytes, not {len(key)}"
        for key in keys
        if len(key) not in KEY_BYTES
    ]


def _url_faults(target: WebhookTarget) -> list[str]:
    try:
        url = httpx.URL(target.url)
    except httpx.InvalidURL as error:
        return [f"webhook URL: {error}"]
    faults = []
    if url.scheme != "https" and not (
        url.scheme == "http" and target.allow_http_loopback
    ):
        faults.append(
            f"webhook {url.scheme}://{url.host}: https is needed "
            "(allow_http_loopback permits http to this host itself)"
        )
    if not url.host:
        faults.append("webhook URL: no host")
    if url.userinfo or url.fragment:
        faults.append(f"webhook {url.host}: no user, password or fragment in the URL")
    return faults
