"""Errors that asyncauth raises, in one tree with one root.

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
    |-- JobExited
    |-- EndpointDown
    |-- RateLimited
    |-- WorkerLost
    |-- EngineLost
    |-- StoreLocked
    |-- IncompleteMetrics
    `-- PoolClosed

A job's own exception is never wrapped in one of these.
"""

from __future__ import annotations

from typing import Any, Final

#: A message quotes texts from outside: names, arguments, answers. What to do about the error is at its end, so a
#: message that is too long loses its middle.
MESSAGE_CHARACTERS: Final = 2_000
CODE_CHARACTERS: Final = 128


def _clean(text: str, max_characters: int) -> str:
    """Return a text with its middle cut out if it is too long, and without characters that a terminal executes."""
    if not isinstance(text, str):
        return text
    if len(text) > max_characters:
        end = max_characters // 4
        text = f"{text[: max_characters - end - 5]} ... {text[-end:]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


class AsyncAuthError(Exception):
    """Root of the tree: every error that asyncauth itself raises is one.

    Args:
        message: what happened, to which account, and what to try.
        account: the 12-digit id of the account; None if the error concerns none, or all.
        role_arn: the role that was to be assumed; None if there was none.
        region_name: the region of the endpoint or target; None if there is none.
        code: AWS's error code, or the name of the transport error if AWS did not answer; None if neither applies.
        attempts: how many requests were sent in total; None if none could be.
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
        super().__init__(_clean(message, MESSAGE_CHARACTERS))
        self.account = account
        self.role_arn = role_arn
        self.region_name = region_name
        self.code = None if code is None else _clean(code, CODE_CHARACTERS)
        self.attempts = attempts

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by their positional arguments; the keyword-only fields are pickled as state.
        return (type(self), self.args, self.__dict__)


class ConfigurationError(AsyncAuthError, ValueError):
    """An argument or setting is invalid: a bad account id, an unknown partition or region, a limit out of range."""


class PartitionMismatch(ConfigurationError):
    """The account or region is in another partition than the credentials; no call was made.

    No role can be assumed across partitions: give each partition a source, `sources={"aws": ..., "aws-cn": ...}`.
    """


class SourceError(AsyncAuthError):
    """The base credentials do not work, so no account can be reached through them."""


class NoSourceCredentials(SourceError):
    """No base credentials were found; the message lists what was tried."""


class SourceExpired(SourceError):
    """A login or token that the source depends on has expired; the message names the command that renews it."""


class LongTermCredentialsError(SourceError):
    """Long-term keys would be used directly, without a role, and the pool does not allow that."""


class AssumeRoleError(AsyncAuthError):
    """STS returned no credentials for a role."""


class AssumeRoleDenied(AssumeRoleError):
    """STS answered AccessDenied: trust policy, external id, missing role or account, or an SCP.

    STS deliberately gives the same answer for all of them; the message lists what to check.
    """


class AssumeRoleThrottled(AssumeRoleError):
    """STS throttled every attempt; `.attempts` is how many were sent."""


class RegionDisabled(AssumeRoleError):
    """STS is not active in that region for the account: activate it, or use another STS region."""


class CredentialsRejected(AssumeRoleError):
    """The returned credentials were expired, malformed, or of another account than the requested one."""


class TargetTimeout(AsyncAuthError, TimeoutError):
    """A target did not finish within its timeout or the run's deadline; the message carries the number of seconds."""


class JobExited(AsyncAuthError):
    """A job called `sys.exit()`. That ends its target, not the program.

    Args:
        message: the call.
        exit_code: the status with which the program would have exited: 0 for `sys.exit()`, 1 for `sys.exit("text")`.
        fields: as for `AsyncAuthError`.
    """

    exit_code: int

    def __init__(self, message: str = "", *, exit_code: int = 0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.exit_code = exit_code


class EndpointDown(AsyncAuthError):
    """The endpoint did not answer several times in a row, so this request was not sent.

    `.code` is the code of its last failure. The error that a client's call raises is also botocore's
    `EndpointConnectionError`.
    """


class RateLimited(AsyncAuthError):
    """A request was throttled too often, or was not sent because the endpoint throttles every request now."""


class WorkerLost(AsyncAuthError):
    """The process that worked on a target of an engine ended before the target did; the job may have run."""


class EngineLost(AsyncAuthError):
    """The engine does not answer any more, so a run ended early; the message names the journal."""


class StoreLocked(AsyncAuthError):
    """Another run writes to the store; the message has its process id, host and start."""


class IncompleteMetrics(AsyncAuthError):
    """CloudWatch did not answer all results completely; the message has how many, and the first reason."""


class PoolClosed(AsyncAuthError):
    """The pool was never opened, or is closed; the message names which."""
