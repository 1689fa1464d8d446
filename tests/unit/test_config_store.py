"""`[s3]`: what is read, what is handed on, and what never shows a secret."""

from pathlib import Path

import pytest

from streamproc.app.outside import object_options
from streamproc.app.reading import open_root
from streamproc.config import describe, load_s3
from streamproc.connectors.object_client import ObjectOptions
from streamproc.errors import ConfigError, InputError
from tests.support.configs import LEAST, settings

BUCKET = """
[output]
root = "s3://telemetry/region/one/"
[s3]
endpoint = "https://s3.example:9000"
region = "eu-north-1"
access_key_id = "AK"
secret_access_key_file = "s3.secret"
session_token_file = "s3.token"
path_style = true
timeout = "5s"
patience = "1m"
at_once = 4
"""


def test_a_bucket_and_its_keys_become_the_store_s_options(tmp_path: Path) -> None:
    (tmp_path / "s3.secret").write_text("geheim\n")
    (tmp_path / "s3.token").write_text("kurz\n")

    found = settings(tmp_path, BUCKET + LEAST)

    assert object_options(found.output.root, found.s3) == ObjectOptions(
        bucket="telemetry",
        prefix="region/one",
        region="eu-north-1",
        endpoint="https://s3.example:9000",
        access_key_id="AK",
        secret_access_key="geheim",  # noqa: S106
        session_token="kurz",  # noqa: S106
        path_style=True,
        timeout_s=5.0,
        patience_s=60.0,
        at_once=4,
    )
    assert "geheim" not in f"{found!r}{describe(found)!r}"
    assert describe(found)["output"]["endpoint"] == "https://s3.example:9000"


def test_a_bucket_without_a_section_is_aws_and_its_environment(tmp_path: Path) -> None:
    found = settings(tmp_path, '[output]\nroot = "s3://telemetry"\n' + LEAST)

    options = object_options(found.output.root, found.s3)

    assert (options.bucket, options.prefix, options.endpoint) == ("telemetry", "", None)
    assert options.access_key_id is None
    assert describe(found)["output"]["keys"] == "of the AWS environment"


def test_readers_take_the_section_from_the_environment_alone(tmp_path: Path) -> None:
    variables = {
        "STREAMPROC_S3__ENDPOINT": "http://127.0.0.1:7070",
        "STREAMPROC_S3__ACCESS_KEY_ID": "AK",
        "STREAMPROC_S3__SECRET_ACCESS_KEY": "geheim",
        "STREAMPROC_S3__PATH_STYLE": "true",
    }

    options = object_options("s3://telemetry/x", load_s3(None, variables))

    assert options.endpoint == "http://127.0.0.1:7070"
    assert (options.secret_access_key, options.path_style) == ("geheim", True)
    assert options.allow_http
    del variables["STREAMPROC_S3__SECRET_ACCESS_KEY"]
    with pytest.raises(ConfigError, match="belong together"):
        load_s3(None, variables)


def test_what_is_no_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        open_root(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="'Up' is no bucket"):
        open_root("s3://Up/x", env={})
