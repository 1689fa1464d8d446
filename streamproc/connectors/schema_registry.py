"""Writer schemas by id over the Confluent schema-registry HTTP API.

One fixed base URL, integer ids only, no redirect is followed and no URL out of a schema
is ever opened. Schemas are immutable, so what was found is kept (bounded); what was not
found is asked for again after a while; trouble of the registry is a problem that may heal.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import quote

import httpx
import msgspec

from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.errors import ConfigError, StoreFault, Unreachable

_RETRIABLE: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_KINDS: Final = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json"}
_ID_MAX: Final = (1 << 31) - 1
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """How to reach the registry.

    Attributes:
        url: base URL, http or https, without query; a path prefix is kept.
        password: never shown by `repr`.
        ca_file: PEM bundle to verify the server with; None for the system's.
        cert_file, key_file: PEM client certificate, for mutual TLS.
        timeout_s: of one HTTP exchange.
        attempts_max: exchanges tried for one schema before it is a problem.
        backoff_s: first pause between attempts; doubles, with jitter.
        body_bytes_max: a longer answer is refused.
        missing_s: how long "there is no such schema" is believed.
        schemas_max: schemas kept.
        references_max: referenced schemas fetched for one schema.
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    timeout_s: float = 5.0
    attempts_max: int = 3
    backoff_s: float = 0.2
    body_bytes_max: int = 1 << 20
    missing_s: float = 30.0
    schemas_max: int = 10_000
    references_max: int = 16


class _Reference(msgspec.Struct):
    name: str
    subject: str
    version: int


class _Answer(msgspec.Struct, rename="camel"):
    schema: str
    schema_type: str = "AVRO"
    references: list[_Reference] = []


class _Registered(msgspec.Struct):
    id: int


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes


class _Trouble(Exception):
    """The registry did not answer as it should; `missing` as in `SchemaProblem`."""

    def __init__(self, detail: str, *, missing: bool = False) -> None:
        super().__init__(detail)
        self.problem = SchemaProblem(missing, detail)


