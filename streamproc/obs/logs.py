"""Logs: one JSON object a line, secrets masked, control characters escaped, bounded.

Nothing logs per record; parts log once per batch or per change through `structlog`, and
what libraries log through `logging` takes the same way out.
"""

import logging
import math
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

TEXT_MAX: Final = 2_000
TRACE_MAX: Final = 8_000
ITEMS_MAX: Final = 50
DEPTH_MAX: Final = 4
MASK: Final = "***"

_SECRET_KEY: Final = re.compile(
    r"passw|secret|token|credential|authori[sz]ation|api_?key|private_?key|sasl_plain|cookie",
    re.IGNORECASE,
)
_USER_INFO: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)
_IN_TEXT: Final = re.compile(
    r"(?i)\b((?:\w*passw\w*|\w*secret\w*|\w*token|api_?key)['\"]?\s*[=:]\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;&}]+)"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]


def configure(
    level: Level,
    format: Format,  # noqa: A002  (the configuration's word)
    stream: TextIO,
    worker: int | None = None,
) -> None:
    """Send every log of the process to `stream`, from `level` on; replaces what was set.

    `json` is for machines, `console` for people. Where a supervisor runs several processes,
    `worker` is the number of this one and part of every JSON line.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if worker is not None and format == "json":
        shared.append(_Numbered(worker))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.PositionalArgumentsFormatter(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                clean,
                _renderer(format),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("aiokafka", "httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


class _Numbered:
    """Puts the number of this process into every entry."""

    def __init__(self, worker: int) -> None:
        self._worker = worker

    def __call__(
        self,
        logger: Any,  # noqa: ARG002  (structlog's signature)
        method: str,  # noqa: ARG002
        event: MutableMapping[str, Any],
    ) -> MutableMapping[str, Any]:
        event["worker"] = self._worker
        return event


def _renderer(format: Format) -> Processor:  # noqa: A002  (the configuration's word)
    if format == "json":
        return structlog.processors.JSONRenderer(sort_keys=True, ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=False)


def clean(
    logger: Any,  # noqa: ARG001  (structlog's signature)
    method: str,  # noqa: ARG001
    event: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """Mask secrets, escape control characters and bound every value of a log entry."""
    trace = event.pop("exception", None)
    entry = {printable(str(key)): _item(key, item, 1) for key, item in event.items()}
    if trace is not None:
        entry["exception"] = _traceback(str(trace))
    return entry


def _traceback(text: str) -> str:
    """Return the end of a traceback, where the cause stands; its line ends stay."""
    lines = text[-TRACE_MAX:].split("\n")
    return "\n".join(printable(line) for line in lines)


def printable(text: str) -> str:
    r"""Return `text` on one line: control characters as \xNN, secrets masked, cut at 2,000."""
    masked = _USER_INFO.sub(rf"\1{MASK}@", text[: 2 * TEXT_MAX])
    masked = _IN_TEXT.sub(rf"\1{MASK}", masked)
    safe = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], masked)
    return safe if len(safe) <= TEXT_MAX else safe[:TEXT_MAX] + "…"


def _plain(value: Any, depth: int) -> Any:
    """Return what JSON knows, to a bounded depth and breadth."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):  # JSON has no NaN
        return value
    if depth < DEPTH_MAX and isinstance(value, Mapping):
        pairs = list(value.items())[:ITEMS_MAX]
        return {printable(str(key)): _item(key, item, depth + 1) for key, item in pairs}
    if depth < DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
    return printable(str(value))


def _item(key: object, value: Any, depth: int) -> Any:
    return MASK if _SECRET_KEY.search(str(key)) else _plain(value, depth)
