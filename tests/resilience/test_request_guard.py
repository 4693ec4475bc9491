"""Request guard on a fake clock: what the end of a request shows, where it waits, and the state of regions."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from asyncauth import AssumeRoleError, AssumeRoleThrottled, EndpointDown
from asyncauth._fanout.attempt import Attempt, current_attempt
from asyncauth._models.identity import CredentialsDue, permit_holder
from asyncauth._resilience.circuit_breaker import CircuitBreakerPolicy, CircuitBreakers
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.rate_limits import RateLimit
from asyncauth._resilience.request_guard import RequestGuard
from asyncauth._runtime.stall_monitor import StallMonitor
from asyncauth.testing import FakeClock
from tests.support.fanout import idle
from tests.support.guarded_calls import HERE, THERE, Signer, answer, call, raising, scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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


def client_error(code: str, status: int = 400) -> ClientError:
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code, "Message": code}, "ResponseMetadata": metadata}, "DescribeInstances")


class TestEvidence:
    @pytest.mark.parametrize(
        ("error", "allowed_in_flight"),
        [
            (ConnectTimeoutError(endpoint_url="https://ec2"), 4),
            (client_error("AccessDenied"), None),
            (client_error("InternalError", 500), None),
            (ValueError(), 5),
            (AssumeRoleThrottled("", code="Throttling"), 5),
            (AssumeRoleError("", code="LoadTimeout"), 5),
        ],
    )
    async def test_what_an_error_shows_about_the_region(
        self, guard: RequestGuard, error: Exception, allowed_in_flight: int | None
    ) -> None:
        """A broken connection is a failure, any answer is an answer; an error of another origin shows nothing."""
        await call(guard, raising(error))

        assert guard.region_allowed(HERE) == allowed_in_flight
        assert guard.in_flight(HERE) == 0

    async def test_a_read_timeout_of_less_than_a_second_shows_nothing(self, guard: RequestGuard) -> None:
        """It is a setting of the client."""
        for _ in range(6):
            await call(guard, raising(ReadTimeoutError(endpoint_url="https://ec2")))

        assert guard.region_allowed(HERE) == 5

    async def test_an_endpoint_of_a_clients_own_is_separate(self, guard: RequestGuard) -> None:
        """It has a breaker of its own, and shows nothing about the region, up or down."""
        dead = "http://127.0.0.1:9"
        for _ in range(5):
            await call(guard, raising(ConnectTimeoutError(endpoint_url=dead)), own_endpoint=dead)
        assert guard.endpoints_down() == {f"ec2 in eu-west-1 at {dead}": "ConnectTimeoutError"}
        assert guard.region_allowed(HERE) == 5

        await call(guard, answer, own_endpoint="http://127.0.0.1:8")
        assert guard.region_allowed(HERE) == 5

    async def test_settings_of_a_clients_own_confirm_a_region_and_never_blame_it(self, guard: RequestGuard) -> None:
        """A proxy that does not work concerns its client alone; an answer is an answer."""
        for _ in range(5):
            await call(guard, raising(ConnectTimeoutError(endpoint_url="https://ec2")), own_settings="a proxy")
        assert guard.endpoints_down() == {"ec2 in eu-west-1": "ConnectTimeoutError"}
        assert guard.region_allowed(HERE) == 5
        assert guard.breakers.allowed_in_flight(("ec2", HERE)) == 5

        await call(guard, answer, own_settings="another proxy")
        assert guard.region_allowed(HERE) is None

    async def test_a_call_that_waits_for_a_limit_is_not_in_flight(self, guard: RequestGuard) -> None:
        """So its region is not blamed for the wait."""
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call, guard, anyio.sleep_forever, "StopInstances")
            await idle()

            assert guard.in_flight(HERE) == 1
            group.cancel_scope.cancel()

    @pytest.mark.parametrize("seconds", [0.5, 2.0, 30.0])
    async def test_a_call_that_is_cancelled_shows_nothing(
        self, guard: RequestGuard, clock: FakeClock, seconds: float
    ) -> None:
        """Not by its job, nor by its target's timeout: however long it waited, the next run starts afresh."""
        times_out_at = clock.monotonic() + seconds
        for _ in range(3):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(call, guard, anyio.sleep_forever, "DescribeInstances", times_out_at)
                await idle()
                assert guard.in_flight(HERE) == 5
                clock.advance(seconds)
                group.cancel_scope.cancel()

        assert guard.region_allowed(HERE) == 5
        assert guard.in_flight(HERE) == 0

    @pytest.mark.parametrize(
        ("seconds", "times_out_after", "is_silent"),
        [(0.9, 0.9, False), (1.0, 1.0, True), (1.0, 9.0, False), (1.0, None, False)],
    )
    async def test_the_attempt_learns_that_its_time_ended_in_silence(
        self, guard: RequestGuard, clock: FakeClock, seconds: float, times_out_after: float | None, is_silent: bool
    ) -> None:
        """After a second without an answer, when its own timeout is what cancels the call."""
        attempt = Attempt()
        attempt.times_out_at = None if times_out_after is None else clock.monotonic() + times_out_after
        current_attempt.set(attempt)
        hook = guard.hook("ec2", scope(), "123456789012", "source", Signer())  # type: ignore[arg-type]
        async with anyio.create_task_group() as group:
            group.start_soon(hook, "ec2", "DescribeInstances", anyio.sleep_forever)
            await idle()
            clock.advance(seconds)
            group.cancel_scope.cancel()

        assert attempt.met_silence is is_silent

    async def test_a_timeout_after_a_stall_of_the_process_is_no_silence(self, clock: FakeClock) -> None:
        """The region answered, perhaps; the attempt learns nothing about it."""
        stalls = StallMonitor()
        guard = RequestGuard(RateLimiters(clock=clock), CircuitBreakers(clock=clock), clock, stalls=stalls)
        attempt = Attempt()
        attempt.times_out_at = clock.monotonic() + 10
        current_attempt.set(attempt)
        hook = guard.hook("ec2", scope(), "123456789012", "source", Signer())  # type: ignore[arg-type]
        async with anyio.create_task_group() as group:
            group.start_soon(hook, "ec2", "DescribeInstances", anyio.sleep_forever)
            await idle()
            clock.advance(12)
            stalls.stalls += 1  # as the monitor counts a stall that ends now
            group.cancel_scope.cancel()

        assert attempt.met_silence is False

    async def test_timeouts_during_a_stall_of_the_process_show_nothing(self, clock: FakeClock) -> None:
        """The answers may have come while no timer and no reader ran."""
        stalls = StallMonitor()
        guard = RequestGuard(RateLimiters(clock=clock), CircuitBreakers(clock=clock), clock, stalls=stalls)

        async def stalled() -> None:
            stalls.stalls += 1  # as the monitor counts a stall that ends now
            raise ReadTimeoutError(endpoint_url="https://ec2")

        for _ in range(20):
            clock.advance(70)
            await call(guard, stalled)

        assert guard.region_allowed(HERE) == 5


