"""`schemas/` says the same as the code."""

import json
from pathlib import Path

import jsonschema
import pytest

from streamproc.codecs.encode import WireReading, encode_json, encode_json_many
from streamproc.codecs.schema_text import SCHEMA_FILES, schema_text
from streamproc.codecs.wire_schemas import (
    READING_AVSC,
    READING_JSON_SCHEMA,
    READING_PROTO,
)
from streamproc.core.schemas import PUBLISHED

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("reading.avsc", READING_AVSC),
        ("reading.proto", READING_PROTO),
        ("reading.schema.json", READING_JSON_SCHEMA),
        *((name, schema_text(schema)) for name, schema in SCHEMA_FILES.items()),
    ],
)
def test_file_and_code_are_equal(name: str, text: str) -> None:
    assert (SCHEMAS / name).read_text(encoding="utf-8") == text


def test_every_published_table_has_its_file_and_no_file_is_left_over() -> None:
    files = {path.name for path in SCHEMAS.glob("*.arrow.txt")}

    assert files == {f"{name}.arrow.txt" for name in (*PUBLISHED, "decoded")}


VALIDATOR = jsonschema.Draft202012Validator(json.loads(READING_JSON_SCHEMA))


def test_the_json_schema_accepts_what_the_encoders_write() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    reading = WireReading("d", "pm10", 1, 1.5, "ug/m3", 1)
    documents = [
        *encode_json([reading, reading._replace(unit=None, quality=None)]),
        encode_json_many("d", 1, {"a": 1.0}, {"a": "u"}),
    ]

    for document in documents:
        VALIDATOR.validate(json.loads(document))


@pytest.mark.parametrize(
    "document",
    [
        {"device": "d", "property": "p", "time": 1},
        {"device": "", "property": "p", "time": 1, "value": 1},
        {"device": "d", "property": "p", "time": "2026-01-31", "value": 1},
        {"device": "d", "property": "p", "time": 1, "value": "1"},
        {"device": "d", "time": 1, "values": {}},
        {"device": "d", "time": 1, "values": {"a": 1}, "value": 1, "property": "p"},
        {"device": "d", "property": "p", "time": 1, "value": 1, "quality": 128},
    ],
)
def test_the_json_schema_refuses_what_the_decoder_refuses(document: object) -> None:
    assert not VALIDATOR.is_valid(document)
