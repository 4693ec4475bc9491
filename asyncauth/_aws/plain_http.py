"""Where credentials may travel: encrypted, or not beyond this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from asyncauth._errors import ConfigurationError


def refuse_plain_http(url: str, what: str, *, region_name: str | None = None) -> None:
    """Refuse an endpoint to which credentials would travel in the clear.

    Args:
        url: the endpoint, or a request's whole URL.
        what: whose it is, for the message: `STS`.
        region_name: goes into the error.

    Raises:
        ConfigurationError: not https, and not this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(url):
        raise ConfigurationError(
            f"the {what} endpoint {parts.scheme}://{parts.hostname or ''} is not encrypted, and credentials would pass "
            "through it in the clear; use https, or say allow_http_sts=True if you mean it",
            region_name=region_name,
        )


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