class TestRegions:
    async def test_one_service_that_is_down_is_not_its_region(self, guard: RequestGuard, clock: FakeClock) -> None:
        """While another one answers there; a service that a region does not have has no address at all."""
        await call(guard, answer)
        silent = raising(ConnectTimeoutError(endpoint_url="https://sqs"))
        hook = guard.hook("sqs", scope("sqs"), "123456789012", "source", Signer())  # type: ignore[arg-type]
        for _ in range(5):
            with suppress(ConnectTimeoutError):
                await hook("sqs", "ListQueues", silent)
        assert guard.endpoints_down().keys() == {"sqs in eu-west-1"}
        assert guard.region_state(HERE) == "closed"

        for _ in range(6):
            await call(guard, raising(ConnectTimeoutError(endpoint_url="https://ec2")))
            clock.advance(1)
        assert guard.endpoints_down().keys() == {"sqs in eu-west-1", "ec2 in eu-west-1", "region eu-west-1"}
        assert guard.region_refusal(HERE) is not None

    async def test_a_region_whose_endpoints_are_down_lets_one_target_find_out(
        self, guard: RequestGuard, clock: FakeClock
    ) -> None:
        """After the pause of one of them; its answer opens the region for all."""
        for _ in range(5):
            await call(guard, raising(ConnectTimeoutError(endpoint_url="https://ec2")))
        assert guard.region_allowed(HERE) == 0
        clock.advance(15)
        assert (guard.region_allowed(HERE), guard.region_refusal(HERE)) == (1, None)

        await call(guard, answer)
        assert guard.region_allowed(HERE) is None


