"""`streamproc schema`: the schemas of configuration, wire and published tables."""

import json
import sys

import typer

from streamproc.codecs.schema_text import schema_text
from streamproc.codecs.wire_schemas import (
    READING_AVSC,
    READING_JSON_SCHEMA,
    READING_PROTO,
)
from streamproc.config import config_schema
from streamproc.core.schemas import DECODED, PUBLISHED

app = typer.Typer(
    help="Print schemas, as committed under schemas/.", no_args_is_help=True
)

TABLES = {**PUBLISHED, "decoded": DECODED}
WIRE = {"avro": READING_AVSC, "protobuf": READING_PROTO, "json": READING_JSON_SCHEMA}


@app.command("config")
def config() -> None:
    """Print the configuration file's JSON Schema, for editors.

    Example: `streamproc schema config > config.schema.json`
    """
    sys.stdout.write(json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n")


@app.command("table")
def published_table(name: str) -> None:
    """Print a published table's Arrow schema.

    Example: `streamproc schema table readings`
    """
    if name not in TABLES:
        msg = f"choose one of {', '.join(sorted(TABLES))}"
        raise typer.BadParameter(msg)
    sys.stdout.write(schema_text(TABLES[name]))


@app.command("wire")
def wire(format: str) -> None:
    """Print the project's own wire schema: avro, protobuf or json.

    Example: `streamproc schema wire avro > reading.avsc`
    """
    if format not in WIRE:
        msg = f"choose one of {', '.join(sorted(WIRE))}"
        raise typer.BadParameter(msg)
    sys.stdout.write(WIRE[format])
