"""Webhooks against real local servers: signing, pinning, refusals, retries."""

import base64
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from streamproc.connectors.webhook import (
    WebhookRejected,
    Webhooks,
    WebhookTarget,
    parse_key,
    signed_headers,
    verify,
    webhook_body,
)
from streamproc.core.values import AlertTransition
from streamproc.errors import ConfigError, Unreachable, WorldError

KEY = b"k" * 32
OLD_KEY = b"o" * 24
NOW_S = 1_790_000_000
ALERT = AlertTransition(
    alert_id="0123456789abcdef0123456789abcdef",
    transition=0,
    state="firing",
    rule="pm10-hour-high",
    rule_version="00ff00ff00ff00ff",
    severity="warning",
    city="razlog",
    device="стан-1",
    property="pm10",
    window="1h",
    event_us=1_790_000_000_123_456,
    value=51.5,
    source="telemetry.razlog/0",
    offset=7,
    early=False,
)


@dataclass
class Got:
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses it is given in turn, the last one for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Got] = []
        self.statuses = [204]
        self.names: list[str | None] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def use_tls(self, certificate: Path, key: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.sni_callback = lambda _s, name, _c: self.names.append(name)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that refuse our certificate hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        self.server.got.append(
            Got(self.path, dict(self.headers.items()), self.rfile.read(size))
        )
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.send_response(status)
        if status in (301, 307):
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class InstantClock:
    """Sleeps no time and remembers how long it should have."""

    def __init__(self, wall_s: int = NOW_S) -> None:
        self.wall_s = wall_s
        self.slept: list[float] = []

    def monotonic_us(self) -> int:
        return 0

    def wall_us(self) -> int:
        return self.wall_s * 1_000_000

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass
class Names:
    """A resolver: answers in turn, the last one for ever; counts the questions."""

    answers: list[Sequence[str]]
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "hook.pem", folder / "hook.key"
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example",
            "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def plain(receiver: Receiver, **changes: object) -> WebhookTarget:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    target = WebhookTarget(url=url, keys=(KEY,), allow_http_loopback=True)
    return replace(target, **changes)  # type: ignore[arg-type]


def secure(receiver: Receiver, certificate: Path, **changes: object) -> WebhookTarget:
    target = WebhookTarget(
        url=f"https://hooks.example:{receiver.port}/hook",
        keys=(KEY,),
        allow_networks=("127.0.0.0/8",),
        ca_file=str(certificate),
    )
    return replace(target, **changes)  # type: ignore[arg-type]


async def send(
    target: WebhookTarget,
    alerts: Sequence[AlertTransition] = (ALERT,),
    *,
    clock: InstantClock | None = None,
    resolve: Callable[[str, int], Awaitable[Sequence[str]]] | None = None,
) -> None:
    hooks = Webhooks(
        [target], clock=clock or InstantClock(), jitter=lambda: 0.5, resolve=resolve
    )
    try:
        await hooks.send(alerts)
    finally:
        await hooks.close()
        await hooks.close()


async def test_an_alert_arrives_as_signed_json(receiver: Receiver) -> None:
    await send(plain(receiver))

    (got,) = receiver.got
    number = verify(got.headers, got.body, [KEY], NOW_S)
    assert number == f"{ALERT.alert_id}.0"
    document = json.loads(got.body)
    assert document["type"] == "alert.firing"
    assert document["timestamp"] == "2026-09-21T14:13:20.123456Z"
    assert document["data"] == {
        "city": "razlog",
        "alert_id": ALERT.alert_id,
        "transition": 0,
        "state": "firing",
        "rule": "pm10-hour-high",
        "rule_version": "00ff00ff00ff00ff",
        "severity": "warning",
        "device": "стан-1",
        "property": "pm10",
        "window": "1h",
        "event_time": "2026-09-21T14:13:20.123456Z",
        "value": 51.5,
        "source": "telemetry.razlog/0",
        "offset": 7,
    }


async def test_two_keys_give_two_signatures_and_either_verifies(
    receiver: Receiver,
) -> None:
    await send(plain(receiver, keys=(KEY, OLD_KEY)))

    (got,) = receiver.got
    headers = {name.lower(): value for name, value in got.headers.items()}
    assert len(headers["webhook-signature"].split()) == 2
    verify(got.headers, got.body, [KEY], NOW_S)
    verify(got.headers, got.body, [OLD_KEY], NOW_S)


def test_the_signature_is_the_standards_own_example() -> None:
    # The vector of the Standard Webhooks specification's reference libraries.
    key = parse_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}', [key]
    )

    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-signature"] == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-signature": "v1,AAAA"}, "no signature"),
        ({"webhook-signature": ""}, "no signature"),
        ({"webhook-id": "another.0"}, "no signature"),
        ({"webhook-timestamp": str(NOW_S + 1)}, "no signature"),
        ({"webhook-timestamp": "12e9"}, "not a number"),
        ({"webhook-timestamp": "9" * 400}, "not a number"),
        ({"webhook-timestamp": str(NOW_S - 301)}, "off"),
        ({"webhook-timestamp": str(NOW_S + 301)}, "off"),
    ],
)
def test_a_changed_header_is_rejected(change: dict[str, str], reason: str) -> None:
    headers = signed_headers("a.0", NOW_S, b"{}", [KEY])

    with pytest.raises(WebhookRejected, match=reason):
        verify(headers | change, b"{}", [KEY], NOW_S)


