"""STS errors: converts a failed AssumeRole into an error of asyncauth, with advice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    ParamValidationError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from asyncauth._aws.clock_offset import describe_clock
from asyncauth._aws.connection_settings import find_settings_problem
from asyncauth._aws.denials import ADVICE, caller_arn, classify_denial
from asyncauth._aws.error_codes import (
    DENIED,
    EXPIRED,
    FINAL,
    KEYS_UNKNOWN,
    NO_ANSWER,
    NO_MORE_FILES,
    SOURCE_REFUSED,
    THROTTLED,
    attempts_of,
    error_code,
    has_errno,
)
from asyncauth._errors import (
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    AsyncAuthError,
    ConfigurationError,
    CredentialsRejected,
    RegionDisabled,
    SourceError,
    SourceExpired,
)
from asyncauth._models import Account, Role
from asyncauth._runtime.exceptions import strip_frame_locals

if TYPE_CHECKING:
    from collections.abc import Mapping


TOO_FEW_FILES: Final = (
    "this process has reached its limit of open files; raise the limit (ulimit -n), or lower max_at_once"
)


_HINTS: Final[Mapping[str, str]] = {
    "MalformedPolicyDocument": "check the session policy's JSON and its elements",
    "PackedPolicyTooLarge": "shorten the session policy, or pass fewer tags or policy ARNs",
    "ValidationError": "the role's own maximum session duration may be lower than duration_seconds",
    "InvalidClientTokenId": "the source's keys are unknown here: deactivated, mistyped, or of another partition",
    "UnrecognizedClientException": "the source's keys are unknown here: deactivated, mistyped, or of another partition",
    "SignatureDoesNotMatch": "the source's secret key is wrong",
    "RequestTimeTooSkewed": "this machine's clock is off by more than AWS accepts (5 minutes); correct it",
    "ExpiredToken": "the source's own session ran out; renew it (log in again, or pass new keys)",
    "ExpiredTokenException": "the source's own session ran out; renew it (log in again, or pass new keys)",
}


#: The code of a response that is not one of STS: botocore's class for it, as for all errors without a code of AWS.
UNREADABLE: Final = "ResponseParserError"

_PARSER_MODULES: Final = frozenset({"botocore.parsers", "aiobotocore.parsers"})


def is_worth_repeating(error: AsyncAuthError) -> bool:
    """Whether another request may succeed: the connection broke, the response was unreadable, or STS had an error."""
    if error.code == UNREADABLE:
        return True
    cause = error.__cause__
    problem = find_settings_problem(cause)
    if problem is not None and problem.final:
        return False
    if isinstance(cause, ClientError):
        return _status(cause) >= 500
    return error.code == NO_ANSWER or isinstance(cause, BotoConnectionError | HTTPClientError)


def is_ambiguous(error: AsyncAuthError) -> bool:
    """Whether a wrong setting may be the cause, so that waiting for STS may be in vain."""
    problem = find_settings_problem(error.__cause__)
    return problem is not None and not problem.final


def redirect_status(error: BaseException) -> int | None:
    """Return the HTTP status of a redirect whose body a parser could not read; None for other responses.

    botocore's error does not have the status; the parser's frames do.
    """
    for frame, _ in walk_tb(error.__traceback__):
        response = frame.f_locals.get("response") if frame.f_globals.get("__name__") in _PARSER_MODULES else None
        status = response.get("status_code") if isinstance(response, dict) else None
        if isinstance(status, int) and 300 <= status < 400:
            return status
    return None


def is_parser_error(error: BaseException) -> bool:
    """Whether an error was raised while botocore parsed a response. Such an error may quote the whole response.

    The class does not decide: besides ResponseParserError, a parser raises ValueError, KeyError, UnicodeDecodeError and
    AttributeError for responses that it does not expect.
    """
    return any(frame.f_globals.get("__name__") in _PARSER_MODULES for frame, _ in walk_tb(error.__traceback__))


def without_body(error: Exception) -> Exception:
    """Return `error` itself, stripped for keeping; of a ClientError only the error that STS returned stays.

    A gateway can return a body that holds keys with an error's status; botocore puts all of it into the response.
    """
    if isinstance(error, ClientError):
        response: Any = error.response
        kept = {name: response[name] for name in ("Error", "ResponseMetadata") if name in response}
        if isinstance(kept.get("Error"), dict):
            kept["Error"] = {name: kept["Error"][name] for name in ("Type", "Code", "Message") if name in kept["Error"]}
        error.response = kept
    return strip_frame_locals(error)


def is_final(error: Exception) -> bool:
    """Whether another request would get the same response, so that the error is remembered for some seconds."""
    if isinstance(error, (AssumeRoleDenied, RegionDisabled, SourceExpired, ConfigurationError)):
        return True
    return isinstance(error, AsyncAuthError) and error.code in (FINAL | SOURCE_REFUSED)


def refuses_source(error: SourceError) -> bool:
    """Whether STS refused the source's credentials, whatever role was requested."""
    return error.code in (SOURCE_REFUSED | EXPIRED)