class HttpSchemaRegistry:
    """`SchemaRegistry` over HTTP. Use as an async context manager, or call `close`.

    Args:
        options: where and how.
        monotonic_us: microseconds that never go back.
        sleep: suspends between attempts.
        jitter: returns a number in [0, 1), to spread attempts.
        transport: for tests; None for the network.
    """

    def __init__(
        self,
        options: RegistryOptions,
        *,
        monotonic_us: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._options = options
        self._monotonic_us = monotonic_us
        self._sleep = sleep
        self._jitter = jitter
        self._client = _client(options, transport)
        self._found: OrderedDict[int, WireSchema] = OrderedDict()
        self._absent: OrderedDict[int, tuple[int, SchemaProblem]] = OrderedDict()
        self._fetching: dict[int, asyncio.Task[WireSchema | SchemaProblem]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up what is under way and release the connections; safe twice."""
        fetching = list(self._fetching.values())
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
        await self._client.aclose()

    async def fetch(self, schema_id: int) -> WireSchema | SchemaProblem:
        """Return the schema; concurrent calls for one id share one exchange."""
        known = self._known(schema_id)
        if known is not None:
            return known
        task = self._fetching.get(schema_id)
        if task is None:
            task = asyncio.create_task(self._fetch(schema_id))
            self._fetching[schema_id] = task
            task.add_done_callback(lambda _: self._fetching.pop(schema_id, None))
        # A caller that is cancelled must not take the others' answer along.
        return await asyncio.shield(task)

    async def register(self, subject: str, schema: WireSchema) -> int:
        """Register a schema under a subject and return its id (tools and tests).

        Raises:
            Unreachable: the registry does not answer.
            StoreFault: the registry refuses the schema.
        """
        kind = next(name for name, ours in _KINDS.items() if ours == schema.kind)
        body = msgspec.json.encode({"schema": schema.text, "schemaType": kind})
        try:
            path = ["subjects", subject, "versions"]
            reply = await self._exchange("POST", path, body)
        except _Trouble as trouble:
            raise Unreachable(trouble.problem.detail) from trouble
        if reply.status != HTTPStatus.OK:
            message = f"{subject}: {_complaint(reply)}"
            raise StoreFault(message)
        return msgspec.json.decode(reply.body, type=_Registered).id

    def _known(self, schema_id: int) -> WireSchema | SchemaProblem | None:
        if not 0 <= schema_id <= _ID_MAX:
            return SchemaProblem(missing=True, detail=f"{schema_id} is no schema id")
        if schema_id in self._found:
            self._found.move_to_end(schema_id)
            return self._found[schema_id]
        if schema_id in self._absent:
            until_us, problem = self._absent[schema_id]
            if self._monotonic_us() < until_us:
                return problem
            del self._absent[schema_id]
        return None

    async def _fetch(self, schema_id: int) -> WireSchema | SchemaProblem:
        try:
            schema = await self._read(schema_id)
        except _Trouble as trouble:
            problem = trouble.problem
            if problem.missing:
                until_us = self._monotonic_us() + int(self._options.missing_s * 1e6)
                self._absent[schema_id] = (until_us, problem)
                _trim(self._absent, self._options.schemas_max)
            return problem
        self._found[schema_id] = schema
        _trim(self._found, self._options.schemas_max)
        return schema

    async def _read(self, schema_id: int) -> WireSchema:
        answer = await self._get(["schemas", "ids", str(schema_id)])
        kind = _KINDS.get(answer.schema_type)
        if kind is None:
            detail = f"schema type {answer.schema_type[:32]!r} is not known"
            raise _Trouble(detail, missing=True)
        texts: dict[str, str] = {}
        await self._referenced(answer, texts, 0)
        return WireSchema(kind, answer.schema, tuple(texts.items()))

    async def _referenced(
        self, answer: _Answer, texts: dict[str, str], fetched: int
    ) -> int:
        """Collect the texts a schema refers to, those they refer to first."""
        for reference in answer.references:
            if reference.name in texts:
                continue
            fetched += 1
            if fetched > self._options.references_max:
                detail = f"more than {self._options.references_max} references"
                raise _Trouble(detail, missing=True)
            if reference.subject in {"", ".", ".."}:
                # What joins URLs takes these for steps; no quoting helps.
                detail = f"a reference to the subject {reference.subject!r}"
                raise _Trouble(detail, missing=True)
            version = str(reference.version)
            path = ["subjects", reference.subject, "versions", version]
            inner = await self._get(path)
            fetched = await self._referenced(inner, texts, fetched)
            texts[reference.name] = inner.schema
        return fetched

    async def _get(self, path: list[str]) -> _Answer:
        reply = await self._exchange("GET", path)
        if reply.status == HTTPStatus.NOT_FOUND:
            raise _Trouble(_complaint(reply), missing=True)
        if reply.status != HTTPStatus.OK:
            # 401, 403 and the like are the operator's to heal, so they may heal.
            raise _Trouble(_complaint(reply))
        try:
            return msgspec.json.decode(reply.body, type=_Answer)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            message = f"the registry's answer is no schema: {error}"
            raise _Trouble(message) from error

    async def _exchange(
        self, method: str, path: list[str], body: bytes | None = None
    ) -> _Reply:
        detail = ""
        for attempt in range(self._options.attempts_max):
            if attempt:
                pause_s = self._options.backoff_s * 2 ** (attempt - 1)
                await self._sleep(pause_s * (0.5 + self._jitter()))
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    reply = await self._once(method, path, body)
            except (httpx.HTTPError, TimeoutError, OSError) as error:
                detail = f"registry: {type(error).__name__} {error}".rstrip()
                continue
            if reply.status not in _RETRIABLE:
                return reply
            detail = _complaint(reply)
        raise _Trouble(detail)

    async def _once(self, method: str, path: list[str], body: bytes | None) -> _Reply:
        url = "/".join(quote(one, safe="") for one in path)
        limit = self._options.body_bytes_max
        async with self._client.stream(method, url, content=body) as response:
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > limit:
                    message = f"the registry's answer exceeds {limit} bytes"
                    raise _Trouble(message)
            return _Reply(response.status_code, bytes(data))


def _client(
    options: RegistryOptions, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """Return a client bound to the base URL.

    Raises:
        ConfigError: the URL or the TLS files cannot be used.
    """
    url = httpx.URL(options.url)
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.userinfo:
        message = "registry URL needs http or https, a host, no user and no query"
        raise ConfigError(message)
    auth = None
    if options.username is not None:
        auth = httpx.BasicAuth(options.username, options.password or "")
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file is not None:
            context.load_cert_chain(options.cert_file, options.key_file)
    except OSError as error:
        message = f"registry TLS files: {error}"
        raise ConfigError(message) from error
    return httpx.AsyncClient(
        base_url=url,
        auth=auth,
        verify=context,
        timeout=options.timeout_s,
        follow_redirects=False,
        trust_env=False,
        transport=transport,
        headers={"Accept": _CONTENT_TYPE, "Content-Type": _CONTENT_TYPE},
    )


def _complaint(reply: _Reply) -> str:
    """Return what the registry says went wrong, shortened."""
    message: Any = ""
    try:
        document = msgspec.json.decode(reply.body)
        if isinstance(document, dict):
            message = document.get("message", "")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    return f"registry answers {reply.status} {str(message)[:200]}".rstrip()


def _trim(cache: OrderedDict[int, Any], entries_max: int) -> None:
    while len(cache) > entries_max:
        cache.popitem(last=False)
