"""Verification of request signatures by botocore's own signers: the signature of a request is made again and compared.

botocore's signer is the referee: asyncauth signs most requests by code of its own, which must not judge itself.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import time
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from botocore.auth import UNSIGNED_PAYLOAD, HmacV1QueryAuth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth.testing._server.http import Request

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_S3: Final = frozenset({"s3", "s3express", "s3-outposts"})


@dataclass(slots=True)
class Signed:
    """Claims of a request about its signature, not verified yet.

    `date` is `X-Amz-Date` as sent, and `signed_at` the same as Unix time. `expires_at` is the Unix time at which a
    presigned URL expires, None for a signature in headers. `is_version_2` is True for S3's query signatures of
    version 2.
    """

    access_key_id: str
    region: str
    service: str
    token: str | None
    signature: str
    date: str = ""
    scope_date: str = ""
    signed_headers: tuple[str, ...] = ()
    presigned: bool = False
    signed_at: float = 0.0
    expires_at: float | None = None
    is_version_2: bool = False


class Malformed(Exception):
    """Signature cannot be read."""


def read(request: Request) -> Signed | None:
    """Return the claims of the request's signature; None for an unsigned request.

    Raises:
        Malformed: the request has a signature that cannot be read.
    """
    header = request.headers.get("authorization", "")
    if header.startswith(_ALGORITHM):
        return _read_header(request, header)
    if "X-Amz-Signature=" in request.query:
        return _read_query(dict(parse_qsl(request.query, keep_blank_values=True)))
    if "AWSAccessKeyId=" in request.query:
        return _read_query_version_2(dict(parse_qsl(request.query, keep_blank_values=True)))
    if header.startswith("AWS4-ECDSA"):
        raise Malformed("SigV4A signatures are not simulated")
    return None


def _read_header(request: Request, header: str) -> Signed:
    fields = {
        name.strip(): value.strip()
        for name, _, value in (part.partition("=") for part in header[len(_ALGORITHM) :].split(","))
    }
    try:
        access_key_id, scope_date, region, service, _ = fields["Credential"].split("/")
        date = request.headers["x-amz-date"]
        return Signed(
            access_key_id,
            region,
            service,
            request.headers.get("x-amz-security-token"),
            fields["Signature"],
            date,
            scope_date,
            tuple(fields["SignedHeaders"].split(";")),
            signed_at=_read_date(date),
        )
    except (KeyError, ValueError):
        raise Malformed("Authorization header requires Credential, SignedHeaders, Signature and X-Amz-Date") from None


def _read_query(query: dict[str, str]) -> Signed:
    try:
        access_key_id, scope_date, region, service, _ = query["X-Amz-Credential"].split("/")
        signed_at = _read_date(query["X-Amz-Date"])
        return Signed(
            access_key_id,
            region,
            service,
            query.get("X-Amz-Security-Token"),
            query["X-Amz-Signature"],
            query["X-Amz-Date"],
            scope_date,
            tuple(query["X-Amz-SignedHeaders"].split(";")),
            presigned=True,
            signed_at=signed_at,
            expires_at=signed_at + float(query["X-Amz-Expires"]),
        )
    except (KeyError, ValueError):
        raise Malformed(
            "a presigned URL requires X-Amz-Credential, -Date, -Expires, -SignedHeaders, -Signature"
        ) from None


def _read_query_version_2(query: dict[str, str]) -> Signed:
    try:
        return Signed(
            query["AWSAccessKeyId"],
            "",
            "s3",
            query.get("x-amz-security-token"),
            query["Signature"],
            expires_at=float(query["Expires"]),
            presigned=True,
            is_version_2=True,
        )
    except (KeyError, ValueError):
        raise Malformed("query string authentication requires AWSAccessKeyId, Signature and Expires") from None


@lru_cache(maxsize=1024)
def _read_date(text: str) -> float:
    """Return the Unix time of a date in ISO 8601's basic format.

    Raises:
        ValueError: the text is not such a date.
    """
    return float(calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ")))


def verify(request: Request, signed: Signed, secret: str) -> bool:
    """Return whether the holder of `secret` signed exactly this request."""
    keys: Any = SimpleNamespace(access_key=signed.access_key_id, secret_key=secret, token=None)
    if signed.is_version_2:
        return hmac.compare_digest(_signature_version_2(request, keys), signed.signature)
    claimed = request.headers.get("x-amz-content-sha256", "")
    if len(claimed) == 64 and hashlib.sha256(request.body).hexdigest() != claimed:
        return False
    kind = _S3Signer if signed.service in _S3 else _Signer
    signer = kind(keys, signed.service, signed.region)
    for given in _as_sent_and_encoded(request, signed):
        text = signer.string_to_sign(given, signer.canonical_request(given))
        if hmac.compare_digest(signer.signature(text, given), signed.signature):
            return True
    return False


class _Signer(SigV4Auth):
    """botocore's signer, for the headers that the client chose."""

    def headers_to_sign(self, request: Any) -> Any:
        """Return the headers that the client signed."""
        chosen = AWSRequest()
        for name in request.context["signed_headers"]:
            chosen.headers[name] = request.headers.get(name, "")
        return chosen.headers


class _S3Signer(_Signer, S3SigV4Auth):
    """botocore's signer of S3, which signs the path as sent."""


def _as_sent_and_encoded(request: Request, signed: Signed) -> Iterator[AWSRequest]:
    """Yield the request in the two forms that are accepted.

    SDKs differ in whether they encode a query string given as text again.
    """
    pairs = [pair for pair in request.query.split("&") if pair and not pair.startswith("X-Amz-Signature=")]
    unquoted = [(unquote(name), unquote(value)) for name, _, value in (pair.partition("=") for pair in pairs)]
    url = f"http://{request.headers.get('host', '')}{request.path or '/'}"
    parameters: Any
    for query, parameters in (("?" + "&".join(pairs), {}), ("", unquoted)):
        given = AWSRequest(request.method, url + query, request.headers, request.body, parameters)
        given.context["timestamp"] = signed.date
        given.context["signed_headers"] = signed.signed_headers
        if signed.presigned and signed.service in _S3 and "x-amz-content-sha256" not in request.headers:
            given.headers["X-Amz-Content-SHA256"] = UNSIGNED_PAYLOAD
        yield given
        if not pairs:
            return


class _SignerVersion2(HmacV1QueryAuth):
    """botocore's signer of S3's query signatures of version 2, for the time at which the client's URL expires."""

    def __init__(self, credentials: Any, expires_at: str) -> None:
        super().__init__(credentials)
        self._expires_at = expires_at

    def _get_date(self) -> str:
        return self._expires_at


def _signature_version_2(request: Request, keys: Any) -> str:
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    headers = request.headers | {name.lower(): value for name, value in query.items() if name[:6].lower() == "x-amz-"}
    given: Any = AWSRequest(request.method, request.target, headers)
    signer = _SignerVersion2(keys, query.get("Expires", ""))
    return str(signer.get_signature(request.method, urlsplit(request.target), given.headers))
