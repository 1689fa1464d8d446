"""Checks of the output root, and of how its bucket is reached."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from streamproc.config.addresses import check_url, is_loopback
from streamproc.config.beside import Beside
from streamproc.config.layers import read_layers
from streamproc.config.parsed import Parsed, parse
from streamproc.config.store_options import S3, bucket_of, is_bucket
from streamproc.config.units import format_size
from streamproc.errors import ConfigError

_FETCHES_MIN: Final = 2


def check_output(parsed: Parsed) -> None:
    """Report every fault of `[output]` and `[s3]`."""
    output = parsed.file.output
    if is_bucket(output.root):
        try:
            bucket_of(output.root)
        except ValueError as error:
            parsed.report(("output", "root"), str(error))
    elif not output.root or "\0" in output.root:
        parsed.report(("output", "root"), "is not a folder's name")
    _check_bytes(parsed)
    if output.buffer_bytes < output.flush_bytes:
        message = f"must be at least flush_bytes = {format_size(output.flush_bytes)}"
        parsed.report(("output", "buffer_bytes"), message)
    if parsed.file.s3 is not None:
        check_s3(parsed, parsed.file.s3)


def _check_bytes(parsed: Parsed) -> None:
    given, fetch = parsed.file.intake.bytes_max, parsed.file.source.fetch_bytes
    least = parsed.file.output.buffer_bytes + _FETCHES_MIN * fetch
    if given is not None and given < least:
        message = (
            f"must be at least buffer_bytes + {_FETCHES_MIN} * fetch_bytes = "
            f"{format_size(least)}"
        )
        parsed.report(("intake", "bytes_max"), message)


def check_s3(parsed: Parsed, s3: S3) -> None:
    """Report every fault of `[s3]`."""
    _check_keys(parsed, s3)
    if s3.endpoint is not None:
        _check_endpoint(parsed, s3, s3.endpoint)


def _check_keys(parsed: Parsed, s3: S3) -> None:
    for key in ("secret_access_key", "session_token"):
        if getattr(s3, key) is not None and getattr(s3, f"{key}_file") is not None:
            parsed.report(("s3", f"{key}_file"), "the secret is given twice")
    secret = s3.secret_access_key is not None or s3.secret_access_key_file is not None
    if secret != (s3.access_key_id is not None):
        missing = "access_key_id" if secret else "secret_access_key_file"
        parsed.report(("s3", missing), "id and secret of a key belong together")
    token = s3.session_token is not None or s3.session_token_file is not None
    if token and not secret:
        parsed.report(("s3", "session_token_file"), "belongs to a key; none is given")


def _check_endpoint(parsed: Parsed, s3: S3, endpoint: str) -> None:
    url = check_url(parsed, ("s3", "endpoint"), endpoint)
    if url is None:
        return
    if url.path.strip("/") or url.query or url.fragment:
        parsed.report(("s3", "endpoint"), "must end with its host and port")
    if url.scheme == "http":
        if not is_loopback(url.hostname or "") and not s3.allow_plaintext:
            message = (
                "is not encrypted; use https, or allow_plaintext = true on a network "
                "you trust"
            )
            parsed.report(("s3", "endpoint"), message)
        if s3.ca_file is not None:
            parsed.report(("s3", "ca_file"), "has no effect with an http endpoint")


def load_s3(path: Path | None, env: Mapping[str, str]) -> S3:
    """Return `[s3]` alone, of a configuration or of the environment, for readers of a bucket.

    Whatever else may be wrong with the configuration does not matter here.

    Raises:
        ConfigError: the file cannot be read, or `[s3]` has faults.
    """
    layers = read_layers(path, env, {})
    if not layers.readable:
        raise ConfigError(*layers.lines)
    parsed = parse(layers)
    s3 = parsed.file.s3
    if s3 is not None:
        check_s3(parsed, s3)
        s3 = Beside(Path() if path is None else path.parent, parsed, layers).s3()
    faults = [fault for fault in parsed.faults if fault.path[:1] == ("s3",)]
    if faults:
        raise ConfigError(*dict.fromkeys(map(layers.line, faults)))
    return s3 or S3()
