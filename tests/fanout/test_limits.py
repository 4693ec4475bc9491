"""What a run may use, refused at the door where it makes no sense."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._errors import ConfigurationError
from asyncauth._fanout.limits import Limits, Retry


class ThrottledError(Exception):
    pass


def test_a_limit_that_is_not_set_limits_nothing_but_how_many_run_at_once() -> None:
    """Without arguments a run has a hundred targets at once, and no other limit."""
    assert Limits() == Limits(
        max_at_once=100,
        max_at_once_per_account=None,
        max_at_once_per_region=None,
        timeout=None,
        deadline=None,
        failure_tolerance=None,
        failure_mode="strict",
        retry=None,
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("max_at_once", 0, "max_at_once=0 is too small; it must be at least 1"),
        ("max_at_once", -3, "at least 1"),
        ("max_at_once", True, "max_at_once=True is not a whole number"),
        ("max_at_once", 2.0, "not a whole number"),
        ("max_at_once", "10", "max_at_once='10' is not a whole number"),
        ("max_at_once", None, "not a whole number"),
        ("max_at_once_per_account", 0, "max_at_once_per_account=0 is too small"),
        ("max_at_once_per_region", 1.5, "max_at_once_per_region=1.5 is not a whole number"),
        ("timeout", 0, "timeout=0 must be more than 0 seconds"),
        ("timeout", -1.5, "more than 0 seconds"),
        ("timeout", float("nan"), "timeout=nan must be a finite number of seconds, or None"),
        ("timeout", float("inf"), "must be a finite number of seconds, or None"),
        ("timeout", "5", "timeout='5' must be a finite number of seconds"),
        ("deadline", False, "deadline=False must be a finite number of seconds"),
        ("deadline", 0.0, "more than 0 seconds"),
        ("failure_tolerance", -1, "failure_tolerance=-1 is too small; it must be at least 0"),
        ("failure_tolerance", 5.0, "a count of failures is written as an int"),
        ("failure_tolerance", -0.1, "between 0.0 and 1.0"),
        ("failure_tolerance", float("nan"), "between 0.0 and 1.0"),
        ("failure_tolerance", True, "not a whole number"),
        ("failure_tolerance", "5%", "failure_tolerance='5%' is not a whole number"),
        ("failure_mode", "STRICT", "failure_mode='STRICT' must be 'strict' or 'soft'"),
        ("retry", 3, "retry=3 must be a Retry, for example Retry(attempts=3)"),
    ],
)
def test_a_limit_out_of_range_is_refused_by_name(name: str, value: object, says: str) -> None:
    """The message names the parameter, the value and the limit; the error is a ValueError too."""
    with pytest.raises(ConfigurationError) as caught:
        Limits(**{name: value})

    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("attempts", 0, "attempts=0 is too small; it must be at least 1"),
        ("attempts", 2.5, "attempts=2.5 is not a whole number"),
        ("wait_initial", -1, "wait_initial=-1 must be at least 0 seconds"),
        ("wait_max", float("inf"), "wait_max=inf must be a finite number of seconds"),
        ("errors", "ValueError", "must be exception classes or a callable"),
        ("errors", (ValueError, "KeyError"), "must be exception classes or a callable"),
        ("errors", (ValueError, len), "must be exception classes or a callable"),
        ("errors", KeyboardInterrupt, "is no Exception class"),
        ("errors", (ValueError, int), "is no Exception class"),
    ],
)
def test_a_retry_out_of_range_is_refused_by_name(name: str, value: object, says: str) -> None:
    """A retry that could not work is refused where it is written, not at the first error."""
    with pytest.raises(ConfigurationError) as caught:
        Retry(**{name: value})

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("errors", "error", "expected"),
    [
        (None, ThrottledError(), False),
        (ThrottledError, ThrottledError(), True),
        (ThrottledError, ValueError(), False),
        ((ThrottledError, OSError), ConnectionError(), True),
        ((), ThrottledError(), False),
        (lambda error: "slow" in str(error), ValueError("slow down"), True),
        (lambda error: "slow" in str(error), ValueError("no"), False),
    ],
)
def test_a_retry_knows_its_errors(errors: object, error: Exception, expected: bool) -> None:
    """Classes, several of them, or a callable say which errors are worth another attempt; None says none by itself."""
    assert Retry(errors=errors).should(error) is expected  # type: ignore[arg-type]


@given(
    attempt=st.integers(1, 5_000),
    initial=st.floats(0, 100),
    most=st.floats(0, 100),
    seed=st.integers(0, 1_000),
)
def test_a_wait_lies_between_zero_and_a_doubling_limit(attempt: int, initial: float, most: float, seed: int) -> None:
    """Full jitter: anything up to the initial wait doubled per attempt, and never more than the longest allowed."""
    wait_seconds = Retry(wait_initial=initial, wait_max=most).wait_seconds(attempt, Random(seed))

    assert 0 <= wait_seconds <= most
    assert wait_seconds <= initial * 2.0 ** min(attempt - 1, 60)


@pytest.mark.parametrize(
    ("tolerance", "total", "expected"),
    [
        (None, None, None),
        (3, None, 3),
        (3, 1_000, 3),
        (0, 1_000, 0),
        (0.05, 1_000, 50),
        (0.05, 39, 1),  # 1.95, rounded down
        (0.05, 19, 0),
        (0.0, 1_000, 0),
        (1.0, 7, 7),
        (0.5, 0, 0),
    ],
)
def test_a_fraction_is_rounded_down_to_a_count(
    tolerance: float | None, total: int | None, expected: int | None
) -> None:
    """StackSets rounds a percentage of accounts down to the next whole number; so does a fraction."""
    assert Limits(failure_tolerance=tolerance).tolerated_failures(total) == expected


def test_a_fraction_of_nobody_knows_how_many_is_refused() -> None:
    """A fraction needs the number of targets, and the message says what to give instead."""
    with pytest.raises(ConfigurationError, match=r"failure_tolerance=0\.05 is a fraction.*give a count, or a list"):
        Limits(failure_tolerance=0.05).tolerated_failures(None)