def test_another_body_another_key_or_a_missing_header_is_rejected() -> None:
    headers = signed_headers("a.0", NOW_S, b"{}", [KEY])

    with pytest.raises(WebhookRejected, match="no signature"):
        verify(headers, b"{ }", [KEY], NOW_S)
    with pytest.raises(WebhookRejected, match="no signature"):
        verify(headers, b"{}", [OLD_KEY], NOW_S)
    with pytest.raises(WebhookRejected, match="webhook-id is missing"):
        verify({}, b"{}", [KEY], NOW_S)


def test_a_replay_is_old_after_five_minutes_and_known_by_its_id_before() -> None:
    headers = signed_headers("a.0", NOW_S, b"{}", [KEY])

    assert verify(headers, b"{}", [KEY], NOW_S + 300) == "a.0"
    with pytest.raises(WebhookRejected, match="off"):
        verify(headers, b"{}", [KEY], NOW_S + 301)


async def test_tls_verifies_the_name_while_the_connection_goes_to_the_address(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    receiver.use_tls(*certificate)
    names = Names([["127.0.0.1"]])

    await send(secure(receiver, certificate[0]), resolve=names)

    (got,) = receiver.got
    assert got.headers["Host"] == f"hooks.example:{receiver.port}"
    assert receiver.names == ["hooks.example"]
    assert names.asked == [("hooks.example", receiver.port)]


async def test_a_certificate_for_another_name_is_not_accepted(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    receiver.use_tls(*certificate)
    url = f"https://other.example:{receiver.port}/hook"
    target = secure(receiver, certificate[0], url=url, attempts_max=1)

    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        await send(target, resolve=Names([["127.0.0.1"]]))

    assert not receiver.got


async def test_a_name_that_is_bound_anew_leads_to_the_address_that_was_checked(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    receiver.use_tls(*certificate)
    names = Names([["127.0.0.1"], ["169.254.169.254"]])

    await send(secure(receiver, certificate[0]), resolve=names)

    assert len(names.asked) == 1
    assert len(receiver.got) == 1


async def test_a_name_bound_anew_before_a_retry_is_refused(
    receiver: Receiver, certificate: tuple[Path, Path]
) -> None:
    receiver.use_tls(*certificate)
    receiver.statuses = [503]
    names = Names([["127.0.0.1"], ["169.254.169.254"]])

    with pytest.raises(
        WorldError, match=r"169\.254\.169\.254, which is not public"
    ) as told:
        await send(secure(receiver, certificate[0]), resolve=names)

    assert not told.value.retriable
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "100.64.0.1", "0.0.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1%eth0",
        "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
async def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    target = WebhookTarget(url="https://hooks.example/x", keys=(KEY,))
    clock = InstantClock()

    with pytest.raises(WorldError, match="not public"):
        await send(target, clock=clock, resolve=Names([[address]]))

    assert not clock.slept


async def test_one_private_address_among_public_ones_spoils_the_answer() -> None:
    target = WebhookTarget(url="https://hooks.example/x", keys=(KEY,))

    with pytest.raises(WorldError, match=r"10\.0\.0\.8"):
        await send(target, resolve=Names([["93.184.215.14", "10.0.0.8"]]))


@pytest.mark.parametrize("host", ["169.254.169.254", "[::1]", "[::ffff:7f00:1]"])
async def test_an_address_in_the_url_is_checked_too(host: str) -> None:
    names = Names([["93.184.215.14"]])
    target = WebhookTarget(url=f"https://{host}/x", keys=(KEY,))

    with pytest.raises(WorldError, match="not public"):
        await send(target, resolve=names)

    assert not names.asked


async def test_plain_http_leads_to_loopback_only() -> None:
    target = WebhookTarget(
        url="http://hooks.example/x", keys=(KEY,), allow_http_loopback=True,
        allow_networks=("10.0.0.0/8",),
    )  # fmt: skip

    for address in ("93.184.215.14", "10.0.0.8"):
        with pytest.raises(WorldError, match="not public"):
            await send(target, resolve=Names([[address]]))


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.statuses = [307, 204]

    with pytest.raises(WorldError, match="status 307") as told:
        await send(plain(receiver))

    assert not told.value.retriable
    assert [got.path for got in receiver.got] == ["/hook"]


async def test_a_busy_receiver_is_tried_again_with_jitter_and_the_same_id(
    receiver: Receiver,
) -> None:
    receiver.statuses = [503, 429, 500, 204]
    clock = InstantClock()

    await send(plain(receiver, backoff_s=4.0, backoff_s_max=10.0), clock=clock)

    assert clock.slept == [2.0, 4.0, 5.0]
    assert {got.headers["webhook-id"] for got in receiver.got} == {
        f"{ALERT.alert_id}.0"
    }


async def test_attempts_are_bounded(receiver: Receiver) -> None:
    receiver.statuses = [500]

    with pytest.raises(Unreachable, match="3 attempts, last status 500") as told:
        await send(plain(receiver, attempts_max=3))

    assert told.value.retriable
    assert len(receiver.got) == 3


async def test_a_refused_alert_is_not_tried_again(receiver: Receiver) -> None:
    receiver.statuses = [400]

    with pytest.raises(WorldError, match="status 400") as told:
        await send(plain(receiver))

    assert not told.value.retriable
    assert len(receiver.got) == 1


async def test_nobody_listening_is_unreachable(receiver: Receiver) -> None:
    target = plain(receiver, attempts_max=2, url="http://127.0.0.1:1/hook")

    with pytest.raises(Unreachable, match="2 attempts"):
        await send(target)


async def test_a_target_gets_its_cities_only_and_in_order(receiver: Receiver) -> None:
    alerts = [
        ALERT,
        replace(ALERT, city="jelgava", alert_id="f" * 32),
        replace(ALERT, transition=1, state="cleared"),
    ]

    await send(plain(receiver, cities=("razlog",)), alerts)

    numbers = [got.headers["webhook-id"] for got in receiver.got]
    assert numbers == [f"{ALERT.alert_id}.0", f"{ALERT.alert_id}.1"]


async def test_what_a_target_took_is_not_repeated_because_of_another(
    receiver: Receiver,
) -> None:
    silent = plain(receiver, url="http://127.0.0.1:1/hook", attempts_max=1)
    hooks = Webhooks(
        [plain(receiver), silent], clock=InstantClock(), jitter=lambda: 0.0
    )

    for _ in range(2):
        with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1: 1 attempts"):
            await hooks.send([ALERT])
    await hooks.close()

    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://hooks.example/x"},
        {"url": "ftp://hooks.example/x", "allow_http_loopback": True},
        {"url": "https:///x"},
        {"url": "https://me:secret@hooks.example/x"},
        {"url": "https://hooks.example/x#y"},
        {"keys": ()},
        {"keys": (KEY, KEY, KEY)},
        {"keys": (b"short",)},
    ],
)
def test_a_target_that_must_not_be_sent_to_is_refused(
    changes: dict[str, object],
) -> None:
    fine = WebhookTarget(url="https://hooks.example/x", keys=(KEY,))

    with pytest.raises(ConfigError, match="webhook"):
        replace(fine, **changes)  # type: ignore[arg-type]


def test_keys_are_never_shown() -> None:
    secret = base64.b64encode(KEY).decode()

    assert parse_key(f"whsec_{secret}\n") == KEY
    assert "kkkk" not in repr(WebhookTarget(url="https://hooks.example/", keys=(KEY,)))
    for text in (secret, "whsec_%%%", "whsec_" + secret[:8]):
        with pytest.raises(ConfigError) as told:
            parse_key(text)
        assert secret[:8] not in str(told.value)


def test_a_value_that_is_missing_is_null_in_the_body() -> None:
    document = json.loads(webhook_body(replace(ALERT, value=None, window=None)))

    assert document["data"]["value"] is None
    assert document["data"]["window"] is None
