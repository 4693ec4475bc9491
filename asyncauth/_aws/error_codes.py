"""Error codes: the one table of what AWS's codes mean, and how the code of an error is found.

AWS names the same thing differently in each protocol, so a meaning is a set of codes. Two meanings can share a code:
`InvalidToken` is an expired token in one place and a region that is not enabled in another.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from asyncauth._errors import AssumeRoleError, AsyncAuthError, SourceError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

#: One request too many. botocore's own list, taken whole; a test compares the two.
THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)

#: The caller may not do this. SNS answers with codes of its own.
DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "UnauthorizedOperation",
    }
)

#: The token that signed has ended. EC2 answers RequestExpired, STS and S3 ExpiredToken, JSON services the third.
TOKEN_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})

#: S3's answer to a token that has ended or is broken, and also in a region that the account has not enabled.
TOKEN_INVALID: Final = frozenset({"InvalidToken"})

#: Every code that an ended token can have.
EXPIRED: Final = TOKEN_EXPIRED | TOKEN_INVALID

#: STS refuses the keys that signed, whatever role was requested.
SOURCE_REFUSED: Final = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "OptInRequired",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)

#: Answers that another request does not change (the refresh specification of AWS's SDKs names these).
FINAL: Final = frozenset(
    {"IDPRejectedClaim", "InvalidIdentityToken", "MalformedPolicyDocument", "PackedPolicyTooLarge", "ValidationError"}
)

#: How services refuse a token in a region that the account has not enabled. Each code can also mean something else.
#: Source: "Enable or disable AWS Regions in your account", AWS Account Management reference guide.
UNKNOWN_IN_REGION: Final = frozenset(
    {
        "AuthFailure",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "OptInRequired",
        "UnrecognizedClientException",
    }
)

#: The code of an error that carries for how many seconds no answer came.
NO_ANSWER: Final = "LoadTimeout"

#: The process, or the machine, has reached its limit of open files.
NO_MORE_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})

#: No files, ports or memory left for a connection in this process or machine; the endpoint has no part in it.
_LOCAL_TROUBLE: Final = NO_MORE_FILES | {errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}

#: Whether an endpoint answered, did not answer, or the error is no evidence either way.
Reachability: TypeAlias = Literal["answered", "unanswered", "unknown"]


def error_code(error: BaseException) -> str | None:
    """Return AWS's code of an error, or the name of botocore's class where AWS gave no answer; None for the rest.

    A group has the code that all its members have.
    """
    if isinstance(error, BaseExceptionGroup):
        codes = {error_code(each) for each in error.exceptions}
        return codes.pop() if len(codes) == 1 else None
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    if isinstance(error, AsyncAuthError):
        return error.code
    return type(error).__name__ if isinstance(error, BotoCoreError) else None


def code_or_class(error: BaseException) -> str:
    """Return the code of an error, or the name of its class where it has none; never its message."""
    return error_code(error) or type(error).__name__


def attempts_of(error: BaseException) -> int:
    """Return how many requests an error took, by botocore's own count of retries."""
    if isinstance(error, ClientError):
        return int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1
    return 1


def is_transient(error: Exception) -> bool:
    """Whether another attempt at a job may not meet this error: throttling, or a token that ended on the way.

    Throttling of AssumeRole does not count: the rate limit that all accounts share has sent that again already.
    """
    if isinstance(error, ExceptionGroup):
        return all(map(is_transient, error.exceptions))
    return not isinstance(error, AssumeRoleError) and error_code(error) in (THROTTLED | EXPIRED)


def reachability(error: BaseException | None) -> Reachability:
    """Return what an error shows about its endpoint. A refusal by the service shows that the endpoint answers."""
    if isinstance(error, ClientError):
        return "answered"
    if isinstance(error, AsyncAuthError):
        if isinstance(error, SourceError):
            return "unknown"
        return "unanswered" if error.code == NO_ANSWER else reachability(error.__cause__)
    if isinstance(error, BotoConnectionError | HTTPClientError):
        return "unknown" if has_errno(error, _LOCAL_TROUBLE) else "unanswered"
    return "unknown"


def has_errno(error: BaseException | None, numbers: AbstractSet[int]) -> bool:
    """Whether an error, or one in its chain of causes, is an OSError with one of these numbers."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        error = error.__cause__ or error.__context__
    return False