def rejects_keys(error: SourceError) -> bool:
    """Whether the keys that signed have expired or were deleted, so that the source may have other ones by now."""
    return error.code in (KEYS_UNKNOWN | EXPIRED)


def explain(
    error: Exception, role: Role, account: Account, region_name: str | None, *, now: float | None = None
) -> AsyncAuthError:
    """Return the asyncauth error for an exception that botocore raised at AssumeRole, with advice.

    Args:
        error, role, account, region_name: the exception, and the request.
        now: this machine's time, seconds since 1970, for the offset of a clock that is off; None: the system's.
    """
    redirect = _status(error) if 300 <= _status(error) < 400 else None
    code = error_code(error) or type(error).__name__
    if redirect is not None and code == "Unknown":
        code = str(redirect)
    fields: dict[str, Any] = {
        "account": account.id,
        "role_arn": role.arn(account),
        "region_name": region_name,
        "code": code,
        "attempts": attempts_of(error),
    }
    what = f"cannot assume {fields['role_arn']}"
    if redirect is not None:
        return AssumeRoleError(_redirected(what, region_name, redirect, code), **fields)
    if code in DENIED:
        caller = caller_arn(str(error))
        to = f" to {caller}" if caller else ""
        return AssumeRoleDenied(f"{what}: STS answered {code}{to}. {_advice(error, role)}", **fields)
    if code in THROTTLED:
        return AssumeRoleThrottled(
            f"{what}: STS throttles its caller ({code}); try again later, or use fewer accounts at once or another STS "
            "region",
            **fields,
        )
    if code == "RegionDisabledException":
        return RegionDisabled(
            f"{what}: STS in {region_name} is not active for account {account.id}; activate it in the account's "
            "settings (IAM, Account settings, STS), or give the source another region",
            **fields,
        )
    if code in EXPIRED:
        return SourceExpired(f"{what}: {_HINTS['ExpiredToken']} ({code})", **fields)
    clock = describe_clock(error, code, time.time() if now is None else now)
    if clock is not None:
        return SourceError(f"{what}: {clock} ({code})", **fields)
    if code in SOURCE_REFUSED:
        return SourceError(f"{what}: STS refused the source ({code}); {_HINTS.get(code, 'check its keys')}", **fields)
    if isinstance(error, (BotoConnectionError, HTTPClientError)):
        if has_errno(error, NO_MORE_FILES):
            return AssumeRoleError(f"{what}: {TOO_FEW_FILES}", **fields)
        problem = find_settings_problem(error)
        if problem is not None:
            kind = ConfigurationError if problem.final else AssumeRoleError
            return kind(f"{what}: no answer from STS in {region_name} ({code}); {problem.description}", **fields)
        return AssumeRoleError(
            f"{what}: no answer from STS in {region_name} ({code}); check the network, a proxy, and the endpoint "
            "settings (AWS_ENDPOINT_URL_STS)",
            **fields,
        )
    if isinstance(error, ParamValidationError):
        return ConfigurationError(f"{what}: botocore refused the parameters", **fields)
    hint = _HINTS.get(code, "see the STS API reference for this code")
    return AssumeRoleError(f"{what}: STS answered {code}; {hint}", **fields)


