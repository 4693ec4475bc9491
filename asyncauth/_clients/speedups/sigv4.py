"""Signature V4 in one pass over the request, for the plain requests that nearly all API calls are.

botocore prepares the whole request to get at its body, goes over the headers twice through `email.message`, and makes
an `hmac` object for each of five digests: three times the work; with awscrt installed it goes to C, but prepares the
request three times. What is not plain (a query string, a stream, a payload that is not signed, a date header, the same
header twice) is signed by botocore's code, and so is everything while the log of `botocore.auth` is at DEBUG, which
wants the intermediate strings.
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

#: What each character of plain text is in a form.
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
    """A base for a request signer, to go before aiobotocore's: plain signatures are made the quick way."""

    #: The key that was derived last. It serves for a day, unless the credentials change before.
    derived: DerivedKey | None = None

    async def get_auth_instance(self, *args: Any, **kwargs: Any) -> Any:
        """Return what signs one request, as in botocore."""
        auth = await super().get_auth_instance(*args, **kwargs)  # type: ignore[misc]  # the next base is aiobotocore's
        return FastSigV4Auth(auth, self) if type(auth) in _PLAIN else auth


class DerivedKey:
    """A key derived for a scope: a day, a region and a service."""

    __slots__ = ("_key", "_scope", "_secret_key")

    def __init__(self, secret_key: str, scope: str) -> None:
        self._secret_key = secret_key
        self._scope = scope
        key = f"AWS4{secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), sha256)
        self._key = key

    def serves(self, secret_key: str, scope: str) -> bool:
        """Whether it is the key of these."""
        return self._scope == scope and self._secret_key == secret_key

    def sign(self, text: str) -> str:
        """Return the signature of a text."""
        return hmac.digest(self._key, text.encode(), sha256).hex()


class FastSigV4Auth(SigV4Auth):
    """Gives a plain request the headers that botocore's `SigV4Auth` gives it.

    Args:
        auth: the one of botocore's that this stands for; it signs what is not plain.
        signer: whose it is.
    """

    _region_name: str
    _service_name: str
    credentials: Any

    def __init__(self, auth: Any, signer: FastSigning) -> None:
        super().__init__(auth.credentials, auth._service_name, auth._region_name)
        self._auth = auth
        self._signer = signer

    def add_auth(self, request: Any) -> None:
        """Sign a request: set its `X-Amz-Date`, `X-Amz-Security-Token` and `Authorization`."""
        body = _plain_body(request)
        if body is None or self.credentials is None or _log.isEnabledFor(logging.DEBUG):
            self._auth.add_auth(request)
            return
        timestamp = request.context["timestamp"] = botocore.auth.get_current_datetime().strftime(SIGV4_TIMESTAMP)
        self._modify_request_before_signing(request)
        host, path = _where(request.url)
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
        signature = self._key(scope).sign(
            f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        )
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    def _key(self, scope: str) -> DerivedKey:
        secret_key, derived = self.credentials.secret_key, self._signer.derived
        if derived is None or not derived.serves(secret_key, scope):
            derived = self._signer.derived = DerivedKey(secret_key, scope)
        return derived


def _plain_body(request: Any) -> bytes | None:
    """Return the bytes that will be sent, or None for a request that is not plain."""
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
        body = _form(data)
        # Kept beside it, to be sent: it would have to be encoded once more.
        request.encoded = (data, body)
        return body.encode()
    if kind is bytes:
        return bytes(data)
    if kind is str:
        return str(data).encode()
    return None


def _form(data: dict[Any, Any]) -> str:
    """Return a form as botocore encodes it: what `urlencode` gives."""
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


def _where(url: str) -> tuple[str, str]:
    """Return the host as signed, and the path in canonical form, of a URL without a query."""
    known = _known_urls.get(url)
    if known is None:
        path = SigV4Auth(None, "", "")._normalize_url_path(urlsplit(url).path)
        if len(_known_urls) >= _MAX_URLS:
            _known_urls.clear()
        known = _known_urls[url] = (_host_from_url(url), path)
    return known
