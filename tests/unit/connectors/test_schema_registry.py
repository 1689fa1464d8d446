"""The registry client: against a real local server, and against one that misbehaves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from streamproc.codecs.wire_schemas import READING_AVSC, READING_PROTO
from streamproc.connectors.schema_registry import HttpSchemaRegistry, RegistryOptions
from streamproc.core.ports import SchemaProblem, WireSchema
from streamproc.errors import ConfigError, StoreFault, Unreachable
from streamproc.testing.registry import LocalRegistry


@dataclass
class World:
    """Manual time, and what was slept."""

    now_us: int = 0
    slept: list[float] = field(default_factory=list)

    def monotonic_us(self) -> int:
        return self.now_us

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


SECRET = "p4ss"  # noqa: S105  (what must not leak)
Handler = (
    Callable[[httpx.Request], httpx.Response]
    | Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]
)


def registry_of(
    handler: Handler | None = None, world: World | None = None, **options: Any
) -> HttpSchemaRegistry:
    world = world or World()
    return HttpSchemaRegistry(
        RegistryOptions(**({"url": "http://registry.test/base"} | options)),
        monotonic_us=world.monotonic_us,
        sleep=world.sleep,
        jitter=lambda: 0.5,
        transport=None if handler is None else httpx.MockTransport(handler),
    )


@pytest.fixture
async def server() -> AsyncIterator[LocalRegistry]:
    with LocalRegistry() as running:
        yield running


async def test_schemas_are_registered_and_fetched_over_http(
    server: LocalRegistry,
) -> None:
    async with registry_of(url=server.url) as registry:
        avro = await registry.register("a/b value", WireSchema("avro", READING_AVSC))
        proto = await registry.register("p", WireSchema("protobuf", READING_PROTO))

        assert (avro, proto) == (1, 2)
        assert (
            await registry.register("again", WireSchema("avro", READING_AVSC)) == avro
        )
        assert await registry.fetch(avro) == WireSchema("avro", READING_AVSC)
        assert await registry.fetch(proto) == WireSchema("protobuf", READING_PROTO)
        problem = await registry.fetch(99)
        assert isinstance(problem, SchemaProblem)
        assert problem.missing
        assert "40403" not in problem.detail
        assert "Schema not found" in problem.detail


async def test_closing_gives_up_what_is_under_way_and_leaves() -> None:
    asked = asyncio.Event()

    async def never(request: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    registry = registry_of(never)
    fetching = asyncio.create_task(registry.fetch(1))
    await asked.wait()
    await registry.close()
    await registry.close()

    with pytest.raises(asyncio.CancelledError):
        await fetching


async def test_the_local_registry_answers_like_confluents(
    server: LocalRegistry,
) -> None:
    server.register("s", "avro", '"string"')
    server.register("s", "protobuf", READING_PROTO)
    async with httpx.AsyncClient(base_url=server.url) as client:

        async def get(path: str) -> tuple[int, Any]:
            answer = await client.get(path)
            return answer.status_code, answer.json()

        assert await get("/subjects") == (200, ["s"])
        assert await get("/schemas/ids/1") == (200, {"schema": '"string"'})
        assert (await get("/subjects/s/versions/latest"))[1]["version"] == 2
        assert (await get("/subjects/s/versions/1"))[1]["id"] == 1
        assert (await get("/subjects/s/versions/3"))[1]["error_code"] == 40402
        assert (await get("/subjects/x/versions/1"))[1]["error_code"] == 40401
        assert (await get("/schemas/ids/x"))[1]["error_code"] == 40403
        assert (await get("/nowhere"))[0] == 404
        path = "/subjects/s/versions"
        assert (await client.post(path, content=b"[")).status_code == 400
        assert (await client.post(path, json={"schema": 1})).status_code == 422
        assert (await client.post(path, content=b"x" * 2_000_000)).status_code == 413
        assert (await client.post("/nowhere", content=b"x" * 10)).status_code == 404
        assert await get("/subjects") == (200, ["s"])


async def test_references_are_fetched_by_subject_and_version_alone(
    server: LocalRegistry,
) -> None:
    server.register("unit", "avro", '{"type":"enum","name":"U","symbols":["a"]}')
    async with httpx.AsyncClient(base_url=server.url) as client:
        reference = {"name": "U", "subject": "unit", "version": 1}
        body = {"schema": '{"a":1}', "references": [reference]}
        schema_id = (await client.post("/subjects/r/versions", json=body)).json()["id"]

    async with registry_of(url=server.url) as registry:
        found = await registry.fetch(schema_id)

    assert isinstance(found, WireSchema)
    assert found.references == (("U", '{"type":"enum","name":"U","symbols":["a"]}'),)


@pytest.mark.parametrize(
    "subject",
    [
        "../../admin",
        "http://169.254.169.254/latest",
        "//evil.test/x",
        "a?b#c",
        "x\r\nHost: y",
    ],
)
async def test_a_hostile_subject_stays_one_step_of_the_path(subject: str) -> None:
    """Whoever may register a schema cannot steer us to another host or path."""
    asked: list[tuple[str, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.host, request.url.raw_path))
        reference = {"name": "https://evil.test/U", "subject": subject, "version": 1}
        inner = request.url.path.endswith("/ids/1")
        return httpx.Response(
            200,
            json={"schema": '{"$ref": "https://evil.test/s"}'}
            | ({"references": [reference]} if inner else {}),
        )

    async with registry_of(answer) as registry:
        found = await registry.fetch(1)

    assert isinstance(found, WireSchema)
    assert {host for host, _ in asked} == {"registry.test"}
    assert len(asked) == 2
    assert (
        asked[1][1] == f"/base/subjects/{quote(subject, safe='')}/versions/1".encode()
    )


@pytest.mark.parametrize("subject", ["", ".", ".."])
async def test_a_subject_that_is_a_step_up_is_never_asked_for(subject: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        reference = {"name": "U", "subject": subject, "version": 1}
        return httpx.Response(200, json={"schema": "{}", "references": [reference]})

    async with registry_of(answer) as registry:
        problem = await registry.fetch(1)

    assert isinstance(problem, SchemaProblem)
    assert problem.missing
    assert asked == ["/base/schemas/ids/1"]


async def test_a_redirect_of_the_registry_is_not_followed() -> None:
    asked: list[str] = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(302, headers={"Location": "http://169.254.169.254/x"})

    async with registry_of(elsewhere) as registry:
        problem = await registry.fetch(1)

    assert isinstance(problem, SchemaProblem)
    assert set(asked) == {"registry.test"}


async def test_references_without_end_are_a_problem() -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        count = len(request.url.path)
        reference = {"name": f"n{count}", "subject": "s" * count, "version": 1}
        return httpx.Response(200, json={"schema": "{}", "references": [reference]})

    async with registry_of(endless) as registry:
        problem = await registry.fetch(1)

    assert isinstance(problem, SchemaProblem)
    assert "references" in problem.detail


async def test_a_schema_is_fetched_once_and_kept() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"schema": "x"})

    async with registry_of(answer, schemas_max=2) as registry:
        both = await asyncio.gather(registry.fetch(1), registry.fetch(1))
        assert list(both) == [WireSchema("avro", "x")] * 2
        await registry.fetch(1)
        assert asked == ["/base/schemas/ids/1"]
        for schema_id in (2, 3, 1):
            await registry.fetch(schema_id)
        assert asked[1:] == [f"/base/schemas/ids/{k}" for k in (2, 3, 1)]


async def test_a_missing_schema_is_believed_for_a_while_only() -> None:
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        body = {"error_code": 40403, "message": "Schema 5 not found"}
        return httpx.Response(404, json=body)

    world = World()
    async with registry_of(answer, world, missing_s=30.0) as registry:
        for now_us, expected in ((0, 1), (29_999_999, 1), (30_000_000, 2)):
            world.now_us = now_us
            problem = await registry.fetch(5)
            assert problem == SchemaProblem(
                missing=True, detail="registry answers 404 Schema 5 not found"
            )
            assert asked == expected
    assert world.slept == []


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_trouble_is_tried_again_with_growing_pauses(status: int) -> None:
    answers = [httpx.Response(status), httpx.Response(status)]
    answers.append(httpx.Response(200, json={"schema": "x"}))
    world = World()

    async with registry_of(lambda _: answers.pop(0), world, backoff_s=0.2) as registry:
        assert await registry.fetch(1) == WireSchema("avro", "x")

    assert world.slept == [0.2, 0.4]


async def test_lasting_trouble_is_a_problem_that_may_heal_and_is_not_kept() -> None:
    down = True

    def answer(request: httpx.Request) -> httpx.Response:
        if down:
            message = "refused"
            raise httpx.ConnectError(message)
        return httpx.Response(200, json={"schema": "x"})

    world = World()
    async with registry_of(answer, world) as registry:
        problem = await registry.fetch(1)
        down = False
        healed = await registry.fetch(1)

    assert problem == SchemaProblem(
        missing=False, detail="registry: ConnectError refused"
    )
    assert len(world.slept) == 2
    assert healed == WireSchema("avro", "x")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(301, headers={"Location": "http://169.254.169.254/"}),
        httpx.Response(302, headers={"Location": "/elsewhere"}),
        httpx.Response(401),
        httpx.Response(403, json={"message": "no\nentry"}),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={"id": 1}),
        httpx.Response(200, json={"schema": 5}),
        httpx.Response(200, json={"schema": "x" * 3_000}),
        httpx.Response(200, content=b"[" * 2_000),
    ],
    ids=range(10),
)
async def test_answers_that_are_no_schema_may_heal(answer: httpx.Response) -> None:
    asked = []

    def once(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return answer

    async with registry_of(once, body_bytes_max=2_500) as registry:
        problem = await registry.fetch(1)

    assert isinstance(problem, SchemaProblem)
    assert not problem.missing
    assert asked == ["http://registry.test/base/schemas/ids/1"]


async def test_a_schema_type_nobody_knows_is_missing() -> None:
    answer = httpx.Response(200, json={"schema": "x", "schemaType": "THRIFT"})
    async with registry_of(lambda _: answer) as registry:
        problem = await registry.fetch(1)

    assert isinstance(problem, SchemaProblem)
    assert problem.missing


@pytest.mark.parametrize("schema_id", [-1, 2**31])
async def test_an_impossible_id_is_never_asked_for(schema_id: int) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError

    async with registry_of(never) as registry:
        problem = await registry.fetch(schema_id)

    assert isinstance(problem, SchemaProblem)
    assert problem.missing


async def test_credentials_are_sent_and_never_shown() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(200, json={"schema": "x"})

    async with registry_of(answer, username="u", password=SECRET) as registry:
        await registry.fetch(1)

    assert seen == ["Basic dTpwNHNz"]
    assert SECRET not in repr(RegistryOptions(url="http://x", password=SECRET))


async def test_a_registry_that_is_not_there_cannot_be_registered_with() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        message = "refused"
        raise httpx.ConnectError(message)

    async with registry_of(refuse) as registry:
        with pytest.raises(Unreachable, match="refused"):
            await registry.register("s", WireSchema("avro", "x"))
    conflict = httpx.Response(409, json={"message": "incompatible"})
    async with registry_of(lambda _: conflict) as registry:
        with pytest.raises(StoreFault, match="incompatible"):
            await registry.register("s", WireSchema("avro", "x"))


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://x"},
        {"url": "registry:8081"},
        {"url": "http://"},
        {"url": "http://user:pass@x"},
        {"url": "http://x?a=b"},
        {"url": "https://x", "ca_file": "does-not-exist.pem"},
        {"url": "https://x", "cert_file": "does-not-exist.pem"},
    ],
)
def test_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="registry"):
        registry_of(**options)
