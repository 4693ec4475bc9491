"""How fast a run enters regions, and what a pool's requests tell of them, on a fake clock."""

from __future__ import annotations

import pickle
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from asyncauth import AssumeRoleError, AssumeRoleThrottled, EndpointDown, RateLimited, SourceError
from asyncauth._aws.error_codes import reachability
from asyncauth._fanout.attempt import Attempt, current_attempt
from asyncauth._resilience.circuit_breaker import CircuitBreakerPolicy, CircuitBreakers
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.rate_limits import RateLimit
from asyncauth._resilience.request_guard import EndpointScope, RequestGuard
from asyncauth._runs.region_admission import RegionAdmission
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

HERE, THERE = "eu-west-1", "us-east-1"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> RequestGuard:
    limit = RateLimit("ec2", per=(), max_at_once=1, action="StopInstances")
    return RequestGuard(RateLimiters([limit], clock=clock, random=Random(1)), CircuitBreakers(clock=clock), clock)


def client_error(code: str, status: int = 400) -> ClientError:
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code, "Message": code}, "ResponseMetadata": metadata}, "DescribeInstances")


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def invoke() -> None:
        raise error

    return invoke


class Caller:
    """Who signs; somebody looks for the credentials when a call comes, when it has its place, and when it is given up.

    Those of "line" run out after the first look, those of "call" after the second.
    """

    def __init__(self, credentials: str | None) -> None:
        self.credentials = credentials
        self._looks = {"line": 1, "call": 2}.get(credentials or "")

    def peek(self) -> str | None:
        if self._looks is not None:
            self._looks -= 1
            if self._looks < 0:
                return None
        return self.credentials

    async def get_frozen_credentials(self) -> str:
        self.credentials, self._looks = "renewed", None
        return self.credentials


def scope(service_name: str = "ec2", region_name: str = HERE, **own: Any) -> EndpointScope:
    """Return the way to a service, with nothing of its own unless said."""
    return EndpointScope.of(service_name, region_name, **({"own_endpoint": None, "own_settings": None} | own))


async def ask(
    guard: RequestGuard,
    invoke: Callable[[], Awaitable[Any]],
    operation: str = "DescribeInstances",
    credentials: str | None = "at hand",
    times_out_at: float | None = None,
    **own: Any,
) -> None:
    """Make a call of EC2 through the gate; whatever it raises is of no interest."""
    attempt = Attempt()
    attempt.times_out_at = times_out_at
    current_attempt.set(attempt)
    call = guard.hook("ec2", scope(**own), "123456789012", "source", Caller(credentials))
    with suppress(Exception):
        await call("ec2", operation, invoke)


async def answer() -> None:
    """Be a call that is answered."""


