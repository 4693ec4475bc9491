"""Check of SigV4 signatures in raw requests, written from the specification, independent of every client's signer."""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache

_AUTHORIZATION = re.compile(
    rb"(?i)\r\nauthorization: *AWS4-HMAC-SHA256 Credential=[^/]+/(\d{8})/([^/]+)/([^/]+)/aws4_request, *"
    rb"SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})"
)


@lru_cache(maxsize=20_000)
def _signing_key(secret: str, date: bytes, region: bytes, service: bytes) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    return key


def signature_is_right(head: bytes, body: bytes, secret: str) -> bool:
    """Return whether the request (its head without the final empty line) was signed with `secret`.

    Supports only the requests of these benchmarks: POST to `/` without a query.
    """
    found = _AUTHORIZATION.search(head)
    if found is None:
        return False
    date, region, service, signed, signature = found.groups()
    request_line, *lines = head.split(b"\r\n")
    headers = {name.lower(): b" ".join(value.split()) for name, _, value in (line.partition(b":") for line in lines)}
    if any(name not in headers for name in signed.split(b";")):
        return False
    method, path, _ = request_line.split(b" ", 2)
    canonical = b"\n".join(
        [
            method,
            path,
            b"",
            *(b"%s:%s" % (name, headers[name]) for name in signed.split(b";")),
            b"",
            signed,
            hashlib.sha256(body).hexdigest().encode(),
        ]
    )
    scope = b"/".join((date, region, service, b"aws4_request"))
    text = b"\n".join(
        (b"AWS4-HMAC-SHA256", headers.get(b"x-amz-date", b""), scope, hashlib.sha256(canonical).hexdigest().encode())
    )
    expected = hmac.new(_signing_key(secret, date, region, service), text, "sha256").hexdigest().encode()
    return hmac.compare_digest(expected, signature)
