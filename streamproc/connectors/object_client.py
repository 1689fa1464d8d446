"""One bucket through obstore: single requests, what their failures mean, and who retries.

obstore (the Rust crate object_store) signs and sends; its own retries are switched off, for
three reasons. A create that it repeats inside may be refused because of its own first attempt,
and nobody would know. Its budget starts anew with every call. And a test could not hand it the
time. So `Client.repeat` does it: full jitter (a wait drawn between nothing and an exponential
bound), until `patience_s` have passed, then `Unreachable`.

What is told apart (obstore gives classes for few statuses, the rest is in the text):

* `Missing`, `Taken`: an answer, not a failure. `Taken` covers 412 (somebody's object is there)
  and 409 (a race that may have left nothing), which object_store does not keep apart;
* `Unsure`: 5xx, 408, 429, time-outs, lost connections, torn answers: it may have happened or not;
* `StoreFault`: the store said no (403, no such bucket, wrong region): asking again will not help.

Messages are made here from status, code and text of the answer. The original ones hold request
headers' signatures and never leave this module.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PreconditionError,
)
from obstore.store import S3Store

from streamproc.errors import StoreFault, Unreachable, WorldError

_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_CONNECT_S: Final = 5
_PARTS_AT_ONCE: Final = 4
_TEXT_MAX: Final = 200
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9._-]{1,64})</Code>")
_TEXT: Final = re.compile(r"<Message>([^<]*)</Message>")
_LATER: Final = frozenset({408, 409, 429})
_NOT_FOUND: Final = "404"
_SERVER_FAULTS: Final = 500
_NOT_IMPLEMENTED: Final = 501
# Told by the body alone; some come with status 200 or 400.
_PASSING: Final = frozenset(
    {"InternalError", "SlowDown", "RequestTimeout", "OperationAborted"}
)
_REFUSED: Final = frozenset({"401", "403"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectOptions:
    """How a bucket is reached.

    Without keys the AWS environment is asked: `AWS_*` variables, a web identity, the
    instance's role.

    Attributes:
        prefix: everything lies below it; without slashes at its ends, may be empty.
        endpoint: base URL of the service, None for AWS' own.
        path_style: the bucket in the path instead of the host name.
        allow_http: whether an endpoint may be plain http.
        ca_file: PEM with authorities to trust besides the system's.
        timeout_s: for one request, its body included.
        patience_s: how long failures are repeated before `Unreachable`.
        at_once: how many requests may be under way.
    """

    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    endpoint: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    path_style: bool = False
    allow_http: bool = False
    ca_file: str | None = None
    timeout_s: float = 20.0
    patience_s: float = 30.0
    at_once: int = 8

    @property
    def url(self) -> str:
        """Return the root as operators write it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def for_polars(self) -> dict[str, str]:
        """Return the same as polars' `storage_options`; holds the secret."""
        given = {
            "aws_region": self.region,
            "aws_endpoint_url": self.endpoint,
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "aws_session_token": self.session_token,
            "aws_virtual_hosted_style_request": str(not self.path_style).lower(),
            "aws_allow_http": str(self.allow_http).lower(),
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Time, handed in: µs that never go back, a blocking sleep, a draw from [0, 1)."""

    monotonic_us: Callable[[], int]
    sleep: Callable[[float], None]
    jitter: Callable[[], float]


class Missing(WorldError):
    """Nothing has that name."""


class Taken(WorldError):
    """A create was refused; whether an object is there has to be asked."""


class Unsure(WorldError):
    """Nobody can tell whether it happened."""


class Client:
    """Requests to one bucket, below one prefix. Thread-safe.

    Attributes:
        requests: how many were sent.
        patience_s: as `options` have it, until a closing store has none.

    Raises:
        StoreFault: the options cannot be used.
    """

    def __init__(self, options: ObjectOptions, waiting: Waiting) -> None:
        self.options = options
        self.waiting = waiting
        self.requests = 0
        self.patience_s = options.patience_s
        try:
            self._store = _open(options)
        except (BaseError, ValueError, OSError) as error:
            msg = f"{options.url}: cannot be set up: {_first_line(error)}"
            raise StoreFault(msg) from None

    def repeat(self, what: str, path: str, request: Callable[[], T]) -> T:
        """Return the answer of an idempotent request, asking again while it is unsure.

        Raises:
            Unreachable: still unsure after the patience.
            Missing, StoreFault: what the store said.
        """
        began_us = self.waiting.monotonic_us()
        tries = 0
        while True:
            try:
                return self.once(what, path, request)
            except (
                Unsure,
                Taken,
            ) as error:  # 409: somebody else's request was under way.
                tries += 1
                wait_s = self.backoff_s(tries)
                passed_s = (self.waiting.monotonic_us() - began_us) / 1e6
                if passed_s + wait_s > self.patience_s:
                    msg = f"{error}; gave up after {tries} tries in {passed_s:.0f} s"
                    raise Unreachable(msg) from None
                self.waiting.sleep(wait_s)

    def backoff_s(self, tries: int) -> float:
        """Return how long to wait after so many failures: full jitter."""
        bound = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** min(tries - 1, 10))
        return self.waiting.jitter() * bound

    def once(self, what: str, path: str, request: Callable[[], T]) -> T:
        """Perform one request.

        Raises:
            Missing, Taken, Unsure, StoreFault: see the module.
        """
        self.requests += 1
        try:
            return request()
        except (BaseError, OSError) as error:
            raise self._meaning(what, path, error) from None

    # --- single requests --------------------------------------------------------------

    def put(self, path: str, data: Any, sha256: str) -> None:
        """Put an object in one request; `sha256` becomes its metadata."""
        obstore.put(
            self._store,
            path,
            data,
            attributes={"sha256": sha256},
            use_multipart=False,
        )

    def put_parts(self, path: str, data: Any, sha256: str, part_bytes: int) -> None:
        """Put an object in parts; it appears whole or not at all."""
        obstore.put(
            self._store,
            path,
            data,
            attributes={"sha256": sha256},
            use_multipart=True,
            chunk_size=part_bytes,
            max_concurrency=min(_PARTS_AT_ONCE, self.options.at_once),
        )

    def create(self, path: str, data: bytes, sha256: str) -> None:
        """Put an object unless there is one: `If-None-Match: *`."""
        obstore.put(
            self._store,
            path,
            data,
            attributes={"sha256": sha256},
            mode="create",
            use_multipart=False,
        )

    def get(self, path: str) -> bytes:
        """Return an object's bytes."""
        found = obstore.get(self._store, path)
        data = bytes(found.bytes())
        if len(data) != found.meta["size"]:
            msg = f"got {len(data)} of {found.meta['size']} bytes"
            raise OSError(msg)
        return data

    def head(self, path: str) -> tuple[int, str | None]:
        """Return an object's size, and the sha256 its writer gave it, if any."""
        found = obstore.get(self._store, path, options={"head": True})
        sha256 = found.attributes.get("sha256")
        return found.meta["size"], None if sha256 is None else str(sha256)

    def copy(self, source: str, target: str) -> None:
        """Copy within the bucket, at the server; metadata goes along."""
        obstore.copy(self._store, source, target)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; fine where there is none."""
        obstore.delete(self._store, paths)

    def list_below(self, folder: str, after: str) -> list[tuple[str, int]]:
        """Return (path, size) of every object below a folder, and greater than `after`."""
        pages = obstore.list(
            self._store, prefix=folder or None, offset=after or None, chunk_size=1000
        )
        return [(one["path"], one["size"]) for page in pages for one in page]

    def children(self, folder: str) -> tuple[list[str], list[tuple[str, int]]]:
        """Return the folders directly in a folder, and (path, size) of its objects."""
        found = obstore.list_with_delimiter(self._store, folder or None)
        files = [(one["path"], one["size"]) for one in found["objects"]]
        return sorted(found["common_prefixes"]), sorted(files)

    # --- failures ---------------------------------------------------------------------

    def _meaning(self, what: str, path: str, error: Exception) -> WorldError:
        text = str(error)
        where = f"{self.options.url}/{path}: {what}"
        status, code = _found(_STATUS, text), _found(_CODE, text)
        if isinstance(error, (AlreadyExistsError, PreconditionError)):
            return Taken(f"{where}: {_said(text, status, code)}")
        # The answer to a HEAD has no body that could tell a key from a bucket.
        absent = "NoSuchKey" if code or "performing HEAD" not in text else ""
        if status == _NOT_FOUND and code == absent:
            return Missing(f"{where}: not there")
        said = _said(text, status, code)
        if status in _REFUSED:
            return StoreFault(f"{where}: not allowed: {said}")
        if status and not _passes(int(status), code):
            return StoreFault(f"{where}: {said}")
        return self._lost(where, text, said)

    def _lost(self, where: str, text: str, said: str) -> WorldError:
        """Return what an answer without a telling status means."""
        if "redirect without LOCATION" in text:
            region = self.options.region
            return StoreFault(f"{where}: sent elsewhere; is the region {region!r}?")
        if "BadScheme" in text:
            return StoreFault(f"{where}: an http endpoint, which is not allowed")
        at = self.options.endpoint or f"AWS in {self.options.region}"
        return Unsure(f"{where}: {said or _transport(text)} (at {at})")


def _passes(status: int, code: str) -> bool:
    if status in _LATER or code in _PASSING:
        return True
    return status >= _SERVER_FAULTS and status != _NOT_IMPLEMENTED


def _open(options: ObjectOptions) -> S3Store:
    client: dict[str, Any] = {
        "allow_http": options.allow_http,
        "timeout": timedelta(seconds=options.timeout_s),
        "connect_timeout": timedelta(seconds=min(_CONNECT_S, options.timeout_s)),
    }
    if options.ca_file is not None:
        client["root_certificate"] = Path(options.ca_file).read_bytes()
    given: dict[str, Any] = {
        "endpoint": options.endpoint,
        "access_key_id": options.access_key_id,
        "secret_access_key": options.secret_access_key,
        "session_token": options.session_token,
    }
    return S3Store(
        options.bucket,
        prefix=options.prefix or None,
        region=options.region,
        virtual_hosted_style_request=not options.path_style,
        client_options=client,  # type: ignore[arg-type]  # a TypedDict, built by key
        retry_config={"max_retries": 0},
        **{key: value for key, value in given.items() if value is not None},
    )


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return "" if found is None else found[1]


def _said(text: str, status: str, code: str) -> str:
    words = [f"status {status}" if status else "", code]
    message = "".join(c if c.isprintable() else " " for c in _found(_TEXT, text))
    return ": ".join(filter(None, [" ".join(filter(None, words)), message[:_TEXT_MAX]]))


_TRANSPORT: Final = {
    "dns error": "no such host",
    "ConnectionRefused": "connection refused",
    "ConnectionReset": "connection reset",
    "certificate": "its certificate was not accepted",
    "TimedOut": "no answer in time",
    "timed out": "no answer in time",
    "IncompleteMessage": "the connection ended before the answer",
    "169.254.169.254": "no keys are configured, and this host has none to give",
}


def _transport(text: str) -> str:
    """Say what happened to a connection, in words of ours."""
    for sign, meaning in _TRANSPORT.items():
        if sign in text:
            return meaning
    return "the request failed"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:_TEXT_MAX] if str(error) else repr(error)
