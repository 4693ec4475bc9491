"""Limits of a run: their checks, the retry rules, and the arithmetic of a fractional tolerance."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._errors import ConfigurationError
from asyncauth._fanout.limits import Limits, Retry


class ThrottledError(Exception):
    pass


def test_only_max_at_once_has_a_default_limit() -> None:
    """By default a run has a hundred targets at once, and no other limit."""
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
    ("name", "value", "message"),
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
def test_a_limit_out_of_range_is_refused(name: str, value: object, message: str) -> None:
    """The message names the parameter, the value and the limit; the error is a ValueError too."""
    with pytest.raises(ConfigurationError) as caught:
        Limits(**{name: value})

    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("name", "value", "message"),
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
def test_a_retry_out_of_range_is_refused(name: str, value: object, message: str) -> None:
    """An invalid `Retry` is refused when it is created, not at the first error."""
    with pytest.raises(ConfigurationError) as caught:
        Retry(**{name: value})

    assert message in str(caught.value)


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
def test_a_retry_applies_to_its_errors(errors: object, error: Exception, expected: bool) -> None:
    """A class, a tuple of classes or a callable selects the errors that are retried; None selects none."""
    assert Retry(errors=errors).applies_to(error) is expected  # type: ignore[arg-type]


@given(
    attempt=st.integers(1, 5_000),
    initial=st.floats(0, 100),
    longest=st.floats(0, 100),
    seed=st.integers(0, 1_000),
)
def test_a_wait_is_between_zero_and_a_doubling_limit(attempt: int, initial: float, longest: float, seed: int) -> None:
    """Full jitter: between 0 and the initial wait doubled per attempt, and never more than `wait_max`."""
    wait_seconds = Retry(wait_initial=initial, wait_max=longest).wait_seconds(attempt, Random(seed))

    assert 0 <= wait_seconds <= longest
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
        # Not exact in binary floating point: 0.29 * 100 is 28.999999999999996.
        (0.29, 100, 29),
        (0.58, 100, 58),
        (0.07, 100, 7),
        (0.1, 30, 3),
        (1e-05, 100_000, 1),
    ],
)
def test_a_fraction_is_rounded_down_to_a_count(
    tolerance: float | None, total: int | None, expected: int | None
) -> None:
    """A fraction is rounded down to a whole number of targets, as StackSets rounds a percentage of accounts."""
    assert Limits(failure_tolerance=tolerance).tolerated_failures(total) == expected


@given(hundredths=st.integers(0, 100), hundreds=st.integers(0, 1_000))
def test_a_fraction_of_hundreds_is_exact(hundredths: int, hundreds: int) -> None:
    """n hundredths of a multiple of 100 targets are a whole number, and exactly that number may fail."""
    limits = Limits(failure_tolerance=float(f"{hundredths / 100:.2f}"))

    assert limits.tolerated_failures(100 * hundreds) == hundredths * hundreds


def test_a_fraction_of_an_unknown_number_is_refused() -> None:
    """A fraction without the number of targets is refused, and the message names the alternatives."""
    with pytest.raises(ConfigurationError, match=r"failure_tolerance=0\.05 is a fraction.*give a count, or a list"):
        Limits(failure_tolerance=0.05).tolerated_failures(None)
