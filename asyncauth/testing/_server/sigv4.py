"""Verification of request signatures: AWS Signature Version 4, and S3's query signatures of version 2.

Rules: "Signature Version 4 signing process" in the IAM user guide; "REST authentication" (version 2) in the S3 guide.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncauth.testing._server.http import Request

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_MAX_CACHED_KEYS: Final = 50_000
_KEY_CACHE: dict[tuple[str, str, str, str], bytes] = {}
_S3_SUBRESOURCES: Final = frozenset(
    (
        "accelerate",
        "acl",
        "analytics",
        "cors",
        "defaultObjectAcl",
        "delete",
        "inventory",
        "lifecycle",
        "location",
        "logging",
        "metrics",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "restore",
        "retention",
        "select",
        "select-type",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
    )
)


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
    if signed.is_version_2:
        return hmac.compare_digest(_signature_version_2(request, secret), signed.signature)
    if not _body_matches_its_hash(request):
        return False
    key = _signing_key(signed, secret)
    scope = f"{signed.scope_date}/{signed.region}/{signed.service}/aws4_request"
    for canonical in _canonical_requests(request, signed):
        digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        text = f"{_ALGORITHM}\n{signed.date}\n{scope}\n{digest}"
        if hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), signed.signature):
            return True
    return False


def _signing_key(signed: Signed, secret: str) -> bytes:
    cache_key = (secret, signed.scope_date, signed.region, signed.service)
    key = _KEY_CACHE.get(cache_key)
    if key is None:
        if len(_KEY_CACHE) > _MAX_CACHED_KEYS:
            _KEY_CACHE.clear()
        key = f"AWS4{secret}".encode()
        for part in (signed.scope_date, signed.region, signed.service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        _KEY_CACHE[cache_key] = key
    return key


def _body_matches_its_hash(request: Request) -> bool:
    claimed = request.headers.get("x-amz-content-sha256", "")
    return len(claimed) != 64 or hashlib.sha256(request.body).hexdigest() == claimed


def _canonical_requests(request: Request, signed: Signed) -> Sequence[str]:
    """Return the canonical requests that are accepted for this request.

    S3 signs the path as sent; all other services encode it once more. SDKs differ in whether they encode a query
    string given as text again, so both forms are accepted.
    """
    path = request.path or "/"
    if signed.service not in {"s3", "s3express", "s3-outposts"}:
        path = quote(_normalize(path), safe="/~-_.")
    headers = "".join(f"{name}:{_header(request, name)}\n" for name in signed.signed_headers)
    names = ";".join(signed.signed_headers)
    payload = _payload_hash(request, signed)
    queries = dict.fromkeys((_query_as_sent(request.query), _query_encoded(request.query)))
    return [f"{request.method}\n{path}\n{query}\n{headers}\n{names}\n{payload}" for query in queries]


def _payload_hash(request: Request, signed: Signed) -> str:
    claimed = request.headers.get("x-amz-content-sha256")
    if claimed is not None:
        return claimed
    if signed.presigned and signed.service in {"s3", "s3express"}:
        return _UNSIGNED
    return hashlib.sha256(request.body).hexdigest()


def _header(request: Request, name: str) -> str:
    return " ".join(request.headers.get(name, "").split())


def _query_pairs(query: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=")[::2] for pair in query.split("&") if pair]
    return [(name, value) for name, value in pairs if name != "X-Amz-Signature"]


def _query_as_sent(query: str) -> str:
    return "&".join(f"{name}={value}" for name, value in sorted(_query_pairs(query)))


def _query_encoded(query: str) -> str:
    pairs = sorted(
        (quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~")) for name, value in _query_pairs(query)
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def _normalize(path: str) -> str:
    """Remove empty and dot segments (RFC 3986, section 5.2.4); keep a trailing slash."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in {"", "."}:
            kept.append(segment)
    slash = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + slash


def _signature_version_2(request: Request, secret: str) -> str:
    query = parse_qsl(request.query, keep_blank_values=True)
    sub = sorted((name, value) for name, value in query if name in _S3_SUBRESOURCES)
    resource = request.path + ("?" + "&".join(f"{n}={v}" if v else n for n, v in sub) if sub else "")
    amz = {name: value for name, value in request.headers.items() if name.startswith("x-amz-")}
    amz.update({name.lower(): value for name, value in query if name.lower().startswith("x-amz-")})
    expires = dict(query).get("Expires", "")
    headers = "".join(f"{name}:{amz[name]}\n" for name in sorted(amz))
    text = "\n".join(
        (
            request.method,
            request.headers.get("content-md5", ""),
            request.headers.get("content-type", ""),
            expires,
            f"{headers}{resource}",
        )
    )
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()
