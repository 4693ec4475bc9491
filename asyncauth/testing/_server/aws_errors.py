"""Error answers of AWS: code, status and body, which differ by protocol and sometimes by service.

Sources: "Common errors" of the STS, EC2, IAM, DynamoDB and CloudWatch API references, "Error responses" of S3's,
and the Smithy protocol specifications for the shape of the bodies.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from html import escape
from typing import Final, Literal, TypeAlias

from asyncauth.testing._server.http import Response

Protocol: TypeAlias = Literal["query", "ec2", "json", "rest-json", "rest-xml", "s3", "cbor"]
Kind: TypeAlias = Literal[
    "unknown-key",
    "bad-token",
    "bad-signature",
    "missing-signature",
    "expired",
    "denied",
    "throttled",
    "region-disabled",
]

_INVALID: Final = "The security token included in the request is invalid."
_EXPIRED: Final = "The security token included in the request is expired"
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_EC2_AUTH: Final = "AWS was not able to validate the provided access credentials"


@dataclass(frozen=True, slots=True)
class AwsError(Exception):
    """Error answer: its code, status, message and extra headers."""

    code: str
    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()


_Entry: TypeAlias = tuple[str, int, str]

#: Code, status and message by kind of refusal, then by protocol; a missing protocol uses the entry of "query".
_CATALOGUE: Final[dict[Kind, dict[str, _Entry]]] = {
    "unknown-key": {
        "query": ("InvalidClientTokenId", 403, _INVALID),
        "ec2": ("AuthFailure", 401, _EC2_AUTH),
        "s3": ("InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."),
        "json": ("UnrecognizedClientException", 400, _INVALID),
        "rest-json": ("UnrecognizedClientException", 403, _INVALID),
    },
    "bad-token": {
        "query": ("InvalidClientTokenId", 403, _INVALID),
        "ec2": ("AuthFailure", 401, _EC2_AUTH),
        "s3": ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
        "json": ("UnrecognizedClientException", 400, _INVALID),
        "rest-json": ("UnrecognizedClientException", 403, _INVALID),
    },
    "bad-signature": {
        "query": ("SignatureDoesNotMatch", 403, _MISMATCH),
        "ec2": ("AuthFailure", 401, _EC2_AUTH),
        "json": ("InvalidSignatureException", 400, _MISMATCH),
        "rest-json": ("InvalidSignatureException", 403, _MISMATCH),
    },
    "missing-signature": {
        "query": ("MissingAuthenticationToken", 403, "Request is missing Authentication Token"),
        "ec2": ("MissingAuthenticationToken", 403, "Request is missing Authentication Token"),
        "s3": ("AccessDenied", 403, "Access Denied"),
        "json": ("MissingAuthenticationTokenException", 400, "Missing Authentication Token"),
        "rest-json": ("MissingAuthenticationTokenException", 403, "Missing Authentication Token"),
    },
    "expired": {
        "query": ("ExpiredToken", 403, _EXPIRED),
        "ec2": ("RequestExpired", 400, "Request has expired."),
        "s3": ("ExpiredToken", 400, "The provided token has expired."),
        "json": ("ExpiredTokenException", 400, _EXPIRED),
        "rest-json": ("ExpiredTokenException", 403, _EXPIRED),
    },
    "denied": {
        "query": ("AccessDenied", 403, "Access denied"),
        "ec2": ("UnauthorizedOperation", 403, "You are not authorized to perform this operation."),
        "s3": ("AccessDenied", 403, "Access Denied"),
        "json": ("AccessDeniedException", 400, "Access denied"),
        "rest-json": ("AccessDeniedException", 403, "Access denied"),
    },
    "throttled": {
        "query": ("Throttling", 400, "Rate exceeded"),
        "ec2": ("RequestLimitExceeded", 503, "Request limit exceeded."),
        "s3": ("SlowDown", 503, "Please reduce your request rate."),
        "json": ("ThrottlingException", 400, "Rate exceeded"),
        "rest-json": ("TooManyRequestsException", 429, "Rate exceeded"),
    },
    "region-disabled": {
        "query": ("InvalidClientTokenId", 403, _INVALID),
        "ec2": ("AuthFailure", 401, _EC2_AUTH),
        "s3": ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
        "json": ("UnrecognizedClientException", 400, _INVALID),
        "rest-json": ("UnrecognizedClientException", 403, _INVALID),
    },
}

#: Entries of services that differ from others of the same protocol.
_BY_SERVICE: Final[dict[tuple[Kind, str], _Entry]] = {
    ("throttled", "organizations"): ("TooManyRequestsException", 400, "Rate exceeded"),
    ("throttled", "account"): ("TooManyRequestsException", 429, "Rate exceeded"),
}

#: Error codes that mean throttling.
THROTTLING_CODES: Final = frozenset(
    entry[0] for entries in (_CATALOGUE["throttled"],) for entry in entries.values()
) | {"ThrottledException", "RequestThrottled", "RequestThrottledException", "BandwidthLimitExceeded"}


def refusal(kind: Kind, protocol: Protocol, service: str, message: str | None = None) -> AwsError:
    """Return the error with which this service, in this protocol, refuses a call for this reason."""
    entry = _BY_SERVICE.get((kind, service))
    if entry is None:
        entries = _CATALOGUE[kind]
        entry = entries.get("json" if protocol == "cbor" else protocol) or entries["query"]
    code, status, usual_message = entry
    return AwsError(code, status, message or usual_message)


def not_implemented(service: str, action: str, reason: str) -> AwsError:
    """Return the error for an action that is not simulated; botocore does not retry its status, 501."""
    return AwsError("NotImplemented", 501, f"the simulated fleet cannot answer {service} {action}: {reason}")


def render(error: AwsError, protocol: Protocol, request_id: str, *, method: str = "POST", target: str = "") -> Response:
    """Return the error as an answer in the given protocol."""
    writer = {"json": _json, "rest-json": _rest_json, "ec2": _ec2, "s3": _s3, "cbor": _cbor}.get(protocol, _query)
    response = writer(error, request_id)
    response.code = error.code
    response.headers += error.headers
    if protocol == "json" and target.startswith("AmazonSQS."):
        # SQS changed from query to json; this header carries the codes of the old protocol for its clients.
        response.headers.append(("x-amzn-query-error", f"{error.code};{_fault(error)}"))
    if method == "HEAD":
        response.head_length = len(response.body)
        response.body = b""
    return response


def _fault(error: AwsError) -> str:
    return "Sender" if error.status < 500 else "Receiver"


def _query(error: AwsError, request_id: str) -> Response:
    body = (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>'
        f"<Type>{_fault(error)}</Type><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    return _xml(error.status, body, request_id)


def _ec2(error: AwsError, request_id: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    )
    return _xml(error.status, body, request_id)


def _s3(error: AwsError, request_id: str) -> Response:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error>'
        f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"<RequestId>{request_id}</RequestId><HostId>simulated</HostId></Error>"
    )
    response = _xml(error.status, body, request_id)
    response.headers.append(("x-amz-request-id", request_id))
    return response


def _xml(status: int, body: str, request_id: str) -> Response:
    return Response(status, body.encode(), [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)])


def _json(error: AwsError, request_id: str) -> Response:
    body = json.dumps({"__type": f"com.amazon.coral.service#{error.code}", "message": error.message})
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", request_id)]
    return Response(error.status, body.encode(), headers)


def _rest_json(error: AwsError, request_id: str) -> Response:
    body = json.dumps({"message": error.message})
    headers = [
        ("Content-Type", "application/json"),
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", error.code),
    ]
    return Response(error.status, body.encode(), headers)


def _cbor(error: AwsError, request_id: str) -> Response:
    fields = {"__type": f"com.amazon.coral.service#{error.code}", "message": error.message}
    body = bytes([0xA0 | len(fields)]) + b"".join(_cbor_text(text) for pair in fields.items() for text in pair)
    headers = [
        ("Content-Type", "application/cbor"),
        ("smithy-protocol", "rpc-v2-cbor"),
        ("x-amzn-RequestId", request_id),
    ]
    return Response(error.status, body, headers)


def _cbor_text(text: str) -> bytes:
    """Encode a text string: major type 3 with a length of four bytes (RFC 8949, section 3)."""
    encoded = text.encode()
    return b"\x7a" + struct.pack(">I", len(encoded)) + encoded
