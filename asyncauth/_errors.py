"""Every error that asyncauth raises, in one tree with one root.

    AsyncAuthError
    |-- ConfigurationError (also ValueError)
    |   `-- PartitionMismatch
    |-- SourceError
    |   |-- NoSourceCredentials
    |   |-- SourceExpired
    |   `-- LongTermCredentialsError
    |-- AssumeRoleError
    |   |-- AssumeRoleDenied
    |   |-- AssumeRoleThrottled
    |   |-- RegionDisabled
    |   `-- CredentialsRejected
    |-- TargetTimeout (also TimeoutError)
    |-- EndpointDown
    |-- RateLimited
    `-- PoolClosed

A job's own exception is never wrapped in one of these.
"""

from __future__ import annotations

from typing import Any


class AsyncAuthError(Exception):
    """The root: catching it catches everything that asyncauth itself raises.

    Args:
        message: what happened, to which account, and what to try.
        account: the 12-digit id of the account concerned, where one is.
        role_arn: the role that was to be assumed, where one was.
        region_name: the region of the endpoint or target concerned.
        code: AWS's error code, or the name of the transport error where AWS gave no answer.
        attempts: how many requests were sent before giving up.
    """

    account: str | None
    role_arn: str | None
    region_name: str | None
    code: str | None
    attempts: int | None

    def __init__(
        self,
        message: str = "",
        *,
        account: str | None = None,
        role_arn: str | None = None,
        region_name: str | None = None,
        code: str | None = None,
        attempts: int | None = None,
    ) -> None:
        super().__init__(message)
        self.account = account
        self.role_arn = role_arn
        self.region_name = region_name
        self.code = code
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by their positional arguments; the fields are keyword-only, so they travel as state.
        return (type(self), self.args, self.__dict__)


class ConfigurationError(AsyncAuthError, ValueError):
    """Something asked for cannot be: a bad account id, an unknown partition or region, a limit out of range."""


class PartitionMismatch(ConfigurationError):
    """Credentials of one partition were asked for an account or region of another; no call was made.

    No role can be assumed across partitions: give each its own source, `sources={"aws": ..., "aws-cn": ...}`.
    """


class SourceError(AsyncAuthError):
    """The base credentials are the problem, so no account can be reached through them."""


class NoSourceCredentials(SourceError):
    """No base credentials were found; the message lists what was tried."""


class SourceExpired(SourceError):
    """A login or token that the source lives on ran out; the message says how to renew it."""


class LongTermCredentialsError(SourceError):
    """Long-term keys were to be used directly, without a role, and nobody asked for that."""


class AssumeRoleError(AsyncAuthError):
    """STS did not hand out credentials for a role."""


class AssumeRoleDenied(AssumeRoleError):
    """STS answered AccessDenied: trust policy, external id, missing role or account, or an SCP.

    STS gives the same answer for all of them on purpose; the message lists what to look at.
    """


class AssumeRoleThrottled(AssumeRoleError):
    """STS kept throttling until the attempts named in `.attempts` were used up."""


class RegionDisabled(AssumeRoleError):
    """STS is not active in that region for the account: enable it, or use another STS region."""


class CredentialsRejected(AssumeRoleError):
    """Credentials came, but expired, malformed, or for another account than the one asked for."""


class TargetTimeout(AsyncAuthError, TimeoutError):
    """A target did not finish in the seconds that were allowed; the message carries that number."""


class EndpointDown(AsyncAuthError):
    """Nothing was sent: the endpoint did not answer several times in a row. `.code` is how it failed last.

    What a client's call raises is botocore's `EndpointConnectionError`, too.
    """


class RateLimited(AsyncAuthError):
    """A request was throttled too often, or everything is throttled there, so that asking again is no use for now."""


class PoolClosed(AsyncAuthError):
    """The pool was never opened, or is closed already; the message says which."""
