"""Pages of listings, besides EC2's, that moto does not page or cuts without a token.

moto answers with all items, or leaves items out: its ListBuckets drops what exceeds `MaxBuckets`.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from asyncauth.testing._server.aws_errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncauth.testing._server.http import Request, Response

_BUCKET: Final = re.compile(rb"<Bucket>.*?</Bucket>", re.DOTALL)
_MAX_BUCKETS: Final = 10_000


@dataclass(frozen=True, slots=True)
class JsonListing:
    """Listing in JSON: its list, the parameters and field of its pages, and the default and largest page size."""

    member: str
    size: str
    token: str
    next_token: str
    default: int
    largest: int
    error: str


_ECS_ERROR: Final = "InvalidParameterException"
#: By service and operation, from the API references of ECS and Lambda.
JSON_LISTINGS: Final[Mapping[tuple[str, str], JsonListing]] = {
    ("ecs", "ListClusters"): JsonListing("clusterArns", "maxResults", "nextToken", "nextToken", 100, 100, _ECS_ERROR),
    ("ecs", "ListServices"): JsonListing("serviceArns", "maxResults", "nextToken", "nextToken", 10, 100, _ECS_ERROR),
    ("lambda", "ListFunctions"): JsonListing(
        "Functions", "MaxItems", "Marker", "NextMarker", 50, 10_000, "InvalidParameterValueException"
    ),
}


def whole_request(service: str, action: str, request: Request) -> Request:
    """Return the request for moto without the parameters of a page that moto would drop items by."""
    if (service, action) != ("s3", "ListBuckets"):
        return request
    kept = [
        (name, value) for name, value in parse_qsl(request.query) if name not in {"max-buckets", "continuation-token"}
    ]
    return replace(request, query=urlencode(kept))


def page(service: str, action: str, request: Request, response: Response) -> Response:
    """Cut moto's answer with all items to the requested page.

    Raises:
        AwsError: the page size is out of range, or the token is not one of this listing.
    """
    if response.status >= 400:
        return response
    if (service, action) == ("s3", "ListBuckets"):
        response.body = _page_of_buckets(dict(parse_qsl(request.query)), response.body)
    elif (listing := JSON_LISTINGS.get((service, action))) is not None:
        arguments = json.loads(request.body) if request.body else dict(parse_qsl(request.query))
        # Lambda returns at most 50 functions, whatever larger page is requested.
        size = min(
            _size(arguments.get(listing.size), listing), listing.default if service == "lambda" else listing.largest
        )
        content = json.loads(response.body)
        start = _start(arguments.get(listing.token), listing.error)
        items = content[listing.member]
        content[listing.member] = items[start : start + size]
        if start + size < len(items):
            content[listing.next_token] = _token(start + size)
        response.body = json.dumps(content).encode()
    return response


def install_iam() -> None:
    """Make moto's IAM page users, roles and access keys; a second call changes nothing."""
    from moto.iam.responses import IamResponse

    response: Any = IamResponse
    if getattr(response, "pages_as_aws", False):
        return
    response.pages_as_aws = True
    response.list_users = _iam_paged("Users", lambda self: self.backend.list_users(_prefix(self), None, None))
    response.list_roles = _iam_paged("Roles", lambda self: self.backend.list_roles(_prefix(self), "0", 1_000_000)[0])
    list_keys = response.list_access_keys
    response.list_access_keys = _iam_paged(
        "AccessKeyMetadata", lambda self: list_keys(self).result["AccessKeyMetadata"]
    )


def _prefix(self: Any) -> str:
    return str(self._get_param("PathPrefix") or "/")


def _iam_paged(member: str, items: Callable[[Any], Sequence[Any]]) -> Callable[[Any], Any]:
    def answer(self: Any) -> Any:
        from moto.core.responses import ActionResult

        # botocore refuses a size that is not from 1 to 1,000.
        size = int(self._get_param("MaxItems") or 100)
        start = _start(self._get_param("Marker"), "ValidationError")
        found = sorted(items(self), key=lambda one: str(getattr(one, "name", "")))
        end = start + size
        more = end < len(found)
        return ActionResult({member: found[start:end], "IsTruncated": more, "Marker": _token(end) if more else None})

    return answer


def _page_of_buckets(arguments: Mapping[str, str], body: bytes) -> bytes:
    found = list(_BUCKET.finditer(body))
    if not found:
        return body
    size = int(arguments.get("max-buckets", _MAX_BUCKETS))
    start = _start(arguments.get("continuation-token"), "InvalidArgument")
    chosen = b"".join(one.group() for one in found[start : start + size])
    cut = body[: found[0].start()] + chosen + body[found[-1].end() :]
    if start + size >= len(found):
        return cut
    token = f"<ContinuationToken>{_token(start + size)}</ContinuationToken>".encode()
    return cut.replace(b"</ListAllMyBucketsResult>", token + b"</ListAllMyBucketsResult>")


def _size(given: Any, listing: JsonListing) -> int:
    size = listing.default if given is None else int(given)
    if not 1 <= size <= listing.largest:
        raise AwsError(listing.error, 400, f"{listing.size} must be from 1 to {listing.largest}, got {size}")
    return size


def _token(start: int) -> str:
    return base64.urlsafe_b64encode(f"start:{start}".encode()).decode()


def _start(token: str | None, error: str) -> int:
    if token is None:
        return 0
    try:
        return int(base64.urlsafe_b64decode(token).decode().removeprefix("start:"))
    except ValueError:
        raise AwsError(error, 400, "The token of the next page is not valid") from None
