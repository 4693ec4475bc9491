"""Connection settings: which failures of a connection a setting causes, and which setting that is.

A setting does not change while a program waits, but some failures that a wrong setting causes also have causes that
pass. So there are two kinds:

    final      a proxy that refuses (4xx), a certificate that is not trusted, a CA bundle that is not there
    ambiguous   a proxy that does not listen or does not reach the endpoint (5xx), a host name that does not resolve,
               TLS with an endpoint that does not speak it
"""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError, ProxyConnectionError

from asyncauth._runtime.exceptions import related

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROXY_SETTINGS: Final = "HTTPS_PROXY, HTTP_PROXY, NO_PROXY, or proxies in the client's config"
_BUNDLE_SETTINGS: Final = "AWS_CA_BUNDLE, ca_bundle of the profile, or verify= of the pool"

#: httpx has the status at the beginning of its proxy error's message, aiohttp as an attribute.
_STATUS: Final = re.compile(r"([45]\d\d)\b")

#: Answers of a proxy that another request can change, though they are 4xx: its own timeout, and its rate limit.
_PASSING: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class SettingsProblem:
    """What is wrong with a connection's settings.

    Attributes:
        description: what happened and which settings to check.
        final: whether another request fails for certain; else it probably does.
    """

    description: str
    final: bool


def find_settings_problem(error: BaseException | None) -> SettingsProblem | None:
    """Return which setting a failure of a connection points to; None for other errors, and without an error."""
    if error is None:
        return None
    chain = list(related(error))
    if not any(isinstance(each, BotoConnectionError | HTTPClientError) for each in chain):
        return None
    return _certificate(chain) or _proxy(chain) or _name(chain)


def _certificate(chain: Sequence[BaseException]) -> SettingsProblem | None:
    # aiohttp's errors are of these classes too, without their attributes.
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in chain):
        why = _first_text(chain, "verify_message") or "verification failed"
        return SettingsProblem(
            f"the endpoint's certificate is not trusted ({why}): if a proxy or a gateway decrypts TLS here, name the "
            f"file with its CA certificate in {_BUNDLE_SETTINGS}",
            final=True,
        )
    for each in chain:
        if isinstance(each, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError):
            # A transport reads no other files, and the error does not name the file.
            return SettingsProblem(
                f"a file of the TLS settings cannot be read ({each.strerror}): check the CA bundle "
                f"({_BUNDLE_SETTINGS}) and client_cert in the client's config",
                final=True,
            )
        if isinstance(each, ssl.SSLError):
            why = _first_text(chain, "reason") or "unknown reason"
            return SettingsProblem(
                f"TLS failed ({why}): check that the endpoint speaks TLS, and the scheme in the endpoint settings",
                final=False,
            )
    return None


def _first_text(chain: Sequence[BaseException], name: str) -> str | None:
    values = (getattr(each, name, None) for each in chain if isinstance(each, ssl.SSLError))
    return next((value for value in values if isinstance(value, str) and value), None)


def _proxy(chain: Sequence[BaseException]) -> SettingsProblem | None:
    if not any(isinstance(each, ProxyConnectionError) for each in chain):
        return None
    status = next(filter(None, map(_status, chain)), None)
    if status is None:
        return SettingsProblem(f"the proxy does not accept the connection: check {_PROXY_SETTINGS}", final=False)
    if status >= 500 or status in _PASSING:
        return SettingsProblem(
            f"the proxy answered {status}, so it does not reach the endpoint: check {_PROXY_SETTINGS}", final=False
        )
    what = "requires a login or refuses the given one" if status == 407 else "refuses the endpoint"
    return SettingsProblem(f"the proxy {what} ({status}): check {_PROXY_SETTINGS}", final=True)


def _status(error: BaseException) -> int | None:
    name = type(error).__name__
    if name == "ClientHttpProxyError":
        status: Any = getattr(error, "status", None)
        return status if isinstance(status, int) else None
    found = _STATUS.match(str(error)) if name == "ProxyError" else None
    return int(found[1]) if found else None


def _name(chain: Sequence[BaseException]) -> SettingsProblem | None:
    if any(isinstance(each, socket.gaierror) for each in chain):
        return SettingsProblem(
            "a host name does not resolve: check the region, the endpoint settings, the proxy and the DNS", final=False
        )
    return None