class TestPermits:
    async def test_a_call_within_a_call_needs_no_second_permit(self, clock: FakeClock) -> None:
        """A bucket's region, or a session of S3 Express, is requested within a call that has its permits already."""
        guard = RequestGuard(
            RateLimiters([RateLimit("ec2", per=(), max_at_once=1)], clock=clock),
            CircuitBreakers(CircuitBreakerPolicy(half_open_max=1), clock=clock),
            clock,
        )
        done = []

        async def outer() -> None:
            await call(guard, inner)
            done.append("outer")

        async def inner() -> None:
            done.append("inner")

        with anyio.fail_after(5):
            await call(guard, outer)
        assert done == ["inner", "outer"]

    @pytest.mark.parametrize("credentials", ["none", "ending"])
    async def test_credentials_are_waited_for_outside_of_every_permit(
        self, guard: RequestGuard, credentials: str
    ) -> None:
        """What brings them may need the same one: an AssumeRole under a limit on all calls of STS."""
        order: list[str] = []

        class Loading(Signer):
            async def get_frozen_credentials(self) -> str:
                if self.credentials == "none":
                    async with guard.rate_limiters.admit(service="ec2", action="StopInstances"):
                        order.append("loaded")
                return await super().get_frozen_credentials()

        async def invoke() -> None:
            order.append("sent")

        hook = guard.hook("ec2", scope(), "123456789012", "source", Loading(credentials))  # type: ignore[arg-type]
        with anyio.fail_after(5):
            await hook("ec2", "StopInstances", invoke)

        assert order == ["loaded", "sent"]

    async def test_a_signer_within_a_permit_does_not_wait(self, guard: RequestGuard) -> None:
        """It knows that a permit is held; its exception passes the hook, which gives the permit back."""

        async def invoke() -> None:
            assert permit_holder.get() is guard
            raise CredentialsDue

        hook = guard.hook("ec2", scope(), "123456789012", "source", Signer())  # type: ignore[arg-type]
        with pytest.raises(CredentialsDue):
            await hook("ec2", "StopInstances", invoke)

        (queue,) = guard.rate_limiters.statistics()
        assert queue.running == 0
        assert guard.region_allowed(HERE) == 5
        assert permit_holder.get() is None


class TestAssumeRole:
    async def send(self, guard: RequestGuard, region_name: str, invoke: Callable[[], Awaitable[None]]) -> None:
        async def send(_: bool) -> None:
            await invoke()

        await guard.assume(
            send,
            account_id="123456789012",
            region_name=region_name,
            source="source",
            identity=Signer(),  # type: ignore[arg-type]
        )

    async def test_it_shows_nothing_about_the_region(self, guard: RequestGuard) -> None:
        """Where tokens come from is no evidence about the region as a target, in either direction."""
        await self.send(guard, HERE, answer)
        assert guard.region_allowed(HERE) == 5

        silent = AssumeRoleError("", code="LoadTimeout")
        for _ in range(5):
            with pytest.raises(AssumeRoleError):
                await self.send(guard, THERE, raising(silent))
        with pytest.raises(EndpointDown, match="sts AssumeRole in us-east-1 did not answer 5 times in a row"):
            await self.send(guard, THERE, answer)
        assert guard.region_allowed(THERE) == 5
        assert guard.endpoints_down().keys() == {"sts AssumeRole in us-east-1"}

    async def test_throttling_is_counted_and_raised(self, guard: RequestGuard) -> None:
        """Whether it is sent again is for the load to decide."""
        throttled = AssumeRoleThrottled("", code="Throttling")
        throttled.__cause__ = client_error("Throttling")
        with pytest.raises(AssumeRoleThrottled):
            await self.send(guard, HERE, raising(throttled))

        (queue,) = [each for each in guard.rate_limiters.statistics() if each.rate_limit.service == "sts"]
        assert (queue.admitted, queue.throttled, guard.throttled) == (1, 1, 1)

    async def test_credentials_that_end_in_the_queue_are_reported_unsent(self, guard: RequestGuard) -> None:
        """The turn is given back, and nothing was sent."""
        with pytest.raises(CredentialsDue):
            await guard.assume(
                anyio.sleep,
                account_id="123456789012",
                region_name=HERE,
                source="s",
                identity=Signer("none"),  # type: ignore[arg-type]
            )

        (queue,) = guard.rate_limiters.statistics()
        assert (queue.admitted, queue.running) == (0, 0)
