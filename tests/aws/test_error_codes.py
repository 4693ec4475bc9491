"""Error codes: the sets of codes, the code of an error, and the errors that are retried."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError
from botocore.retries.standard import ThrottledRetryableChecker

from asyncauth._aws.error_codes import (
    THROTTLED,
    attempts_of,
    code_or_class,
    error_code,
    is_transient,
    reachability,
)
from asyncauth._errors import AssumeRoleError, AssumeRoleThrottled, AsyncAuthError, SourceError

pytestmark = pytest.mark.botocore


def answered(code: str, **metadata: Any) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": metadata}
    return ClientError(response, "DescribeInstances")


def test_throttling_codes_are_botocores_own() -> None:
    """The set equals the list of botocore's standard retry mode."""
    assert set(ThrottledRetryableChecker._THROTTLED_ERROR_CODES) == THROTTLED


@pytest.mark.parametrize("code", sorted(THROTTLED))
def test_every_throttling_code_is_retried(code: str) -> None:
    """A job that raises the error is called again, also if the error is in a group."""
    assert is_transient(answered(code))
    assert is_transient(ExceptionGroup("", [answered(code), answered("ExpiredToken")]))


@pytest.mark.parametrize(
    "error",
    [
        answered("AccessDenied"),
        KeyError("Throttling"),
        ExceptionGroup("", [answered("Throttling"), KeyError()]),
        AssumeRoleThrottled("", code="Throttling"),
    ],
)
def test_other_errors_are_not_retried(error: Exception) -> None:
    """AssumeRole has retries of its own, so its throttling is not retried by the run."""
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (answered("AccessDenied"), "AccessDenied", "AccessDenied"),
        (ClientError({}, "DescribeInstances"), "Unknown", "Unknown"),
        (KeyError("x"), None, "KeyError"),
        (AsyncAuthError("x", code="Y"), "Y", "Y"),
        (AsyncAuthError("x"), None, "AsyncAuthError"),
        (EndpointConnectionError(endpoint_url="https://sts"), "EndpointConnectionError", "EndpointConnectionError"),
        (ExceptionGroup("", [answered("X"), answered("X")]), "X", "X"),
        (ExceptionGroup("", [answered("X"), answered("Y")]), None, "ExceptionGroup"),
    ],
)
def test_the_code_of_an_error(error: Exception, code: str | None, name: str) -> None:
    """It is AWS's code, asyncauth's, or the class of botocore's exception; else None."""
    assert error_code(error) == code
    assert code_or_class(error) == name


def test_attempts_are_botocores_count() -> None:
    """`RetryAttempts` of the response, plus the first request."""
    assert attempts_of(answered("Throttling", RetryAttempts=4)) == 5
    assert attempts_of(answered("Throttling")) == 1
    assert attempts_of(KeyError()) == 1


def test_reachability_of_the_endpoint_of_an_error() -> None:
    """A refusal shows that the endpoint answers, a broken connection that it does not; local errors show neither."""
    no_answer = ConnectTimeoutError(endpoint_url="https://sts")
    no_files = EndpointConnectionError(endpoint_url="https://sts")
    no_files.__cause__ = OSError(errno.EMFILE, "too many open files")
    wrapped = AssumeRoleError("no answer")
    wrapped.__cause__ = no_answer

    assert reachability(answered("AccessDenied")) == "answered"
    assert reachability(no_answer) == reachability(wrapped) == "unanswered"
    assert reachability(AssumeRoleError("", code="LoadTimeout")) == "unanswered"
    assert {reachability(each) for each in (no_files, SourceError(""), KeyError(), None)} == {"unknown"}


@pytest.mark.parametrize("response", [None, {}, {"Error": "text", "ResponseMetadata": 5}, "text"])
def test_a_response_can_be_anything(response: object) -> None:
    """A job can replace the response of an error; its target fails all the same, and the run goes on."""
    error = ClientError({"Error": {"Code": "AccessDenied"}}, "DescribeInstances")
    error.response = response

    assert (error_code(error), attempts_of(error)) == ("Unknown", 1)
