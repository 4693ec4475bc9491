"""Request preparation in one pass over the headers.

botocore traverses them three times, through `email.message` and a dictionary class that makes an object for each
look-up of a name. Here each header is processed once. The result is botocore's: an `AWSPreparedRequest` with headers
that only iterate faster. Requests with a header that is not ASCII text are left to botocore.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator
from types import FunctionType, MethodType
from typing import Any, Final

from botocore.awsrequest import AWSRequest, AWSRequestPreparer, HeadersDict, _HeaderKey
from botocore.endpoint import Endpoint

__all__ = ["FastRequests"]

_CONTENT_LENGTH: Final = _HeaderKey("Content-Length")
_TRANSFER_ENCODING: Final = _HeaderKey("Transfer-Encoding")
_HAVE_NO_BODY: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: The methods that this module replaces. Tracers patch them to add a header; a patched method is called.
_PREPARE_REQUEST: Final = Endpoint.prepare_request
_ENCODE_HEADERS: Final = Endpoint._encode_headers
_PREPARE: Final = AWSRequest.prepare
_PREPARER_PREPARE: Final = AWSRequestPreparer.prepare
_PREPARE_HEADERS: Final = AWSRequestPreparer._prepare_headers


def _is_botocores(function: Any) -> bool:
    """Return whether a function is botocore's own, not a patch installed before this module was imported."""
    is_its = function.__module__ in ("botocore.endpoint", "botocore.awsrequest")
    return is_its and type(function) is FunctionType and not hasattr(function, "__wrapped__")


_ARE_BOTOCORES: Final = all(
    map(_is_botocores, (_PREPARE_REQUEST, _ENCODE_HEADERS, _PREPARE, _PREPARER_PREPARE, _PREPARE_HEADERS))
)


class FastRequests:
    """Mixin for an endpoint, before aiobotocore's class in the bases."""

    def prepare_request(self, request: Any) -> Any:
        """Return the request in the form in which it is sent."""
        prepare = super().prepare_request  # type: ignore[misc]  # the next base is botocore's
        if (
            _ARE_BOTOCORES
            and type(prepare) is MethodType
            and prepare.__func__ is _PREPARE_REQUEST
            and type(self)._encode_headers is _ENCODE_HEADERS  # type: ignore[attr-defined]
            and type(request) is AWSRequest
            and AWSRequest.prepare is _PREPARE
            and type(request._request_preparer) is AWSRequestPreparer
            and AWSRequestPreparer.prepare is _PREPARER_PREPARE
            and AWSRequestPreparer._prepare_headers is _PREPARE_HEADERS
        ):
            headers = _plain(request.headers)
            if headers is not None:
                return _FastPreparer(headers).prepare(request)
        return prepare(request)


def _plain(headers: Any) -> dict[Any, bytes] | None:
    """Return headers encoded as botocore stores them; None if one of them is not ASCII text."""
    encoded = {}
    for name, value in headers.raw_items():
        if type(value) is not str or not value.isascii():
            return None
        encoded[_HeaderKey(name)] = value.encode()
    return encoded


class _FastPreparer(AWSRequestPreparer):
    """botocore's preparer with headers that are encoded already."""

    def __init__(self, headers: dict[Any, Any]) -> None:
        self._headers = headers

    def _prepare_body(self, original: Any) -> Any:
        data, body = getattr(original, "encoded", (None, None))  # set by the signer
        return body if data is not None and data is original.data else super()._prepare_body(original)

    def _prepare_headers(self, original: Any, prepared_body: Any = None) -> Any:
        headers = self._headers
        made = _FastHeaders()
        made._dict = headers
        if _CONTENT_LENGTH in headers or _TRANSFER_ENCODING in headers or original.method in _HAVE_NO_BODY:
            return made
        length = self._determine_content_length(prepared_body)
        if length is None:
            headers[_TRANSFER_ENCODING] = "chunked"
        else:
            headers[_CONTENT_LENGTH] = str(length)
        return made


class _FastHeaders(HeadersDict):
    """botocore's headers, which iterate over their items without a look-up for each."""

    def items(self) -> ItemsView[str, Any]:
        return _FastItems(self)


class _FastItems(ItemsView[str, Any]):
    _mapping: _FastHeaders

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key, value in self._mapping._dict.items():
            yield key._key, value
