"""URLs and credentials: which endpoint may be sent credentials, and URLs without the secrets in them."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from asyncauth._errors import ConfigurationError

#: A password may hold an `@`, so the last one before the path ends the part.
_USER_IN_URL: Final = re.compile(r"(?<=://)[^/\s'\"<>?#]*@")
_USER: Final = re.compile(r"\A(.*?://)?[^/]*@")


def without_secrets(url: str) -> str:
    """Return a URL without user name, password, query and fragment; `***` marks what was removed."""
    # Not by urlsplit, which finds no user in a URL that is malformed or has no scheme.
    base, *rest = re.split("[?#]", url, maxsplit=1)
    return _USER.sub(r"\1***@", base) + ("?***" if rest and rest[0] else "")


def mask_urls(text: str) -> str:
    """Return a text with `***` in place of the user names and passwords of URLs in it."""
    return _USER_IN_URL.sub("***@", text)


def refuse_plain_http(url: str, what: str, *, region_name: str | None = None) -> None:
    """Refuse an endpoint to which credentials would be sent unencrypted.

    Args:
        url: the endpoint, or the whole URL of a request.
        what: the endpoint's name in the message, such as `STS`.
        region_name: the error's region; None if unknown.

    Raises:
        ConfigurationError: the scheme is not https, and the host is not this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(url):
        raise ConfigurationError(
            f"the {what} endpoint {parts.scheme}://{parts.hostname or ''} is not encrypted, and credentials would be "
            "sent to it in the clear; use https, or pass allow_http_sts=True to permit it",
            region_name=region_name,
        )


def check_endpoint_url(name: str, url: object) -> None:
    """Refuse an endpoint that is not a URL of http or https.

    Args:
        name: name of the parameter, variable or setting, for the message.
        url: the endpoint. User and password in it, and its query, are not quoted.

    Raises:
        ConfigurationError: it has another scheme or none, or no host.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if parts is not None and parts.scheme in {"http", "https"} and parts.hostname:
        return
    quoted = url.rpartition("@")[2].partition("?")[0][:80] if isinstance(url, str) else url
    raise ConfigurationError(f"{name} is {quoted!r}: an endpoint must begin with http:// or https:// and name a host")


def is_loopback(url: str) -> bool:
    """Whether the host of a URL is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
