"""Signature V4 in one pass over the request, for plain requests, which nearly all API calls send.

botocore prepares the whole request to get at its body, traverses the headers twice through `email.message`, and makes
an `hmac` object for each of five digests: three times the work. With awscrt installed it computes in C, but prepares
the request three times. botocore's code still signs requests that are not plain (a query string, a stream, an unsigned
payload, a date header, a repeated header), and all requests while `botocore.auth` logs at DEBUG, which prints the
intermediate strings.
"""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote_plus, urlencode, urlsplit

import botocore.auth
from botocore.auth import SIGNED_HEADERS_BLACKLIST, SIGV4_TIMESTAMP, SigV4Auth, _host_from_url
from botocore.awsrequest import AWSRequest

__all__ = ["FastSigV4Auth", "FastSigning"]

_NOT_SIGNED: Final = frozenset(SIGNED_HEADERS_BLACKLIST)
_MAX_URLS: Final = 512
#: Scopes for one set of credentials: a day has one for each region and service.
_MAX_KEYS: Final = 512

#: Each ASCII character as a form encodes it.
_QUOTED: Final = {code: quote_plus(chr(code)) for code in range(128)}
_log = logging.getLogger("botocore.auth")


def _plain_kinds() -> frozenset[type]:
    try:
        from botocore.crt.auth import CrtSigV4Auth
    except ImportError:  # awscrt is not installed
        return frozenset({SigV4Auth})
    return frozenset({SigV4Auth, CrtSigV4Auth})


_PLAIN: Final = _plain_kinds()


class FastSigning:
    """Mixin for a request signer, before aiobotocore's class in the bases: makes plain signatures on the fast path."""

    async def get_auth_instance(self, *args: Any, **kwargs: Any) -> Any:
        """Return the object that signs one request, as in botocore."""
        auth = await super().get_auth_instance(*args, **kwargs)  # type: ignore[misc]  # the next base is aiobotocore's
        return FastSigV4Auth(auth) if type(auth) in _PLAIN else auth


class FastSigV4Auth(SigV4Auth):
    """Adds the headers to a plain request that botocore's `SigV4Auth` would add.

    Args:
        auth: botocore's object for the same request; it signs requests that are not plain.
    """

    _region_name: str
    _service_name: str
    credentials: Any

    def __init__(self, auth: Any) -> None:
        super().__init__(auth.credentials, auth._service_name, auth._region_name)
        self._auth = auth

    def add_auth(self, request: Any) -> None:
        """Sign a request: set its `X-Amz-Date`, `X-Amz-Security-Token` and `Authorization`."""
        body = _plain_body(request)
        if body is None or self.credentials is None or _log.isEnabledFor(logging.DEBUG):
            self._auth.add_auth(request)
            return
        timestamp = request.context["timestamp"] = botocore.auth.get_current_datetime().strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        host, path = _host_and_path(request.url)
        headers = {"host": host}
        for name, value in request.headers.items():
            lower = name.lower()
            if lower in _NOT_SIGNED:
                continue
            if type(value) is not str or (lower in headers and lower != "host"):
                self._auth.add_auth(request)
                return
            headers[lower] = " ".join(value.split())
        names = sorted(headers)
        canonical = "\n".join(
            [
                f"{request.method.upper()}\n{path}\n",
                *[f"{name}:{headers[name]}" for name in names],
                f"\n{';'.join(names)}\n{sha256(body).hexdigest()}",
            ]
        )
        scope = f"{timestamp[:8]}/{self._region_name}/{self._service_name}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(_signing_key(self.credentials, scope), text.encode(), sha256).hex()
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )


def _signing_key(credentials: Any, scope: str) -> bytes:
    """Return the key that is derived from a secret for a scope: a day, a region and a service.

    It is kept with the credentials: it serves for a day, and is released with them.
    """
    keys: dict[str, bytes] | None = getattr(credentials, "derived_keys", None)
    key = None if keys is None else keys.get(scope)
    if key is None:
        key = f"AWS4{credentials.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), sha256)
        if keys is not None:
            if len(keys) >= _MAX_KEYS:
                keys.clear()
            keys[scope] = key
    return key


def _plain_body(request: Any) -> bytes | None:
    """Return the bytes of the body, or None for a request that is not plain."""
    headers, context, data = request.headers, request.context, request.data
    if (
        type(request) is not AWSRequest
        or request.params
        or "?" in request.url
        or "checksum" in context
        or not context.get("payload_signing_enabled", True)
        or "X-Amz-Content-SHA256" in headers
        or "Date" in headers
    ):
        return None
    kind = type(data)
    if kind is dict:
        return _form(data).encode()
    if kind is bytes:
        return bytes(data)
    if kind is str:
        return str(data).encode()
    return None


def _form(data: dict[Any, Any]) -> str:
    """Return a form encoded as by botocore, which uses `urlencode`."""
    fields = []
    for key, value in data.items():
        text = str(value) if type(value) is int else value
        if not (type(key) is type(text) is str and key.isascii() and text.isascii()):
            return urlencode([(_encoded(key), _encoded(value)) for key, value in data.items()], doseq=True)
        fields.append(f"{key.translate(_QUOTED)}={text.translate(_QUOTED)}")
    return "&".join(fields)


def _encoded(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


_known_urls: dict[str, tuple[str, str]] = {}


def _host_and_path(url: str) -> tuple[str, str]:
    """Return the host as signed, and the canonical path, of a URL without a query."""
    known = _known_urls.get(url)
    if known is None:
        path = SigV4Auth(None, "", "")._normalize_url_path(urlsplit(url).path)
        if len(_known_urls) >= _MAX_URLS:
            _known_urls.clear()
        known = _known_urls[url] = (_host_from_url(url), path)
    return known
