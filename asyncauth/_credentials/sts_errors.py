"""What a refusal of STS means: its error in the tree of asyncauth, with advice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    ParamValidationError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from asyncauth._aws.denials import ADVICE, caller_arn, classify_denial
from asyncauth._aws.error_codes import (
    DENIED,
    EXPIRED,
    FINAL,
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

if TYPE_CHECKING:
    from collections.abc import Mapping


TOO_FEW_FILES: Final = (
    "this process has no more files to open a connection with; raise its limit (ulimit -n), or lower max_at_once"
)


_HINTS: Final[Mapping[str, str]] = {
    "MalformedPolicyDocument": "check the session policy's JSON and its elements",
    "PackedPolicyTooLarge": "shorten the session policy, or pass fewer tags or policy ARNs",
    "ValidationError": "the role's own maximum session duration may be lower than duration_seconds",
    "InvalidClientTokenId": "the source's keys are unknown here: deactivated, mistyped, or of another partition",
    "UnrecognizedClientException": "the source's keys are unknown here: deactivated, mistyped, or of another partition",
    "SignatureDoesNotMatch": "the source's secret key is wrong",
    "RequestTimeTooSkewed": "this machine's clock is off by more than AWS accepts (5 minutes); set it right",
    "ExpiredToken": "the source's own session ran out; renew it (a login, or the keys that were handed over)",
    "ExpiredTokenException": "the source's own session ran out; renew it (a login, or the keys that were handed over)",
}


def is_worth_repeating(error: AsyncAuthError) -> bool:
    """Whether a connection broke or STS had trouble of its own, so that one more request is worth it."""
    cause = error.__cause__
    if isinstance(cause, ClientError):
        return int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(cause, BotoConnectionError | HTTPClientError)


def is_final(error: Exception) -> bool:
    """Whether asking again would bring the same answer: a denial that is worth remembering for some seconds."""
    if isinstance(error, (AssumeRoleDenied, RegionDisabled, SourceExpired, ConfigurationError)):
        return True
    return isinstance(error, AsyncAuthError) and error.code in (FINAL | SOURCE_REFUSED)


def refuses_source(error: SourceError) -> bool:
    """Whether it is STS's answer to whoever asks, whatever role is asked for."""
    return error.code in (SOURCE_REFUSED | EXPIRED)


def explain(error: Exception, role: Role, account: Account, region_name: str | None) -> AsyncAuthError:
    """Return the error of our tree for what botocore raised at AssumeRole, with what to try."""
    code = error_code(error) or type(error).__name__
    fields: dict[str, Any] = {
        "account": account.id,
        "role_arn": role.arn(account),
        "region_name": region_name,
        "code": code,
        "attempts": attempts_of(error),
    }
    what = f"cannot assume {fields['role_arn']}"
    tries = "1 request" if fields["attempts"] == 1 else f"{fields['attempts']} requests"
    if code in DENIED:
        caller = caller_arn(str(error))
        to = f" to {caller}" if caller else ""
        return AssumeRoleDenied(f"{what}: STS answered {code}{to}. {_advice(error, role)}", **fields)
    if code in THROTTLED:
        return AssumeRoleThrottled(
            f"{what}: STS throttled it ({code}) and {tries} did not get through; ask for fewer accounts at once, or "
            "use another STS region",
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
    if code in SOURCE_REFUSED:
        return SourceError(f"{what}: STS refused the source ({code}); {_HINTS.get(code, 'check its keys')}", **fields)
    if isinstance(error, (BotoConnectionError, HTTPClientError)):
        if has_errno(error, NO_MORE_FILES):
            return AssumeRoleError(f"{what}: {TOO_FEW_FILES}", **fields)
        return AssumeRoleError(
            f"{what}: no answer from STS in {region_name} ({code}); check the network, a proxy, and the endpoint "
            "settings (AWS_ENDPOINT_URL_STS)",
            **fields,
        )
    if isinstance(error, ParamValidationError):
        return ConfigurationError(f"{what}: botocore refused the parameters", **fields)
    return AssumeRoleError(f"{what}: STS answered {code}; {_HINTS.get(code, 'see AWS on that code')}", **fields)


def _advice(denied: Exception, role: Role) -> str:
    denial = classify_denial(str(denied))
    if denial is not None:
        return f"It says why: {ADVICE[denial]}"
    external_id = "the external id, the" if role.external_id else "the"
    hint = "" if role.external_id else " (it may want an external id)"
    return (
        f"Check {external_id} role's trust policy{hint}, that the source may sts:AssumeRole it, that the role and "
        "account exist, and SCPs"
    )


@dataclass(frozen=True, slots=True)
class StsRequest:
    """What STS was asked for, and the errors that are not its answer."""

    account_id: str | None
    role_arn: str | None
    region_name: str

    @classmethod
    def of(cls, role: Role, account: Account, region_name: str) -> StsRequest:
        """Return what an AssumeRole asks for."""
        return cls(account.id, role.arn(account), region_name)

    def no_answer(self, seconds: float | None) -> AssumeRoleError:
        """Return the error of a request that was given up."""
        return AssumeRoleError(
            f"cannot assume {self.role_arn}: no answer from STS in {self.region_name} within {seconds:g} s; check the "
            "network, a proxy, and the endpoint settings (AWS_ENDPOINT_URL_STS)",
            **self._fields(NO_ANSWER, 1),
        )

    def endpoint_down(self, down: AsyncAuthError) -> AssumeRoleError:
        """Return the error of a request that was not sent, because STS did not answer others just now."""
        return AssumeRoleError(
            f"cannot assume {self.role_arn}: {down}; check the network, a proxy, and the endpoint settings",
            **self._fields(down.code, 0),
        )

    def throttled(self, exhausted: AsyncAuthError) -> AssumeRoleThrottled:
        """Return the error of a request that was throttled too often, or not sent because all are."""
        sent = exhausted.attempts or 0
        tried = f"{sent} request{'s' if sent > 1 else ''} did not get through" if sent else "it was not asked"
        return AssumeRoleThrottled(
            f"cannot assume {self.role_arn}: STS throttles its caller, and {tried} ({exhausted}); try again later, or "
            "use another STS region",
            **self._fields("Throttling", exhausted.attempts),
        )

    def rejected(self, message: str) -> CredentialsRejected:
        """Return the error of an answer that cannot be used."""
        return CredentialsRejected(message, **self._fields(None, 1))

    def _fields(self, code: str | None, attempts: int | None) -> dict[str, Any]:
        return {
            "account": self.account_id,
            "role_arn": self.role_arn,
            "region_name": self.region_name,
            "code": code,
            "attempts": attempts,
        }
