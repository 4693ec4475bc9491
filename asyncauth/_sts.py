"""The only code that says AssumeRole: what is sent, what comes back, and what each refusal means."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    ParamValidationError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from asyncauth._codes import NO_MORE_FILES, has_errno
from asyncauth._denials import ADVICE, caller_said, denial_said
from asyncauth._endpoints import refuse_plain_http
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
from asyncauth._expiring import Expiring
from asyncauth._failures import scrub
from asyncauth._models import Account, Credentials, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth._clock import Clock
    from asyncauth._partitions import Partition

THROTTLED: Final = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "SlowDown",
        "PriorRequestNotComplete",
        "TransactionInProgressException",
        "EC2ThrottledException",
    }
)
DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken"})
_SOURCE_REFUSED: Final = frozenset(
    {
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "AuthFailure",
        "InvalidAccessKeyId",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "OptInRequired",
        "RequestTimeTooSkewed",
    }
)
#: Answers that asking again does not change (the refresh specification of AWS's SDKs names these).
_FINAL_CODES: Final = frozenset(
    {"IDPRejectedClaim", "InvalidIdentityToken", "MalformedPolicyDocument", "PackedPolicyTooLarge", "ValidationError"}
)

TOO_FEW_FILES: Final = (
    "this process has no more files to open a connection with; raise its limit (ulimit -n), or lower max_at_once"
)

#: The code of an error that says how long nobody answered.
NO_ANSWER: Final = "LoadTimeout"

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


def sts_region(partition: Partition, source_region: str | None) -> str:
    """Return the region whose STS is asked: the source's own when it is in that partition, else its default.

    A region is always named: without one botocore falls back to the global endpoint of the partition, whose tokens
    are not valid in opt-in regions.
    """
    return source_region if source_region in partition.regions else partition.default_region


def check_sts_endpoint(url: str, region_name: str, partition: Partition, *, allow_http: bool = False) -> bool:
    """Tell whether `url` is something else than AWS's own STS endpoint there, and refuse it when it is unsafe.

    Raises:
        ConfigurationError: plain http to a host that is not this machine, which would send AssumeRole's answer, with
            the credentials in it, in the clear; `allow_http` permits that.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    own = {f"sts.{region_name}.{partition.dns_suffix}", f"sts-fips.{region_name}.{partition.dns_suffix}"}
    if parts.scheme == "https" and host in own:
        return False
    if not allow_http:
        refuse_plain_http(url, "STS", region_name=region_name)
    return True


def assume_role_parameters(role: Role, account: Account) -> dict[str, Any]:
    """Return the parameters of AssumeRole; what is not set is not sent."""
    optional: dict[str, Any] = {
        "ExternalId": role.external_id,
        "Policy": role.policy,
        "PolicyArns": [{"arn": arn} for arn in role.policy_arns],
        "Tags": [{"Key": key, "Value": value} for key, value in role.tags.items()],
        "TransitiveTagKeys": list(role.transitive_tag_keys),
        "SourceIdentity": role.source_identity,
        "ProvidedContexts": [
            {"ProviderArn": provider, "ContextAssertion": assertion} for provider, assertion in role.provided_contexts
        ],
    }
    return {
        "RoleArn": role.arn(account),
        "RoleSessionName": role.role_session_name,
        "DurationSeconds": role.duration_seconds,
        **{name: value for name, value in optional.items() if value},
    }


async def assume_role(client: Any, role: Role, account: Account, *, clock: Clock) -> Expiring[Credentials]:
    """Assume `role` in `account` with an STS client, and return the credentials with their lifetime.

    The lifetime is what STS says, from its answer's own `Date` to `Expiration`, so a local clock that is wrong
    changes nothing; it counts from the moment of asking, so it never ends later than AWS thinks.

    Raises:
        AssumeRoleDenied, AssumeRoleThrottled, RegionDisabled, CredentialsRejected, AssumeRoleError: STS's answer.
        SourceExpired, SourceError: the credentials that asked are the problem.
    """
    asked, at = Asked.of(role, account, client.meta.region_name), clock.monotonic()
    try:
        read = _read(await client.assume_role(**assume_role_parameters(role, account)), asked, at, clock)
    except (ClientError, BotoCoreError) as error:
        raise explain(error, role, account, client.meta.region_name) from scrub(error)
    if isinstance(read, CredentialsRejected):
        raise read
    return read


async def get_session_token(client: Any, role: Role, *, clock: Clock, label: str) -> Expiring[Credentials]:
    """Trade the source's keys and one MFA code for a session, with which any number of roles can be assumed.

    GetSessionToken takes long-term keys only; its session carries the MFA that a role's trust policy may ask for
    (IAM user guide, "Configuring MFA-protected API access").

    Raises:
        SourceError: the code or device was refused, or the source's keys are temporary already.
    """
    assert role.mfa_token is not None
    token = role.mfa_token()
    if inspect.isawaitable(token):
        token = await token
    if not (isinstance(token, str) and len(token) == 6 and token.isascii() and token.isdigit()):
        raise ConfigurationError("mfa_token must return the six-digit code as a string")
    asked, at = Asked(None, None, client.meta.region_name), clock.monotonic()
    try:
        read = _read(await client.get_session_token(SerialNumber=role.mfa_serial, TokenCode=token), asked, at, clock)
    except (ClientError, BotoCoreError) as error:
        code = error_code(error)
        raise SourceError(
            f"{label}: GetSessionToken with MFA device {role.mfa_serial} was refused ({code}); check the code, the "
            "device, and that the source's keys are a user's long-term ones",
            code=code,
            region_name=client.meta.region_name,
            attempts=attempts_of(error),
        ) from scrub(error)
    if isinstance(read, CredentialsRejected):
        raise read
    return read


