"""Source failures: how long each is remembered, as a table of seconds."""

from __future__ import annotations

import pytest

from asyncauth import SourceError, SourceExpired
from asyncauth._fanout import current_attempt
from asyncauth._fanout.attempt import Attempt
from asyncauth._pool.source_failures import SourceFailures
from asyncauth.testing import FakeClock


def is_remembered(failures: SourceFailures, key: str = "aws") -> bool:
    try:
        failures.check(key)
    except SourceError:
        return True
    return False


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_each_failure_in_a_row_is_remembered_longer(clock: FakeClock) -> None:
    """5, 10, 20, then 30 seconds; after a success 5 again."""
    failures = SourceFailures(clock)
    for seconds in (5, 10, 20, 30, 30):
        failures.note("aws", SourceExpired("log in"))
        clock.advance(seconds - 0.1)
        assert is_remembered(failures)
        clock.advance(0.2)
        assert not is_remembered(failures)
    failures.forget("aws")
    failures.note("aws", SourceExpired("log in"))
    clock.advance(5.1)

    assert not is_remembered(failures)


def test_a_new_run_looks_again_after_a_second(clock: FakeClock) -> None:
    """Runs that begin one after the other share the failure within a second, and not later."""
    failures = SourceFailures(clock)
    failures.note("aws", SourceExpired("log in"))
    failures.begin_run()
    clock.advance(0.9)
    within = is_remembered(failures)
    clock.advance(0.2)

    assert within
    assert not is_remembered(failures)


@pytest.mark.parametrize(("error", "seconds"), [(SourceExpired("log in"), 60), (SourceError("no answer"), 5)])
def test_a_slow_run_requests_an_ended_login_once_a_minute(clock: FakeClock, error: SourceError, seconds: float) -> None:
    """The targets of a run remember a login that ended for a minute, and a failure that may pass for 5 seconds."""
    failures = SourceFailures(clock)
    token = current_attempt.set(Attempt())
    try:
        failures.note("aws", error)
        clock.advance(seconds - 0.1)
        before = is_remembered(failures)
        clock.advance(0.2)
        after = is_remembered(failures)
    finally:
        current_attempt.reset(token)

    assert (before, after) == (True, False)


def test_sources_are_remembered_apart(clock: FakeClock) -> None:
    """A failure of one source is none of another."""
    failures = SourceFailures(clock)
    failures.note("aws", SourceExpired("log in"))

    assert is_remembered(failures)
    assert not is_remembered(failures, "aws-cn")


def test_each_target_gets_a_copy(clock: FakeClock) -> None:
    """The same error, so that a report counts it once, and never the same object, whose traceback would grow."""
    failures = SourceFailures(clock)
    error = SourceExpired("log in", code="x")
    failures.note("aws", error)
    raised: list[SourceExpired] = []
    for _ in range(2):
        with pytest.raises(SourceExpired) as caught:
            failures.check("aws")
        raised.append(caught.value)

    assert raised[0] is not raised[1]
    assert {(str(each), each.code) for each in raised} == {("log in", "x")}
