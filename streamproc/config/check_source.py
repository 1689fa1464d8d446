"""Checks of everything that leaves the process: brokers, registry, webhooks, folders."""

import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult

from streamproc.config.addresses import check_url, is_loopback
from streamproc.config.check_job import check_city
from streamproc.config.check_store import check_output
from streamproc.config.faults import KeyPath, nearest
from streamproc.config.file import File
from streamproc.config.parsed import Parsed
from streamproc.config.units import format_duration
from streamproc.kernels.json_parts import KEY_BYTES_MAX

CITY: Final = "{city}"
_SERVER: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})")
_PORT_MAX: Final = 65_535
_HEARTBEATS_PER_SESSION: Final = 3
_FETCHES: Final = 16
_REGISTRY_FORMATS: Final = frozenset({"avro", "protobuf"})
_CODECS: Final[Mapping[str, tuple[str, ...]]] = {
    "json": (
        "device",
        "property",
        "time",
        "value",
        "values",
        "unit",
        "units",
        "quality",
    ),
    **dict.fromkeys(
        ("avro", "protobuf", "arrow"),
        ("device", "property", "time", "value", "values", "unit", "quality"),
    ),
}


def topic_cities(file: File) -> dict[str, str]:
    """Return topic to slug for every topic of a template."""
    return {
        template.replace(CITY, slug): slug
        for template in file.source.topics
        if CITY in template
        for slug in sorted(file.cities)
    }


def bytes_max(file: File) -> int:
    """Return the bound of what is fetched, buffered and being written together."""
    given = file.intake.bytes_max
    if given is not None:
        return given
    return file.output.buffer_bytes + _FETCHES * file.source.fetch_bytes


def shared_topics(file: File) -> tuple[str, ...]:
    """Return the topics that no template places."""
    placed = topic_cities(file)
    plain = (topic for topic in file.source.topics if CITY not in topic)
    return tuple(sorted({topic for topic in plain if topic not in placed}))


def check_source(parsed: Parsed) -> None:
    """Report every fault of what the process connects to."""
    _check_servers(parsed)
    _check_security(parsed)
    _check_times(parsed)
    _check_topics(parsed)
    _check_registry(parsed)
    _check_field_names(parsed)
    _check_webhooks(parsed)
    check_output(parsed)
    if not parsed.file.metrics.host:
        parsed.report(("metrics", "host"), "is empty; 127.0.0.1 is this host only")


# --- the cluster ----------------------------------------------------------------------


def _check_servers(parsed: Parsed) -> None:
    place, source = ("source", "bootstrap_servers"), parsed.file.source
    far = []
    for text in source.bootstrap_servers.split(","):
        found = _SERVER.fullmatch(text.strip())
        if found is None or not 0 < int(found[3]) <= _PORT_MAX:
            parsed.report(place, f"{text.strip()!r} is not host:port")
            continue
        host = found[1] or found[2]
        if not is_loopback(host):
            far.append(host)
    if far and source.protocol == "plaintext" and not source.allow_plaintext:
        message = (
            f"{far[0]} would be reached without encryption; set protocol = "
            '"sasl_ssl" or "ssl", or allow_plaintext = true on a network you trust'
        )
        parsed.report(place, message)


def _check_security(parsed: Parsed) -> None:
    source = parsed.file.source
    if source.protocol == "sasl_ssl":
        if not source.username:
            parsed.report(("source", "username"), "is missing: sasl_ssl logs in")
        if source.password is None and source.password_file is None:
            parsed.report(("source", "password_file"), "is missing: sasl_ssl logs in")
    elif source.username is not None:
        message = f"has no effect with protocol {source.protocol}; sasl_ssl logs in"
        parsed.report(("source", "username"), message)
    if source.password is not None and source.password_file is not None:
        parsed.report(("source", "password_file"), "the password is given twice")
    if source.protocol == "plaintext":
        for key in ("ca_file", "cert_file", "key_file"):
            if getattr(source, key) is not None:
                message = "has no effect with protocol plaintext"
                parsed.report(("source", key), message)
    _check_certificate(parsed, "source", source.cert_file, source.key_file)


def _check_certificate(
    parsed: Parsed, section: str, cert_file: str | None, key_file: str | None
) -> None:
    if key_file is not None and cert_file is None:
        parsed.report((section, "key_file"), "needs cert_file")


def _check_times(parsed: Parsed) -> None:
    source, drain_us = parsed.file.source, parsed.file.shutdown.drain_us
    if source.heartbeat_us * _HEARTBEATS_PER_SESSION > source.session_timeout_us:
        session = format_duration(source.session_timeout_us)
        message = f"must be at most a third of session_timeout = {session}"
        parsed.report(("source", "heartbeat"), message)
    if source.rebalance_timeout_us <= drain_us:
        drain = format_duration(drain_us)
        message = (
            f"must exceed [shutdown] drain = {drain}, or a slow drain costs partitions"
        )
        parsed.report(("source", "rebalance_timeout"), message)