class TestGate:
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
    async def test_what_a_calls_error_tells_of_its_region(
        self, guard: RequestGuard, error: Exception, allowed_in_flight: int | None
    ) -> None:
        """A broken connection is a failure, any answer is an answer; what is not the region's tells nothing of it."""
        await ask(guard, raising(error))

        assert guard.breakers.allowed_in_flight(HERE) == allowed_in_flight
        assert guard.under_way(HERE) == 0

    @pytest.mark.parametrize(
        ("seconds", "credentials", "times_out_after", "allowed_in_flight"),
        [
            (0.9, "at hand", 0.9, 5),
            (1.0, "at hand", 1.0, 4),
            (1.0, "call", 1.0, 5),
            (1.0, "at hand", 9.0, 5),
            (1.0, "at hand", None, 5),
        ],
    )
    async def test_a_call_that_is_given_up(
        self,
        guard: RequestGuard,
        clock: FakeClock,
        seconds: float,
        credentials: str,
        times_out_after: float | None,
        allowed_in_flight: int,
    ) -> None:
        """After a second of silence it tells that nobody answers, when its target's time is up.

        Not when it was waiting for its credentials; nor before that, when whoever asked had changed his mind.
        """
        times_out_at = None if times_out_after is None else clock.monotonic() + times_out_after
        async with anyio.create_task_group() as group:
            group.start_soon(ask, guard, anyio.sleep_forever, "DescribeInstances", credentials, times_out_at)
            await idle()
            assert guard.under_way(HERE) == 1
            clock.advance(seconds)
            group.cancel_scope.cancel()

        assert guard.breakers.allowed_in_flight(HERE) == allowed_in_flight
        assert guard.under_way(HERE) == 0

    async def test_silence_where_others_are_answered_shuts_nothing(self, guard: RequestGuard, clock: FakeClock) -> None:
        """Long polls that were given up narrow the door to one at a time, and the next answer opens it again."""
        await ask(guard, answer)
        times_out_at = clock.monotonic() + 2.0
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask, guard, anyio.sleep_forever, "ReceiveMessage", "at hand", times_out_at)
            await idle()
            clock.advance(2.0)
            group.cancel_scope.cancel()

        assert guard.breakers.allowed_in_flight(HERE) == 1
        assert guard.breakers.refusal(HERE) is None
        await ask(guard, answer)
        assert guard.breakers.allowed_in_flight(HERE) is None

    async def test_who_goes_on_in_silence_finds_out(self, guard: RequestGuard, clock: FakeClock) -> None:
        """An endpoint that died after it had answered costs those who were there, and one more."""
        await ask(guard, answer)
        for times in (20, 1):
            times_out_at = clock.monotonic() + 2.0
            async with anyio.create_task_group() as group:
                for _ in range(times):
                    group.start_soon(ask, guard, anyio.sleep_forever, "DescribeInstances", "at hand", times_out_at)
                await idle()
                clock.advance(2.0)
                group.cancel_scope.cancel()

        assert guard.breakers.refusal(HERE) is not None
        assert guard.endpoints_down().keys() == {"ec2 in eu-west-1", "region eu-west-1"}

    async def test_an_impatient_client_says_nothing(self, guard: RequestGuard) -> None:
        """A read timeout of less than a second is no silence."""
        for _ in range(6):
            await ask(guard, raising(ReadTimeoutError(endpoint_url="https://ec2")))

        assert guard.breakers.allowed_in_flight(HERE) == 5

    async def test_one_service_that_is_down_is_not_its_region(self, guard: RequestGuard) -> None:
        """While another one answers there; a service that a region does not have has no address at all."""
        await ask(guard, answer)
        nobody = raising(ConnectTimeoutError(endpoint_url="https://sqs"))
        call = guard.hook("sqs", scope("sqs"), "123456789012", "source", Caller("at hand"))
        for _ in range(5):
            with suppress(ConnectTimeoutError):
                await call("sqs", "ListQueues", nobody)
        assert guard.endpoints_down().keys() == {"sqs in eu-west-1"}
        assert guard.breakers.allowed_in_flight(HERE) is None

        for _ in range(6):
            await ask(guard, raising(ConnectTimeoutError(endpoint_url="https://ec2")))
        assert guard.endpoints_down().keys() == {"sqs in eu-west-1", "ec2 in eu-west-1", "region eu-west-1"}

    async def test_an_endpoint_of_a_clients_own_is_nobody_elses(self, guard: RequestGuard) -> None:
        """It has a circuit of its own, and says nothing of the region, up or down."""
        dead = "http://127.0.0.1:9"
        for _ in range(5):
            await ask(guard, raising(ConnectTimeoutError(endpoint_url=dead)), own_endpoint=dead)
        assert guard.endpoints_down().keys() == {f"ec2 in eu-west-1 at {dead}"}
        assert guard.breakers.allowed_in_flight(HERE) == 5

        await ask(guard, answer, own_endpoint="http://127.0.0.1:8")
        assert guard.breakers.allowed_in_flight(HERE) == 5

    async def test_settings_of_a_clients_own_speak_for_a_region_and_not_against_it(self, guard: RequestGuard) -> None:
        """A proxy that does not work is its client's own affair; an answer is an answer."""
        for _ in range(5):
            await ask(guard, raising(ConnectTimeoutError(endpoint_url="https://ec2")), own_settings="a proxy")
        assert guard.endpoints_down().keys() == {"ec2 in eu-west-1"}
        assert guard.breakers.allowed_in_flight(HERE) == 5
        assert guard.breakers.allowed_in_flight(("ec2", HERE)) == 5

        await ask(guard, answer, own_settings="another proxy")
        assert guard.breakers.allowed_in_flight(HERE) is None

    async def test_a_call_within_a_call_goes_on_its_ticket(self, guard: RequestGuard) -> None:
        """A bucket's region, or a session of S3 Express, is asked for within a call that has its place already."""
        guard = RequestGuard(
            RateLimiters([RateLimit("ec2", per=(), max_at_once=1)]),
            CircuitBreakers(CircuitBreakerPolicy(half_open_max=1)),
            guard._clock,
        )
        done = []

        async def outer() -> None:
            await ask(guard, inner)
            done.append("outer")

        async def inner() -> None:
            done.append("inner")

        with anyio.fail_after(5):
            await ask(guard, outer)
        assert done == ["inner", "outer"]

    async def test_credentials_are_waited_for_before_a_place(self, guard: RequestGuard) -> None:
        """What brings them may need the same place: an AssumeRole under a limit on all calls of STS."""
        order = []
        caller = Caller(None)

        async def invoke() -> None:
            order.append("sent")

        async def load() -> str:
            async with guard.rate_limiters.admit(service="ec2", action="StopInstances"):
                order.append("loaded")
            caller.credentials = "at hand"
            return caller.credentials

        caller.get_frozen_credentials = load  # type: ignore[method-assign]
        call = guard.hook("ec2", scope(), "123456789012", "source", caller)
        with anyio.fail_after(5):
            await call("ec2", "StopInstances", invoke)

        assert order == ["loaded", "sent"]

    async def test_credentials_that_came_due_in_line_are_waited_for_outside(self, guard: RequestGuard) -> None:
        """Whoever reaches his place with no good credentials gives it up, and comes again with others."""
        order = []

        class Due(Caller):
            async def get_frozen_credentials(self) -> str:
                async with guard.rate_limiters.admit(service="ec2", action="StopInstances"):
                    order.append("loaded")
                return await super().get_frozen_credentials()

        async def invoke() -> None:
            order.append("sent")

        call = guard.hook("ec2", scope(), "123456789012", "source", Due("line"))
        with anyio.fail_after(5):
            await call("ec2", "StopInstances", invoke)

        assert order == ["loaded", "sent"]

    async def test_assume_role_tells_of_sts_and_not_of_the_region(self, guard: RequestGuard) -> None:
        """Where tokens come from says nothing of the region as a target, in either direction."""
        await guard.assume(answer, account_id="123456789012", region_name=HERE, source="source")
        assert guard.breakers.allowed_in_flight(("sts AssumeRole", HERE)) is None
        assert guard.breakers.allowed_in_flight(HERE) == 5

        nobody = AssumeRoleError("", code="LoadTimeout")
        for _ in range(5):
            with pytest.raises(AssumeRoleError):
                await guard.assume(raising(nobody), account_id="123456789012", region_name=THERE, source="source")
        with pytest.raises(EndpointDown, match="sts AssumeRole in us-east-1 did not answer 5 times in a row"):
            await guard.assume(answer, account_id="123456789012", region_name=THERE, source="source")
        assert guard.breakers.allowed_in_flight(THERE) == 5
        assert guard.endpoints_down().keys() == {"sts AssumeRole in us-east-1"}

    async def test_a_throttled_assume_role_is_sent_again_and_counted(
        self, guard: RequestGuard, clock: FakeClock
    ) -> None:
        """Through the budget that all accounts share; after six times it says so."""
        cause = client_error("Throttling")
        throttled = AssumeRoleThrottled("", code="Throttling")
        throttled.__cause__ = cause
        raised = []

        async def assume() -> None:
            try:
                await guard.assume(raising(throttled), account_id="123456789012", region_name=HERE, source="source")
            except RateLimited as error:
                raised.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(assume)
            for _ in range(60):
                await idle()
                clock.advance(1.0)

        assert [error.attempts for error in raised] == [6]
        assert guard.throttled == 6

    async def test_a_users_limit_holds_calls_back_before_they_are_sent(self, guard: RequestGuard) -> None:
        """A call that waits for its turn is not under way, so its region is not blamed for the wait."""
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, guard, anyio.sleep_forever, "StopInstances")
            await idle()

            assert guard.under_way(HERE) == 1
            group.cancel_scope.cancel()

    def test_who_says_that_nobody_answers(self) -> None:
        """The transport's errors do, also as the cause of one of ours; a source's do not, nor does anything else."""
        wrapped = AssumeRoleError("no answer")
        wrapped.__cause__ = ConnectTimeoutError(endpoint_url="https://sts")
        assert reachability(wrapped) == "unanswered"
        assert reachability(AssumeRoleError("", code="LoadTimeout")) == "unanswered"
        wrapped.__cause__ = client_error("AccessDenied")
        assert reachability(wrapped) == "answered"
        assert reachability(SourceError("")) == "unknown"
        assert reachability(KeyError()) == "unknown"