def _status(error: Exception) -> int:
    response: Any = error.response if isinstance(error, ClientError) else {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _redirected(what: str, region_name: str | None, status: int, code: str | None = None) -> str:
    answer = f"{status}" if code in {None, str(status)} else f"{status} {code}"
    return (
        f"{what}: the endpoint of STS in {region_name} answered with a redirect ({answer}), which is not followed; "
        "check the endpoint settings (AWS_ENDPOINT_URL_STS), and whether a proxy or a login page answered instead"
    )


def _advice(denied: Exception, role: Role) -> str:
    if "sts:TagSession" in str(denied) and role.tags:
        return (
            "The role gets session tags, so its trust policy and the source's own policies must allow sts:TagSession "
            "in addition to sts:AssumeRole"
        )
    denial = classify_denial(str(denied))
    if denial is not None:
        return f"The reason: {ADVICE[denial]}"
    external_id = "the external id, the" if role.external_id else "the"
    hint = "" if role.external_id else " (it may require an external id)"
    return (
        f"Check {external_id} role's trust policy{hint}, that the source may sts:AssumeRole it, that the role and "
        "account exist, and SCPs"
    )


@dataclass(frozen=True, slots=True)
class StsRequest:
    """A request to STS, and the errors that STS did not return itself."""

    account_id: str | None
    role_arn: str | None
    region_name: str

    @classmethod
    def of(cls, role: Role, account: Account, region_name: str) -> StsRequest:
        """Return the request of an AssumeRole."""
        return cls(account.id, role.arn(account), region_name)

    def no_answer(self, seconds: float | None) -> AssumeRoleError:
        """Return the error of a request that got no response in time."""
        return AssumeRoleError(
            f"cannot assume {self.role_arn}: no answer from STS in {self.region_name} within {seconds:g} s; check the "
            "network, a proxy, and the endpoint settings (AWS_ENDPOINT_URL_STS)",
            **self._fields(NO_ANSWER, 1),
        )

    def endpoint_down(self, down: AsyncAuthError) -> AssumeRoleError:
        """Return the error of a request that was not sent, because STS did not answer the requests before it."""
        return AssumeRoleError(
            f"cannot assume {self.role_arn}: {down}; check the network, a proxy, and the endpoint settings",
            **self._fields(down.code, 0),
        )

    def saturated(self) -> AssumeRoleThrottled:
        """Return the error of a request that was not sent, because STS throttles all of them."""
        return AssumeRoleThrottled(
            f"cannot assume {self.role_arn}: STS throttles its caller, and this was not requested; try again later, or "
            "use fewer accounts at once or another STS region",
            **self._fields("Throttling", 0),
        )

    def unreadable(self, detail: str, redirect: int | None = None) -> AssumeRoleError:
        """Return the error of a response that is not one of STS, without any part of the response.

        Args:
            detail: what is wrong with it.
            redirect: its HTTP status if it is a redirect.
        """
        what = f"cannot assume {self.role_arn}" if self.role_arn else "no session token"
        if redirect is not None:
            return AssumeRoleError(_redirected(what, self.region_name, redirect), **self._fields(str(redirect), 1))
        return AssumeRoleError(
            f"{what}: the response cannot be read as one of STS in {self.region_name} ({detail}); check whether a "
            "proxy or a gateway answered instead of STS",
            **self._fields(UNREADABLE, 1),
        )

    def rejected(self, message: str) -> CredentialsRejected:
        """Return the error of a response that cannot be used."""
        return CredentialsRejected(message, **self._fields(None, 1))

    def _fields(self, code: str | None, attempts: int | None) -> dict[str, Any]:
        return {
            "account": self.account_id,
            "role_arn": self.role_arn,
            "region_name": self.region_name,
            "code": code,
            "attempts": attempts,
        }
