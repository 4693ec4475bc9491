"""Clock offset: which refusals a wrong clock causes, and by how much it is off."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._aws.clock_offset import describe_clock, note_clock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def refusal(code: str, message: str = "m", date: str | None = format_datetime(NOON, usegmt=True)) -> ClientError:
    headers = {} if date is None else {"date": date}
    metadata: Any = {"HTTPStatusCode": 400, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "DescribeRegions")


@pytest.mark.parametrize(
    ("code", "message", "offset", "is_clock"),
    [
        ("RequestExpired", "Request has expired.", 480, True),
        ("RequestExpired", "Request has expired.", -480, True),
        ("RequestExpired", "Request has expired.", 20, False),
        ("AuthFailure", "AWS was not able to validate the provided access credentials", 1200, True),
        ("AuthFailure", "AWS was not able to validate the provided access credentials", 0, False),
        ("RequestTimeTooSkewed", "The difference is too large.", 1000, True),
        ("SignatureDoesNotMatch", "Signature expired: 20260101T114000Z is now earlier than", -1200, True),
        ("InvalidSignatureException", "Signature not yet current: 20260101T120800Z", 480, True),
        ("InvalidSignatureException", "The request signature we calculated does not match", 480, False),
        ("AccessDenied", "Signature expired", 480, False),
    ],
)
def test_a_refusal_is_the_clock_by_its_code_its_text_or_the_offset(
    code: str, message: str, offset: float, is_clock: bool
) -> None:
    """Codes with other causes count only together with an offset that AWS refuses, or a text that names it."""
    described = describe_clock(refusal(code, message), code, NOON.timestamp() + offset)

    assert (described is not None) is is_clock
    if described is not None:
        minutes, seconds = divmod(abs(offset), 60)
        assert f"it is {minutes:.0f} min {seconds:.0f} s {'ahead of' if offset > 0 else 'behind'} AWS" in described


@pytest.mark.parametrize("date", [None, "", "soon", "Thu, 99 Jan 2026 00:00:00 GMT", "x" * 100_000])
def test_an_answer_without_a_date_has_no_offset(date: str | None) -> None:
    """An unreadable date is no error: the message has no offset, and an ambiguous code is not the clock."""
    assert describe_clock(refusal("RequestTimeTooSkewed", date=date), "RequestTimeTooSkewed", 0) == (
        "this machine's clock is off; AWS accepts 5 minutes, so correct the clock (NTP); the keys are not the cause"
    )
    assert describe_clock(refusal("RequestExpired", date=date), "RequestExpired", 0) is None


def test_a_refusal_gets_one_note() -> None:
    """A call within a call passes the same error on twice."""
    error = refusal("RequestExpired")

    note_clock(error, NOON.timestamp() + 480)
    note_clock(error, NOON.timestamp() + 480)

    assert len(error.__notes__) == 1


@given(response=st.none() | st.text() | st.dictionaries(st.sampled_from(["Error", "ResponseMetadata"]), st.none()))
def test_a_response_of_any_form_is_no_error(response: Any) -> None:
    """A library in a job can replace the response of an error by anything."""
    error = refusal("RequestExpired")
    error.response = response

    note_clock(error, 0)

    assert not hasattr(error, "__notes__")
