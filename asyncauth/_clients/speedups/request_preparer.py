"""Requests made ready to be sent in one pass over their headers.

botocore goes over them three times, through `email.message` and a dictionary of its own that makes an object for each
look at a name. Here each header is touched once, and what comes of it is botocore's: an `AWSPreparedRequest`, with
headers that are only quicker to be read in a row. A header that is no plain text is left to botocore.
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

#: What this stands for. Tracers put functions of their own there, to add a header; then those are called.
_PREPARE_REQUEST: Final = Endpoint.prepare_request
_ENCODE_HEADERS: Final = Endpoint._encode_headers
_PREPARE: Final = AWSRequest.prepare
_PREPARER_PREPARE: Final = AWSRequestPreparer.prepare
_PREPARE_HEADERS: Final = AWSRequestPreparer._prepare_headers


def _is_botocores(function: Any) -> bool:
    """Whether a function is what botocore defines, and no patch that was there before this library."""
    is_its = function.__module__ in ("botocore.endpoint", "botocore.awsrequest")
    return is_its and type(function) is FunctionType and not hasattr(function, "__wrapped__")


_ARE_BOTOCORES: Final = all(
    map(_is_botocores, (_PREPARE_REQUEST, _ENCODE_HEADERS, _PREPARE, _PREPARER_PREPARE, _PREPARE_HEADERS))
)


class FastRequests:
    """A base for an endpoint, to go before aiobotocore's."""

    def prepare_request(self, request: Any) -> Any:
        """Return the request as it is sent."""
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
                return _Preparer(headers).prepare(request)
        return prepare(request)


def _plain(headers: Any) -> dict[Any, bytes] | None:
    """Return headers encoded, as botocore keeps them; None if one of them is no plain text."""
    encoded = {}
    for name, value in headers.raw_items():
        if type(value) is not str or not value.isascii():
            return None
        encoded[_HeaderKey(name)] = value.encode()
    return encoded


class _Preparer(AWSRequestPreparer):
    """botocore's, with the headers at hand."""

    def __init__(self, headers: dict[Any, Any]) -> None:
        self._headers = headers

    def _prepare_body(self, original: Any) -> Any:
        data, body = getattr(original, "encoded", (None, None))  # as it was signed
        return body if data is not None and data is original.data else super()._prepare_body(original)

    def _prepare_headers(self, original: Any, prepared_body: Any = None) -> Any:
        headers = self._headers
        made = _Headers()
        made._dict = headers
        if _CONTENT_LENGTH in headers or _TRANSFER_ENCODING in headers or original.method in _HAVE_NO_BODY:
            return made
        length = self._determine_content_length(prepared_body)
        if length is None:
            headers[_TRANSFER_ENCODING] = "chunked"
        else:
            headers[_CONTENT_LENGTH] = str(length)
        return made


class _Headers(HeadersDict):
    """botocore's headers, which give all their items without looking for each of them."""

    def items(self) -> ItemsView[str, Any]:
        return _Items(self)


class _Items(ItemsView[str, Any]):
    _mapping: _Headers

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for key, value in self._mapping._dict.items():
            yield key._key, value