def _check_topics(parsed: Parsed) -> None:
    file, place = parsed.file, ("source", "topics")
    if not file.source.topics:
        parsed.report(place, "names no topic")
    for template in file.source.topics:
        if template.count(CITY) > 1:
            parsed.report(place, f"{template} has {CITY} more than once")
    shared = shared_topics(file)
    listed = parsed.document.get("devices") or file.devices_file
    if shared and not listed:
        message = (
            f"{shared[0]} is shared by all cities: list its devices with devices_file "
            f"or [[devices]], or put {CITY} into the topic"
        )
        parsed.report(place, message)
    placed = topic_cities(file)
    for template in file.source.topics:
        if CITY in template:
            placed |= {template.replace(CITY, slug): slug for slug in parsed.slugs()}
    known = {*placed, *shared}
    for topic in file.source.formats:
        if topic not in known:
            message = f"no such topic; {nearest(topic, known)}"
            parsed.report(("source", "formats", topic), message)
    if file.alerts.topic is not None and file.alerts.topic in known:
        parsed.report(("alerts", "topic"), "is one of the topics that are read")


# --- registry and codecs --------------------------------------------------------------


def _check_registry(parsed: Parsed) -> None:
    file, registry = parsed.file, parsed.file.registry
    used = {file.source.format, *file.source.formats.values()} & _REGISTRY_FORMATS
    if registry is None:
        if used and "registry" not in parsed.document:
            message = f"is missing: {' and '.join(sorted(used))} records need its url"
            parsed.report(("registry",), message)
        return
    url = check_url(parsed, ("registry", "url"), registry.url)
    if url is not None and url.scheme == "http" and not is_loopback(url.hostname or ""):
        if registry.username is not None:
            message = "a password would be sent without encryption; use https"
            parsed.report(("registry", "url"), message)
        elif not registry.allow_plaintext:
            message = "is not encrypted; use https, or allow_plaintext = true"
            parsed.report(("registry", "url"), message)
    secret = registry.password is not None or registry.password_file is not None
    if secret != (registry.username is not None):
        message = "user name and password belong together"
        parsed.report(("registry", "username"), message)
    if registry.password is not None and registry.password_file is not None:
        parsed.report(("registry", "password_file"), "the password is given twice")
    _check_certificate(parsed, "registry", registry.cert_file, registry.key_file)


def _check_field_names(parsed: Parsed) -> None:
    for codec, keys in _CODECS.items():
        fields = getattr(parsed.file, "json_" if codec == "json" else codec)
        first: dict[str, str] = {}
        for key in keys:
            name = getattr(fields, key)
            if not name:
                parsed.report((codec, key), "is empty")
            elif name in first:
                parsed.report((codec, key), f"is also the name of {first[name]}")
            elif codec == "json" and _unusable(name):
                message = "is too long, or has a character that JSON escapes"
                parsed.report((codec, key), message)
            first.setdefault(name, key)


def _unusable(name: str) -> bool:
    """Tell whether the scanner cannot look for a key as it stands in a document."""
    quoted = json.dumps(name, ensure_ascii=False).encode(errors="replace")
    return len(quoted) > KEY_BYTES_MAX or b"\\" in quoted


# --- webhooks -------------------------------------------------------------------------


def _check_webhooks(parsed: Parsed) -> None:
    names: set[str] = set()
    for index, hook in enumerate(parsed.file.webhooks):
        place = ("webhooks", index)
        url = check_url(parsed, (*place, "url"), hook.url)
        if url is not None and url.scheme == "http":
            _check_plain_hook(
                parsed, (*place, "url"), url, allowed=hook.allow_http_loopback
            )
        given = [*hook.secret_files, *([hook.secret_file] if hook.secret_file else [])]
        if not given:
            message = "is missing: deliveries are signed"
            parsed.report((*place, "secret_file"), message)
        if hook.secret_file and hook.secret_files:
            message = "put every file into secret_files"
            parsed.report((*place, "secret_file"), message)
        for at, slug in enumerate(hook.cities):
            check_city(parsed, (*place, "cities", at), slug)
        name = hook.name or (url.hostname if url is not None else None)
        if name is not None and name in names:
            message = f"another webhook is called {name!r}; give each its own name"
            parsed.report((*place, "name"), message)
        names.add(name or "")


def _check_plain_hook(
    parsed: Parsed, place: KeyPath, url: SplitResult, *, allowed: bool
) -> None:
    if not is_loopback(url.hostname or ""):
        parsed.report(place, "must be https")
    elif not allowed:
        message = (
            "must be https; to this host also http with allow_http_loopback = true"
        )
        parsed.report(place, message)
