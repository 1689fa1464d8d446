"""The section about the bucket that `[output] root = "s3://…"` names."""

import re
from typing import Annotated, Final

from pydantic import Field, SecretStr
from pydantic.json_schema import SkipJsonSchema

from streamproc.config.base import Section, option, secret
from streamproc.config.units import Duration, Flag, Matching, Whole, lasting

SCHEME: Final = "s3://"
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._=-]+")
_PREFIX_MAX: Final = 512


class S3(Section):
    """`[s3]`: how the bucket of `[output] root` is reached."""

    endpoint: str | None = option(
        None, "URL of the service, https://…; without it AWS' own, by region."
    )
    region: Annotated[
        str, Matching(r"[A-Za-z0-9-]{1,64}", "must be letters, digits and hyphens")
    ] = option("us-east-1", "Region; what a service of one's own calls itself.")
    access_key_id: str | None = option(
        None,
        "Id of the key. Without a key AWS_* variables, a web identity or the "
        "instance's role are used.",
    )
    secret_access_key: SkipJsonSchema[SecretStr | None] = secret(
        "From a secret file or environment."
    )
    secret_access_key_file: str | None = option(
        None, "File that holds the secret of the key; relative to this file."
    )
    session_token: SkipJsonSchema[SecretStr | None] = secret(
        "From a secret file or environment."
    )
    session_token_file: str | None = option(
        None, "File that holds the token of a temporary key; relative to this file."
    )
    path_style: Flag = option(
        default=False,
        text="Put the bucket into the path instead of the host name, as most services "
        "of one's own want it.",
    )
    allow_plaintext: Flag = option(
        default=False, text="Allow http:// to a host other than this one."
    )
    ca_file: str | None = option(
        None, "PEM with certificate authorities to trust besides the system's."
    )
    timeout_us: Annotated[Duration, lasting("1s", "10m")] = option(
        20_000_000, "Time for one request, its content included.", shown="20s"
    )
    patience_us: Annotated[Duration, lasting("0s", "10m")] = option(
        30_000_000,
        "How long a request that failed is repeated before the store counts as "
        "unreachable.",
        shown="30s",
    )
    at_once: Annotated[Whole, Field(ge=1, le=64)] = option(
        8, "Requests of one process under way at once."
    )


def bucket_of(root: str) -> tuple[str, str]:
    """Return bucket and prefix of `s3://bucket/prefix`.

    Raises:
        ValueError: what is wrong with it.
    """
    bucket, _, prefix = root.removeprefix(SCHEME).rstrip("/").partition("/")
    if not root.startswith(SCHEME):
        msg = "is neither a folder nor s3://bucket/prefix"
        raise ValueError(msg)
    if not _BUCKET.fullmatch(bucket):
        msg = (
            f"{bucket!r} is no bucket: 3 to 63 of a-z, 0-9, dot and hyphen, a letter or "
            "digit at both ends"
        )
        raise ValueError(msg)
    names = prefix.split("/") if prefix else []
    if len(prefix) > _PREFIX_MAX or not all(map(_PREFIX.fullmatch, names)):
        msg = f"{prefix!r} is no prefix: names of letters, digits, dot, _, = and -"
        raise ValueError(msg)
    return bucket, prefix


def is_bucket(root: str) -> bool:
    """Tell whether a root is in an object store."""
    return "://" in root
