"""A real schema registry on a local port: enough of the Confluent API for demo and tests.

Speaks `POST /subjects/{subject}/versions`, `GET /subjects/{subject}/versions/{version}`,
`GET /subjects`, `GET /schemas/ids/{id}`; keeps everything in memory; gives the same
schema the same id, from 1.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Lock, Thread
from typing import Any, Final, Self
from urllib.parse import unquote

BODY_BYTES_MAX: Final = 1 << 20
_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"


@dataclass(frozen=True, slots=True)
class _Refusal(Exception):
    status: HTTPStatus
    code: int
    message: str


class _Schemas:
    """The registry's content; every method is atomic."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_id: dict[int, dict[str, Any]] = {}
        self._ids: dict[str, int] = {}
        self._subjects: dict[str, list[int]] = {}

    def register(self, subject: str, document: Mapping[str, Any]) -> int:
        text = document.get("schema")
        kind = document.get("schemaType", "AVRO")
        references = document.get("references", [])
        if not isinstance(text, str) or kind not in {"AVRO", "PROTOBUF", "JSON"}:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            raise _Refusal(status, 42201, "Invalid schema")
        schema = {"schema": text, "schemaType": kind, "references": references}
        with self._lock:
            identity = json.dumps(schema, sort_keys=True)
            schema_id = self._ids.setdefault(identity, len(self._ids) + 1)
            self._by_id[schema_id] = schema
            versions = self._subjects.setdefault(subject, [])
            if schema_id not in versions:
                versions.append(schema_id)
        return schema_id

    def by_id(self, schema_id: str) -> dict[str, Any]:
        with self._lock:
            if not schema_id.isdecimal() or int(schema_id) not in self._by_id:
                raise _Refusal(HTTPStatus.NOT_FOUND, 40403, "Schema not found")
            return _plain(self._by_id[int(schema_id)])

    def version(self, subject: str, version: str) -> dict[str, Any]:
        with self._lock:
            versions = self._subjects.get(subject)
            if versions is None:
                raise _Refusal(HTTPStatus.NOT_FOUND, 40401, "Subject not found")
            number = len(versions) if version == "latest" else version
            if not str(number).isdecimal() or not 1 <= int(number) <= len(versions):
                raise _Refusal(HTTPStatus.NOT_FOUND, 40402, "Version not found")
            schema_id = versions[int(number) - 1]
            return {
                "subject": subject,
                "id": schema_id,
                "version": int(number),
                **_plain(self._by_id[schema_id]),
            }

    def subjects(self) -> list[str]:
        with self._lock:
            return sorted(self._subjects)


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the real registry leaves out: type AVRO and empty references."""
    return {
        key: value
        for key, value in schema.items()
        if value != [] and (key, value) != ("schemaType", "AVRO")
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.schemas = _Schemas()
        self.clients = 0
        self.changed = Condition()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._count(1)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self._count(-1)

    def _count(self, clients: int) -> None:
        with self.changed:
            self.clients += clients
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object, **__: object) -> None:
        """Say nothing: a demo's screen is not an access log."""

    def _answer(self) -> None:
        body = self._body()
        try:
            status, document = HTTPStatus.OK, self._route(body)
        except _Refusal as refusal:
            status = refusal.status
            document = {"error_code": refusal.code, "message": refusal.message}
        answer = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _route(self, body: bytes | None) -> Any:
        path = self.path.partition("?")[0]
        parts = [unquote(part) for part in path.strip("/").split("/")]
        schemas = self.server.schemas
        match self.command, parts:
            case "GET", ["schemas", "ids", schema_id]:
                return schemas.by_id(schema_id)
            case "GET", ["subjects"]:
                return schemas.subjects()
            case "GET", ["subjects", subject, "versions", version]:
                return schemas.version(subject, version)
            case "POST", ["subjects", subject, "versions"]:
                return {"id": schemas.register(subject, _document(body))}
        raise _Refusal(HTTPStatus.NOT_FOUND, 404, "HTTP 404 Not Found")

    def _body(self) -> bytes | None:
        """Read all of the request's body, or it would be taken for the next request.

        Returns None for a body that is too large, which is read and dropped.
        """
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal():
            self.close_connection = True
            return None
        left = int(length)
        if left <= BODY_BYTES_MAX:
            return self.rfile.read(left)
        while left and (chunk := self.rfile.read(min(left, BODY_BYTES_MAX))):
            left -= len(chunk)
        return None


def _document(body: bytes | None) -> Mapping[str, Any]:
    if body is None:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        raise _Refusal(status, 413, "Content-Length wrong or too large")
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _Refusal(HTTPStatus.BAD_REQUEST, 400, "Not a JSON object")
    return document


class LocalRegistry:
    """The registry on 127.0.0.1; a context manager that starts and stops it.

    ```python
    with LocalRegistry() as registry:
        schema_id = registry.register("readings-value", "avro", READING_AVSC)
        options = RegistryOptions(url=registry.url)
    ```

    Args:
        port: 0 takes a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self._server = _Server(port)
        self._thread = Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="schema-registry",
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def clients(self) -> int:
        """How many connections are open."""
        return self._server.clients

    def wait_until_left(self, timeout_s: float) -> bool:
        """Tell whether every client has closed its connection, within the time given."""
        server = self._server
        with server.changed:
            return server.changed.wait_for(lambda: not server.clients, timeout_s)

    def register(self, subject: str, kind: str, text: str) -> int:
        """Register a schema of kind avro, protobuf or json without HTTP; return its id."""
        document = {"schema": text, "schemaType": kind.upper()}
        return self._server.schemas.register(subject, document)
