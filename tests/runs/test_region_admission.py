"""Region admission on a fake clock: how fast a run enters regions, and which targets admit others."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError

from asyncauth import EndpointDown
from asyncauth._aws.error_codes import reachability
from asyncauth._fanout.attempt import Attempt, current_attempt
from asyncauth._resilience.circuit_breaker import CircuitBreakers
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.rate_limits import RateLimit
from asyncauth._resilience.request_guard import RequestGuard
from asyncauth._runs.region_admission import RegionAdmission
from asyncauth.testing import FakeClock
from tests.support.fanout import idle
from tests.support.guarded_calls import HERE, THERE, Signer, answer, call, raising, scope

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> RequestGuard:
    limit = RateLimit("ec2", per=(), max_at_once=1, action="StopInstances")
    return RequestGuard(RateLimiters([limit], clock=clock), CircuitBreakers(clock=clock), clock)


class Run:
    """Targets in one region, as many as are admitted; each in a phase, and held up by nothing or by a request."""

    def __init__(self, guard: RequestGuard, clock: FakeClock) -> None:
        self.guard = guard
        self.admission = RegionAdmission(guard, clock)
        self.go = anyio.Event()
        self.running = 0

    async def enter(self, phase: str, *, sends: bool = False) -> None:
        attempt = Attempt()
        attempt.phase = phase
        with self.admission.track(attempt, HERE):
            if sends:
                await call(self.guard, self.go.wait)
            else:
                await self.go.wait()

    def start(self, group: anyio.abc.TaskGroup, phase: str = "job", *, sends: bool = False, most: int = 40) -> int:
        """Start as many as are admitted now."""
        while self.running < min(most, self.admission.allowed_in_flight(HERE) or most):
            self.running += 1
            group.start_soon(lambda: self.enter(phase, sends=sends))
        return self.running


class TestAdmission:
    async def test_the_first_answer_admits_any_number(self, guard: RequestGuard, clock: FakeClock) -> None:
        """Five until then, any number from then on."""
        admission = RegionAdmission(guard, clock)
        assert admission.allowed_in_flight(HERE) == 5
        await call(guard, answer)
        assert admission.allowed_in_flight(HERE) is None
        assert admission.allowed_in_flight(THERE) == 5

    @pytest.mark.parametrize("phase", ["job", "credentials"])
    async def test_targets_without_a_request_there_admit_others(
        self, guard: RequestGuard, clock: FakeClock, phase: str
    ) -> None:
        """Busy with something else, or waiting for their credentials: five more each second."""
        run = Run(guard, clock)
        entered = []
        async with anyio.create_task_group() as group:
            group.start_soon(run.admission.keep_watching)
            for _ in range(4):
                entered.append(run.start(group, phase))
                await idle()
                clock.advance(1.0)
                await idle()
            group.cancel_scope.cancel()

        assert entered == [5, 10, 15, 20]

    async def test_requests_without_an_answer_admit_no_others(self, guard: RequestGuard, clock: FakeClock) -> None:
        """A black hole gets five targets, however long they wait; an answer admits all the others."""
        run = Run(guard, clock)
        changed: list[Any] = []
        run.admission.subscribe(changed.append)
        async with anyio.create_task_group() as group:
            group.start_soon(run.admission.keep_watching)
            run.start(group, sends=True)
            for _ in range(20):
                await idle()
                clock.advance(1.0)
            assert run.start(group, sends=True) == 5
            assert changed == []
            run.go.set()
            await idle()
            assert run.admission.allowed_in_flight(HERE) is None
            assert ("ec2", HERE) in changed
            group.cancel_scope.cancel()

    @pytest.mark.parametrize("error", [None, ValueError(), ConnectTimeoutError(endpoint_url="x"), "cancelled"])
    async def test_a_target_that_ended_there_admits_one(
        self, guard: RequestGuard, clock: FakeClock, error: Exception | str | None
    ) -> None:
        """However it ended, unless it was cancelled or its connection failed."""
        admission = RegionAdmission(guard, clock)
        with anyio.CancelScope() as scope:
            try:
                with admission.track(Attempt(), HERE):
                    if error == "cancelled":
                        scope.cancel()
                        await anyio.sleep_forever()
                    elif isinstance(error, Exception):
                        raise error
            except (ValueError, ConnectTimeoutError):
                pass

        is_through = error is None or isinstance(error, ValueError)
        assert admission.allowed_in_flight(HERE) == (6 if is_through else 5)

    async def test_a_job_that_catches_botocores_error_catches_that_nothing_was_sent(self, guard: RequestGuard) -> None:
        """From the sixth call on it is both: asyncauth's, with its fields, and botocore's; it can be pickled, and it is
        no new evidence about the endpoint."""
        for _ in range(5):
            await call(guard, raising(ConnectTimeoutError(endpoint_url="x")))

        with pytest.raises(EndpointConnectionError, match=r"^ec2 in eu-west-1 did not answer 5 times") as raised:
            await guard.hook("ec2", scope(), "123456789012", "source", Signer())("ec2", "DescribeImages", answer)

        error = raised.value
        assert isinstance(error, EndpointDown)
        assert (error.code, error.region_name, error.attempts) == ("ConnectTimeoutError", HERE, 0)
        twin = pickle.loads(pickle.dumps(error))
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert reachability(error) == "unknown"
        assert error.kwargs == {"endpoint_url": "ec2 in eu-west-1", "error": "ConnectTimeoutError"}
        with pytest.raises(EndpointConnectionError) as passed_on:
            await guard.hook("sqs", scope("sqs"), "123456789012", "source", Signer())("sqs", "X", raising(error))
        assert passed_on.value is error

    async def test_after_a_failure_no_other_is_admitted(self, guard: RequestGuard, clock: FakeClock) -> None:
        """Targets without a request there prove nothing."""
        admission = RegionAdmission(guard, clock)
        await call(guard, raising(ConnectTimeoutError(endpoint_url="x")))
        for _ in range(3):
            with admission.track(Attempt(), HERE):
                pass

        assert admission.allowed_in_flight(HERE) == 4

    async def test_a_region_that_is_down_is_refused_and_all_targets_begin_and_fail(
        self, guard: RequestGuard, clock: FakeClock
    ) -> None:
        """Five failures open its breaker, for 15 seconds; then one target finds out whether it is back."""
        admission = RegionAdmission(guard, clock)
        for _ in range(5):
            await call(guard, raising(ConnectTimeoutError(endpoint_url="x")))

        refusal = admission.refusal(HERE)
        assert isinstance(refusal, EndpointDown)
        assert str(refusal).startswith("ec2 in eu-west-1 did not answer 5 times in a row (ConnectTimeoutError)")
        assert admission.allowed_in_flight(HERE) is None
        clock.advance(15)
        assert admission.refusal(HERE) is None
        assert admission.allowed_in_flight(HERE) == 1
        await call(guard, answer)
        assert admission.allowed_in_flight(HERE) is None


class TestOwnTimeouts:
    """What the run's own timeout ends counts in this run alone."""

    async def time_out(self, guard: RequestGuard, admission: RegionAdmission, clock: FakeClock, count: int) -> None:
        async def target() -> None:
            attempt = Attempt()
            attempt.times_out_at = clock.monotonic() + 4
            current_attempt.set(attempt)
            hook = guard.hook("ec2", scope(), "123456789012", "source", Signer())  # type: ignore[arg-type]
            with clock.move_on_after(4), admission.track(attempt, HERE):
                await hook("ec2", "DescribeInstances", anyio.sleep_forever)

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(target)
            await idle()
            clock.advance(4)

    async def test_five_end_the_region_for_this_run_and_for_no_other(
        self, guard: RequestGuard, clock: FakeClock
    ) -> None:
        """A black hole costs five timeouts; another run begins as if nothing had happened."""
        admission = RegionAdmission(guard, clock)
        await self.time_out(guard, admission, clock, 4)
        before = admission.refusal(HERE), admission.allowed_in_flight(HERE)
        await self.time_out(guard, admission, clock, 1)

        assert before == (None, 1)
        refusal = admission.refusal(HERE)
        assert isinstance(refusal, EndpointDown)
        assert str(refusal).startswith(
            "region eu-west-1 did not answer 5 times in a row (no answer within the target's"
        )
        assert RegionAdmission(guard, clock).refusal(HERE) is None
        assert RegionAdmission(guard, clock).allowed_in_flight(HERE) == 5
        assert guard.endpoints_down() == {}

    async def test_an_answer_in_between_shows_that_the_region_is_slow(
        self, guard: RequestGuard, clock: FakeClock
    ) -> None:
        """Slow calls beside others that are answered never end the region."""
        admission = RegionAdmission(guard, clock)
        for _ in range(10):
            await self.time_out(guard, admission, clock, 4)
            await call(guard, answer)

        assert admission.refusal(HERE) is None
        assert admission.allowed_in_flight(HERE) is None

    async def test_an_endpoint_that_died_after_it_had_answered(self, guard: RequestGuard, clock: FakeClock) -> None:
        """It costs the targets that were there, and no more."""
        admission = RegionAdmission(guard, clock)
        await call(guard, answer)
        await self.time_out(guard, admission, clock, 20)

        assert admission.refusal(HERE) is not None