class Run:
    """Targets in one region, as many as the doors let in; each in a phase, and held up by nothing or by a request."""

    def __init__(self, guard: RequestGuard, clock: FakeClock) -> None:
        self.guard = guard
        self.doors = RegionAdmission(guard, clock)
        self.go = anyio.Event()
        self.running = 0

    async def enter(self, phase: str, *, asks: bool = False) -> None:
        attempt = Attempt()
        attempt.phase = phase
        with self.doors.track(attempt, HERE):
            if asks:
                await ask(self.guard, self.go.wait)
            else:
                await self.go.wait()

    def start(self, group: anyio.abc.TaskGroup, phase: str = "job", *, asks: bool = False, most: int = 40) -> int:
        """Let in as many as may enter now."""
        while self.running < min(most, self.doors.allowed_in_flight(HERE) or most):
            self.running += 1
            group.start_soon(lambda: self.enter(phase, asks=asks))
        return self.running


class TestDoors:
    async def test_the_first_answer_opens_a_region_wide(self, guard: RequestGuard, clock: FakeClock) -> None:
        """Five until then, any number from then on."""
        doors = RegionAdmission(guard, clock)
        assert doors.allowed_in_flight(HERE) == 5
        await ask(guard, answer)
        assert doors.allowed_in_flight(HERE) is None
        assert doors.allowed_in_flight(THERE) == 5

    @pytest.mark.parametrize("phase", ["job", "credentials"])
    async def test_targets_that_ask_nobody_there_make_room_for_others(
        self, guard: RequestGuard, clock: FakeClock, phase: str
    ) -> None:
        """Busy with something else, or waiting for their credentials: five more each second."""
        run = Run(guard, clock)
        entered = []
        async with anyio.create_task_group() as group:
            group.start_soon(run.doors.keep_watching)
            for _ in range(4):
                entered.append(run.start(group, phase))
                await idle()
                clock.advance(1.0)
                await idle()
            group.cancel_scope.cancel()

        assert entered == [5, 10, 15, 20]

    async def test_requests_that_nobody_answers_make_no_room(self, guard: RequestGuard, clock: FakeClock) -> None:
        """A black hole gets five targets, however long they wait; the answer lets in all the others."""
        run = Run(guard, clock)
        told: list[Any] = []
        run.doors.subscribe(told.append)
        async with anyio.create_task_group() as group:
            group.start_soon(run.doors.keep_watching)
            run.start(group, asks=True)
            for _ in range(20):
                await idle()
                clock.advance(1.0)
            assert run.start(group, asks=True) == 5
            assert told == []
            run.go.set()
            await idle()
            assert run.doors.allowed_in_flight(HERE) is None
            assert HERE in told
            group.cancel_scope.cancel()

    @pytest.mark.parametrize("error", [None, ValueError(), ConnectTimeoutError(endpoint_url="x"), "cancelled"])
    async def test_a_target_that_came_through_makes_room_for_one(
        self, guard: RequestGuard, clock: FakeClock, error: Exception | str | None
    ) -> None:
        """Whatever it ended in, unless it was given up, or met a connection that failed."""
        doors = RegionAdmission(guard, clock)
        with anyio.CancelScope() as scope:
            try:
                with doors.track(Attempt(), HERE):
                    if error == "cancelled":
                        scope.cancel()
                        await anyio.sleep_forever()
                    elif isinstance(error, Exception):
                        raise error
            except (ValueError, ConnectTimeoutError):
                pass

        is_through = error is None or isinstance(error, ValueError)
        assert doors.allowed_in_flight(HERE) == (6 if is_through else 5)

    async def test_a_job_that_catches_botocores_error_catches_that_nothing_was_sent(self, guard: RequestGuard) -> None:
        """From the sixth call on it is both: ours, with its fields, and botocore's; it can be pickled, and tells
        nothing new of the endpoint."""
        for _ in range(5):
            await ask(guard, raising(ConnectTimeoutError(endpoint_url="x")))

        with pytest.raises(EndpointConnectionError, match=r"^ec2 in eu-west-1 did not answer 5 times") as raised:
            await guard.hook("ec2", scope(), "123456789012", "source", Caller("at hand"))(
                "ec2", "DescribeImages", answer
            )

        error = raised.value
        assert isinstance(error, EndpointDown)
        assert (error.code, error.region_name, error.attempts) == ("ConnectTimeoutError", HERE, 0)
        twin = pickle.loads(pickle.dumps(error))
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert reachability(error) == "unknown"
        assert error.kwargs == {"endpoint_url": "ec2 in eu-west-1", "error": "ConnectTimeoutError"}
        with pytest.raises(EndpointConnectionError) as passed_on:
            await guard.hook("sqs", scope("sqs"), "123456789012", "source", Caller("at hand"))(
                "sqs", "X", raising(error)
            )
        assert passed_on.value is error

    async def test_after_a_failure_no_room_is_made(self, guard: RequestGuard, clock: FakeClock) -> None:
        """Targets that ask nobody do not talk a region well."""
        doors = RegionAdmission(guard, clock)
        await ask(guard, raising(ConnectTimeoutError(endpoint_url="x")))
        for _ in range(3):
            with doors.track(Attempt(), HERE):
                pass

        assert doors.allowed_in_flight(HERE) == 4

    async def test_a_region_where_nobody_answers_is_refused_and_all_may_begin_to_hear_it(
        self, guard: RequestGuard, clock: FakeClock
    ) -> None:
        """Five failures shut it, for 15 seconds; then one may see whether it is back."""
        doors = RegionAdmission(guard, clock)
        for _ in range(5):
            await ask(guard, raising(ConnectTimeoutError(endpoint_url="x")))

        refusal = doors.refusal(HERE)
        assert isinstance(refusal, EndpointDown)
        assert str(refusal).startswith("region eu-west-1 did not answer 5 times in a row (ConnectTimeoutError)")
        assert doors.allowed_in_flight(HERE) is None
        clock.advance(15)
        assert doors.refusal(HERE) is None
        assert doors.allowed_in_flight(HERE) == 1
        await ask(guard, answer)
        assert doors.allowed_in_flight(HERE) is None
