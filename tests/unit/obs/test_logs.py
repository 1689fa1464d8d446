"""Logs: JSON lines, without secrets, without control characters, bounded."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from streamproc.obs.logs import ITEMS_MAX, TEXT_MAX, clean, configure, printable


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log to; the process's logging is put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = before, level
    for name in ("aiokafka", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_log_is_one_json_object_a_line(stream: io.StringIO) -> None:
    configure("info", "json", stream)

    structlog.get_logger("streamproc.test").info(
        "committed", n=7, city="Ånge", x=float("nan")
    )

    (line,) = lines(stream)
    assert line["event"] == "committed"
    assert (line["n"], line["city"], line["x"]) == (7, "Ånge", "nan")
    assert (line["level"], line["logger"]) == ("info", "streamproc.test")
    assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_dropped(stream: io.StringIO) -> None:
    configure("warning", "json", stream)

    structlog.get_logger("a").info("no")
    logging.getLogger("b").info("no")
    structlog.get_logger("a").error("yes")

    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_libraries_log_the_same_way(stream: io.StringIO) -> None:
    configure("info", "json", stream)

    logging.getLogger("some.library").warning("node %d\nis gone", 3)
    logging.getLogger("aiokafka.consumer").info("chatter")

    (line,) = lines(stream)
    assert line["event"] == "node 3\\nis gone"
    assert line["logger"] == "some.library"


def test_context_is_part_of_every_line(stream: io.StringIO) -> None:
    configure("info", "json", stream)
    structlog.contextvars.bind_contextvars(job="region")

    structlog.get_logger("a").info("x")

    assert lines(stream)[0]["job"] == "region"


def test_a_traceback_keeps_its_end_and_loses_its_secrets(stream: io.StringIO) -> None:
    configure("info", "json", stream)

    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        message = "cannot log in to kafka://u:geheim@host with password=geheim"
        raise ValueError(message)

    try:
        fail(200)
    except ValueError:
        structlog.get_logger("a").exception("failed")

    (line,) = lines(stream)
    assert line["exception"].splitlines()[-1].startswith("ValueError: cannot log in")
    assert "geheim" not in stream.getvalue()


def test_configuring_again_replaces_what_was_set(stream: io.StringIO) -> None:
    configure("info", "json", io.StringIO())
    configure("info", "json", stream)

    structlog.get_logger("a").info("once")

    assert len(lines(stream)) == 1


def test_the_console_form_is_for_people(stream: io.StringIO) -> None:
    configure("debug", "console", stream)

    structlog.get_logger("a").debug("hello", topic="t\x1b[2J")

    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "sasl_plain_password",
        "api_key",
        "Authorization",
        "webhook_secret",
        "token",
    ],
)
def test_values_of_secret_keys_are_masked_at_every_depth(key: str) -> None:
    found = clean(
        None, "info", {"event": "x", key: "geheim", "options": {"a": [{key: "geheim"}]}}
    )

    assert "geheim" not in json.dumps(found)
    assert found[key] == "***"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:geheim@host/path",
        "password=geheim",
        "sasl password: 'geheim'",
        '{"client_secret": "geheim"}',
        "api_key=geheim&x=1",
    ],
)
def test_secrets_inside_texts_are_masked(text: str) -> None:
    assert "geheim" not in printable(text)


def test_ordinary_texts_stay_as_they_are() -> None:
    text = "telemetry.razlog/0: 3 records, secretary of Kežmarok, tokens 5"

    assert printable(text) == text


@given(st.text(max_size=300))
def test_a_printed_text_is_one_line_of_visible_characters(text: str) -> None:
    found = printable(text)

    assert len(found.splitlines()) <= 1
    assert not any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in found
    )
    assert found.encode() is not None  # no lone surrogate


def test_long_texts_and_lists_are_cut() -> None:
    found = clean(None, "info", {"event": "x" * 10_000, "rows": list(range(1000))})

    assert len(found["event"]) == TEXT_MAX + 1
    assert len(found["rows"]) == ITEMS_MAX


def test_deep_and_odd_values_become_text() -> None:
    deep: Any = "end"
    for _ in range(50):
        deep = [deep]

    found = clean(
        None, "info", {"event": "x", "deep": deep, "raw": b"\x00\xff", "n": {1: {2}}}
    )

    assert json.loads(json.dumps(found))["raw"] == "b'\\x00\\xff'"
    assert found["n"] == {"1": [2]}
