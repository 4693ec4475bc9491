"""The only code that says AssumeRole: what is sent, what comes back, and what each refusal means."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
)

from asyncauth._aws.error_codes import attempts_of, error_code
from asyncauth._aws.plain_http import refuse_plain_http
from asyncauth._credentials.sts_errors import StsRequest, explain
from asyncauth._errors import (
    ConfigurationError,
    CredentialsRejected,
    SourceError,
)
from asyncauth._models import Account, Credentials, Role
from asyncauth._refresh import Expiring
from asyncauth._runtime.exceptions import strip_frame_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth._aws.partitions import Partition
    from asyncauth._runtime.clock import Clock


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
    request, at = StsRequest.of(role, account, client.meta.region_name), clock.monotonic()
    try:
        read = _read(await client.assume_role(**assume_role_parameters(role, account)), request, at, clock)
    except (ClientError, BotoCoreError) as error:
        raise explain(error, role, account, client.meta.region_name) from strip_frame_locals(error)
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
    request, at = StsRequest(None, None, client.meta.region_name), clock.monotonic()
    try:
        read = _read(await client.get_session_token(SerialNumber=role.mfa_serial, TokenCode=token), request, at, clock)
    except (ClientError, BotoCoreError) as error:
        code = error_code(error)
        raise SourceError(
            f"{label}: GetSessionToken with MFA device {role.mfa_serial} was refused ({code}); check the code, the "
            "device, and that the source's keys are a user's long-term ones",
            code=code,
            region_name=client.meta.region_name,
            attempts=attempts_of(error),
        ) from strip_frame_locals(error)
    if isinstance(read, CredentialsRejected):
        raise read
    return read


def _read(
    answer: Mapping[str, Any], request: StsRequest, at: float, clock: Clock
) -> Expiring[Credentials] | CredentialsRejected:
    """Read STS's answer; what is wrong with it is returned, not raised: this frame's locals hold the secrets."""
    try:
        given = answer["Credentials"]
        expiration: datetime = given["Expiration"].astimezone(UTC)
        credentials = Credentials(
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], request.account_id, expiration
        )
        owner = answer["AssumedRoleUser"]["Arn"].split(":")[4] if request.role_arn else request.account_id
    except (KeyError, IndexError, AttributeError, TypeError):
        return request.rejected("STS's answer lacks a part of the credentials; is something in between that answers?")
    if not all((credentials.access_key_id, credentials.secret_access_key, credentials.session_token)):
        return request.rejected("STS's answer has empty credentials; is something in between that answers?")
    if owner != request.account_id:
        return request.rejected(f"asked for account {request.account_id}, but STS answered with account {owner}")
    lifetime = (expiration - _answered_at(answer, clock)) / timedelta(seconds=1)
    if lifetime <= 0:
        return request.rejected(f"STS's answer holds credentials that ended at {expiration:%Y-%m-%dT%H:%M:%SZ} already")
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
