"""STS requests: AssumeRole and GetSessionToken, their parameters, and how their responses are read."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._aws.clock_offset import describe_clock, response_date
from asyncauth._aws.error_codes import attempts_of, error_code
from asyncauth._aws.plain_http import refuse_plain_http
from asyncauth._credentials.sts_errors import (
    StsRequest,
    explain,
    is_parser_error,
    redirect_status,
    without_body,
)
from asyncauth._errors import AssumeRoleError, AsyncAuthError, ConfigurationError, SourceError
from asyncauth._models import Account, Credentials, Role
from asyncauth._refresh import Expiring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth._aws.partitions import Partition
    from asyncauth._runtime.clock import Clock


def check_sts_endpoint(url: str, region_name: str, partition: Partition, *, allow_http: bool = False) -> bool:
    """Return whether `url` differs from AWS's own STS endpoint in the region, and refuse an unencrypted one.

    Raises:
        ConfigurationError: plain http to a host that is not this machine. It would send AssumeRole's response, which
            holds the credentials, in the clear. `allow_http` permits it.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    suffixes = (partition.dns_suffix, partition.dual_stack_dns_suffix)
    own = {f"{name}.{region_name}.{suffix}" for name in ("sts", "sts-fips") for suffix in suffixes}
    if parts.scheme == "https" and host in own:
        return False
    if not allow_http:
        refuse_plain_http(url, "STS", region_name=region_name)
    return True


def assume_role_parameters(role: Role, account: Account) -> dict[str, Any]:
    """Return the parameters of AssumeRole, without those that are not set."""
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

    The lifetime runs from the response's `Date` to its `Expiration`, so a wrong local clock has no effect. It counts
    from the moment of the request, so it never ends later than at AWS.

    Raises:
        AssumeRoleDenied, AssumeRoleThrottled, RegionDisabled, CredentialsRejected, AssumeRoleError: STS refused, or its
            response cannot be used.
        SourceExpired, SourceError: STS refused the credentials that signed the request.
    """
    request, requested_at = StsRequest.of(role, account, client.meta.region_name), clock.monotonic()
    try:
        read = _read(await client.assume_role(**assume_role_parameters(role, account)), request, requested_at, clock)
    except Exception as error:
        if not is_parser_error(error):
            if isinstance(error, ClientError | BotoCoreError):
                raise explain(error, role, account, client.meta.region_name, now=clock.time()) from without_body(error)
            raise
        read = request.unreadable(type(error).__name__, redirect_status(error))
    # Raised outside of the handler: the parser's error quotes the response with its keys, and would be the context.
    if isinstance(read, AsyncAuthError):
        raise read
    return read


async def get_session_token(client: Any, role: Role, *, clock: Clock, label: str) -> Expiring[Credentials]:
    """Exchange the source's keys and one MFA code for a session that can assume any number of roles.

    GetSessionToken accepts long-term keys only. Its session carries the MFA that a role's trust policy can require
    (IAM user guide, "Configuring MFA-protected API access").

    Raises:
        SourceError: STS refused the code or the device, the source's keys are temporary, or the response is unusable.
    """
    assert role.mfa_token is not None
    token = role.mfa_token()
    if inspect.isawaitable(token):
        token = await token
    if not (isinstance(token, str) and len(token) == 6 and token.isascii() and token.isdigit()):
        raise ConfigurationError("mfa_token must return the six-digit code as a string")
    request, requested_at = StsRequest(None, None, client.meta.region_name), clock.monotonic()
    try:
        read = _read(
            await client.get_session_token(SerialNumber=role.mfa_serial, TokenCode=token), request, requested_at, clock
        )
    except Exception as error:
        if not is_parser_error(error):
            if isinstance(error, ClientError | BotoCoreError):
                raise _refused_session(error, role, label, client.meta.region_name, clock.time()) from without_body(
                    error
                )
            raise
        read = request.unreadable(type(error).__name__, redirect_status(error))
    if isinstance(read, AsyncAuthError):
        # A code is valid once, so the request is not repeated with it.
        raise SourceError(f"{label}: {read}", code=read.code, region_name=client.meta.region_name, attempts=1)
    return read


def _refused_session(error: Exception, role: Role, label: str, region_name: str, now: float) -> SourceError:
    code = error_code(error)
    cure = describe_clock(error, code, now) or (
        "check the code, the device, and that the source's keys are a user's long-term ones"
    )
    return SourceError(
        f"{label}: GetSessionToken with MFA device {role.mfa_serial} was refused ({code}); {cure}",
        code=code,
        region_name=region_name,
        attempts=attempts_of(error),
    )


def _read(
    response: Mapping[str, Any], request: StsRequest, requested_at: float, clock: Clock
) -> Expiring[Credentials] | AssumeRoleError:
    """Return the credentials in STS's response, or the error of one that cannot be used.

    The error is returned, not raised, because the local variables of this frame hold the secrets.
    """
    try:
        fields = response["Credentials"]
        expiration: datetime = fields["Expiration"].astimezone(UTC)
        credentials = Credentials(
            fields["AccessKeyId"], fields["SecretAccessKey"], fields["SessionToken"], request.account_id, expiration
        )
        account_id = response["AssumedRoleUser"]["Arn"].split(":")[4] if request.role_arn else request.account_id
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, OverflowError):
        return request.unreadable("a part of the credentials is missing")
    if not all((credentials.access_key_id, credentials.secret_access_key, credentials.session_token)):
        return request.unreadable("the credentials are empty")
    if account_id != request.account_id:
        return request.rejected(f"requested account {request.account_id}, but STS answered with account {account_id}")
    lifetime = (expiration - _responded_at(response, clock)) / timedelta(seconds=1)
    if lifetime <= 0:
        return request.rejected(f"STS's response holds credentials that ended at {expiration:%Y-%m-%dT%H:%M:%SZ}")
    waited = clock.monotonic() - requested_at
    if waited >= lifetime:
        return request.rejected(
            f"the credentials ended before STS's response arrived: they live {lifetime:g} s, it took {waited:.0f} s"
        )
    return Expiring(credentials, lifetime, requested_at)


def _responded_at(response: Mapping[str, Any], clock: Clock) -> datetime:
    return response_date(response) or datetime.fromtimestamp(clock.time(), UTC)
