"""Error codes: the meaning of AWS's codes, and the code of an exception.

AWS has different codes for one meaning in different protocols, so a meaning is a set of codes. Two can share a code:
`InvalidToken` is an expired token in one place and a region that is not enabled in another.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from asyncauth._aws.connection_settings import find_settings_problem
from asyncauth._errors import CODE_CHARACTERS, AssumeRoleError, AsyncAuthError, SourceError
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

#: Too many requests. This is botocore's own list; a test compares the two.
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

#: The caller is not allowed to do this. SNS has codes of its own.
DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "UnauthorizedOperation",
    }
)

#: The token that signed has expired. EC2 answers RequestExpired, STS and S3 ExpiredToken, JSON services the third.
TOKEN_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})

#: S3's answer to a token that has expired or is malformed, and to any token in a region that is not enabled.
TOKEN_INVALID: Final = frozenset({"InvalidToken"})

#: Every code that an expired token can cause.
EXPIRED: Final = TOKEN_EXPIRED | TOKEN_INVALID

#: The key id that signed does not exist: deleted, rotated, mistyped, or of another partition.
KEYS_UNKNOWN: Final = frozenset({"InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"})

#: STS refuses the keys that signed, whatever role was requested.
SOURCE_REFUSED: Final = KEYS_UNKNOWN | {
    "AuthFailure",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "OptInRequired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}

#: Answers that do not change with another request (the list is in the refresh specification of AWS's SDKs).
FINAL: Final = frozenset(
    {"IDPRejectedClaim", "InvalidIdentityToken", "MalformedPolicyDocument", "PackedPolicyTooLarge", "ValidationError"}
)

#: Codes by which services refuse a token in a region that is not enabled. Each can also have another meaning.
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

#: The code of an error after a request without an answer; the message has the number of seconds.
NO_ANSWER: Final = "LoadTimeout"

#: The process or the machine has reached its limit of open files.
NO_MORE_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})

#: This process or machine has no files, ports or memory for a connection; the endpoint is not the cause.
_LOCAL_EXHAUSTION: Final = NO_MORE_FILES | {errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}

#: Whether an endpoint answered, did not answer, or the error is no evidence either way.
Reachability: TypeAlias = Literal["answered", "unanswered", "unknown"]


def error_code(error: BaseException) -> str | None:
    """Return AWS's code of an error, or the name of botocore's class if AWS did not answer; None for other errors.

    A group has the code that all its members share.
    """
    if isinstance(error, BaseExceptionGroup):
        codes = {error_code(each) for each in error.exceptions}
        return codes.pop() if len(codes) == 1 else None
    if isinstance(error, ClientError):
        # A proxy, or a server that is not AWS's, can answer anything.
        return printable(str(_details(error, "Error").get("Code", "Unknown")), CODE_CHARACTERS)
    if isinstance(error, AsyncAuthError):
        return error.code
    return type(error).__name__ if isinstance(error, BotoCoreError) else None


def _details(error: ClientError, key: str) -> Mapping[str, Any]:
    # A job, or a library in it, can replace the response by anything.
    response = getattr(error, "response", None)
    details = response.get(key) if isinstance(response, Mapping) else None
    return details if isinstance(details, Mapping) else {}


def code_or_class(error: BaseException) -> str:
    """Return the code of an error, or the name of its class if it has none; never its message."""
    return error_code(error) or type(error).__name__


def attempts_of(error: BaseException) -> int:
    """Return how many requests were sent before an error, by botocore's count of retries."""
    if isinstance(error, ClientError):
        return int(_details(error, "ResponseMetadata").get("RetryAttempts", 0)) + 1
    return 1


def is_transient(error: Exception) -> bool:
    """Whether another attempt at a job can succeed: the error is throttling, or a token that expired during the job.

    Throttling of AssumeRole does not count: the rate limiter has already repeated that request.
    """
    if isinstance(error, ExceptionGroup):
        return all(map(is_transient, error.exceptions))
    return not isinstance(error, AssumeRoleError) and error_code(error) in (THROTTLED | EXPIRED)


def reachability(error: BaseException | None) -> Reachability:
    """Return whether the endpoint answered, as far as an error shows. A service's refusal is an answer.

    A setting that prevents every request, such as a proxy's refusal, shows nothing about the endpoint.
    """
    if isinstance(error, ClientError):
        return "answered"
    if isinstance(error, AsyncAuthError):
        if isinstance(error, SourceError):
            return "unknown"
        return "unanswered" if error.code == NO_ANSWER else reachability(error.__cause__)
    if isinstance(error, BotoConnectionError | HTTPClientError):
        problem = find_settings_problem(error)
        is_local = has_errno(error, _LOCAL_EXHAUSTION) or (problem is not None and problem.final)
        return "unknown" if is_local else "unanswered"
    return "unknown"


def has_errno(error: BaseException | None, numbers: AbstractSet[int]) -> bool:
    """Whether an error, or one in its chain of causes and contexts, is an OSError with one of these numbers."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return True
        error = error.__cause__ or error.__context__
    return False
