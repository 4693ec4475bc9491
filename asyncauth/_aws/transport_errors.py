"""Transport errors: removes the request, passwords and quoted responses from the errors of an HTTP library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from botocore.exceptions import BotoCoreError
from multidict import CIMultiDict
from yarl import URL

from asyncauth._aws.log_redaction import redact_error
from asyncauth._aws.plain_http import without_secrets
from asyncauth._runtime.exceptions import related

if TYPE_CHECKING:
    from typing import Any

#: aiobotocore's httpx is httpx2 in newer versions.
_HTTPX_PACKAGES: Final = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2"})


def strip_request(error: BaseException) -> None:
    """Remove from a failed request's error, and from its chain, what may hold credentials; classes and errno stay.

    A signed request carries the session token in its headers, and botocore and aiohttp keep it on their errors. With a
    proxy, aiohttp's errors have the proxy's URL with its password, and the error of a malformed response quotes it.

    Args:
        error: botocore's error, or one whose chain has one; it is changed in place. Others are left as they are.
    """
    errors = list(related(error))
    if not any(isinstance(each, BotoCoreError) for each in errors):
        return
    for each in errors:
        _strip_transport_error(each)
    for each in errors:
        if isinstance(each, BotoCoreError):
            _strip_botocore_error(each)


def _strip_transport_error(error: Any) -> None:
    if isinstance(error, aiohttp.ClientResponseError):
        url = URL(without_secrets(str(error.request_info.real_url)))
        # Not the read-only mapping that aiohttp has there, which cannot be pickled.
        headers: Any = CIMultiDict()
        error.request_info = aiohttp.RequestInfo(url, error.request_info.method, headers, url)
        error.history, error.headers = (), None
        error.message = redact_error(error.message)
        error.args = (error.request_info, error.history)
    elif isinstance(error, aiohttp.ClientConnectorError):
        error._conn_key = error._conn_key._replace(proxy=None, proxy_auth=None)
        error.args = (error._conn_key, *error.args[1:])
    elif isinstance(error, aiohttp.InvalidURL):
        error._url = without_secrets(str(error._url))
        error.args = (error._url, *error.args[1:])
    elif isinstance(error, HttpProcessingError):
        error.message, error.headers = redact_error(error.message), None
        error.args = tuple(redact_error(str(each)) for each in error.args)
    elif type(error).__module__.partition(".")[0] in _HTTPX_PACKAGES:
        if hasattr(error, "_request"):
            error._request = None
        error.args = tuple(redact_error(str(each)) for each in error.args)


def _strip_botocore_error(error: Any) -> None:
    for name in ("request", "response"):
        if hasattr(error, name):
            setattr(error, name, None)
    if type(getattr(error, "kwargs", None)) is not dict:  # a class of a user's own
        error.args = tuple(redact_error(each) if isinstance(each, str) else each for each in error.args)
        return
    error.kwargs = {
        name: without_secrets(value) if name.endswith("_url") and isinstance(value, str) else value
        for name, value in error.kwargs.items()
    }
    error.args = (redact_error(error.fmt.format(**error.kwargs)),)
