"""Hosts and URLs in a configuration."""

import ipaddress
from urllib.parse import SplitResult, urlsplit

from streamproc.config.faults import Fault, KeyPath
from streamproc.config.parsed import Parsed


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine, without asking anyone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(parsed: Parsed, place: KeyPath, text: str) -> SplitResult | None:
    """Report what is no plain http(s) URL; user names and passwords are refused in it."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        url, port = SplitResult("", "", "", "", ""), None
    if url.scheme not in {"http", "https"} or not url.hostname or port == 0:
        parsed.report(place, "is not an http:// or https:// URL")
        return None
    if url.username is not None or url.password is not None:
        # Without the value: it holds the secret.
        message = "a secret does not belong in a URL"
        parsed.faults.append(Fault(place, message))
        return None
    return url