def error_code(error: BaseException) -> str | None:
    """Return AWS's code for an error, or the type's name where AWS gave no answer; None for anything else.

    A group has the code that all in it have.
    """
    if isinstance(error, BaseExceptionGroup):
        codes = {error_code(each) for each in error.exceptions}
        return codes.pop() if len(codes) == 1 else None
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    if isinstance(error, AsyncAuthError):
        return error.code
    return type(error).__name__ if isinstance(error, BotoCoreError) else None


def attempts_of(error: BaseException) -> int:
    """Return how many requests an error took, by botocore's own count of retries."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1
    return 1


def is_transient(error: AsyncAuthError) -> bool:
    """Whether a connection broke or STS had trouble of its own, so that one more request is worth it."""
    cause = error.__cause__
    if isinstance(cause, ClientError):
        return int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(cause, BotoConnectionError | HTTPClientError)


def is_final(error: Exception) -> bool:
    """Whether asking again would bring the same answer: a denial that is worth remembering for some seconds."""
    if isinstance(error, (AssumeRoleDenied, RegionDisabled, SourceExpired, ConfigurationError)):
        return True
    return isinstance(error, AsyncAuthError) and error.code in (_FINAL_CODES | _SOURCE_REFUSED)


def refuses_source(error: SourceError) -> bool:
    """Whether it is STS's answer to whoever asks, whatever role is asked for."""
    return error.code in (_SOURCE_REFUSED | EXPIRED)


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
        caller = caller_said(str(error))
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
    if code in _SOURCE_REFUSED:
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
    denial = denial_said(str(denied))
    if denial is not None:
        return f"It says why: {ADVICE[denial]}"
    external_id = "the external id, the" if role.external_id else "the"
    hint = "" if role.external_id else " (it may want an external id)"
    return (
        f"Check {external_id} role's trust policy{hint}, that the source may sts:AssumeRole it, that the role and "
        "account exist, and SCPs"
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What STS was asked for, and the errors that are not its answer."""

    account_id: str | None
    role_arn: str | None
    region_name: str

    @classmethod
    def of(cls, role: Role, account: Account, region_name: str) -> Asked:
        """Return what an AssumeRole asks for."""
        return cls(account.id, role.arn(account), region_name)

    def no_answer(self, seconds: float | None) -> AssumeRoleError:
        """Return the error of a request that was given up."""
        return AssumeRoleError(
            f"cannot assume {self.role_arn}: no answer from STS in {self.region_name} within {seconds:g} s; check the "
            "network, a proxy, and the endpoint settings (AWS_ENDPOINT_URL_STS)",
            **self._fields(NO_ANSWER, 1),
        )

    def nobody_answers(self, down: AsyncAuthError) -> AssumeRoleError:
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


def _read(
    answer: Mapping[str, Any], asked: Asked, at: float, clock: Clock
) -> Expiring[Credentials] | CredentialsRejected:
    """Read STS's answer; what is wrong with it is returned, not raised: this frame's locals hold the secrets."""
    try:
        given = answer["Credentials"]
        expiration: datetime = given["Expiration"].astimezone(UTC)
        credentials = Credentials(
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], asked.account_id, expiration
        )
        owner = answer["AssumedRoleUser"]["Arn"].split(":")[4] if asked.role_arn else asked.account_id
    except (KeyError, IndexError, AttributeError, TypeError):
        return asked.rejected("STS's answer lacks a part of the credentials; is something in between that answers?")
    if not all((credentials.access_key_id, credentials.secret_access_key, credentials.session_token)):
        return asked.rejected("STS's answer has empty credentials; is something in between that answers?")
    if owner != asked.account_id:
        return asked.rejected(f"asked for account {asked.account_id}, but STS answered with account {owner}")
    lifetime = (expiration - _answered_at(answer, clock)) / timedelta(seconds=1)
    if lifetime <= 0:
        return asked.rejected(f"STS's answer holds credentials that ended at {expiration:%Y-%m-%dT%H:%M:%SZ} already")
    return Expiring(credentials, lifetime, at)


def _answered_at(answer: Mapping[str, Any], clock: Clock) -> datetime:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return _read_date(headers.get("date")) or datetime.fromtimestamp(clock.time(), UTC)


@lru_cache(maxsize=16)
def _read_date(text: str | None) -> datetime | None:
    # A fan-out gets some hundred answers a second, all with the same date.
    try:
        dated = parsedate_to_datetime(text)  # type: ignore[arg-type]  # None is refused as a TypeError
    except (TypeError, ValueError):
        return None
    return dated if dated.tzinfo else dated.replace(tzinfo=UTC)
