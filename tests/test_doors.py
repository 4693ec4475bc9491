"""How fast a run enters regions, and what a pool's requests tell of them, on a fake clock."""

from __future__ import annotations

import pickle
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from asyncauth import AssumeRoleError, AssumeRoleThrottled, BudgetExhausted, EndpointDown, SourceError
from asyncauth._answers import Attempt, current_attempt
from asyncauth._budgets import Budgets, Limit
from asyncauth._circuit import CircuitPolicy, Circuits
from asyncauth._doors import Doors
from asyncauth._gate import Gate, Way, is_down
from asyncauth.testing import FakeClock
from tests.fanout_support import idle

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
def gate(clock: FakeClock) -> Gate:
    limit = Limit("ec2", per=(), max_at_once=1, action="StopInstances")
    return Gate(Budgets([limit], clock=clock, random=Random(1)), Circuits(clock=clock), clock)


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


def way(service_name: str = "ec2", region_name: str = HERE, **own: Any) -> Way:
    """Return the way to a service, with nothing of its own unless said."""
    return Way.of(service_name, region_name, **({"own_endpoint": None, "own_settings": None} | own))


async def ask(
    gate: Gate,
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
    call = gate.hook("ec2", way(**own), "123456789012", "source", Caller(credentials))
    with suppress(Exception):
        await call("ec2", operation, invoke)


async def answer() -> None:
    """Be a call that is answered."""


class TestGate:
    @pytest.mark.parametrize(
        ("error", "places"),
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
        self, gate: Gate, error: Exception, places: int | None
    ) -> None:
        """A broken connection is a failure, any answer is an answer; what is not the region's tells nothing of it."""
        await ask(gate, raising(error))

        assert gate.circuits.places(HERE) == places
        assert gate.under_way(HERE) == 0

    @pytest.mark.parametrize(
        ("seconds", "credentials", "times_out_after", "places"),
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
        gate: Gate,
        clock: FakeClock,
        seconds: float,
        credentials: str,
        times_out_after: float | None,
        places: int,
    ) -> None:
        """After a second of silence it tells that nobody answers, when its target's time is up.

        Not when it was waiting for its credentials; nor before that, when whoever asked had changed his mind.
        """
        times_out_at = None if times_out_after is None else clock.monotonic() + times_out_after
        async with anyio.create_task_group() as group:
            group.start_soon(ask, gate, anyio.sleep_forever, "DescribeInstances", credentials, times_out_at)
            await idle()
            assert gate.under_way(HERE) == 1
            clock.advance(seconds)
            group.cancel_scope.cancel()

        assert gate.circuits.places(HERE) == places
        assert gate.under_way(HERE) == 0

    async def test_silence_where_others_are_answered_shuts_nothing(self, gate: Gate, clock: FakeClock) -> None:
        """Long polls that were given up narrow the door to one at a time, and the next answer opens it again."""
        await ask(gate, answer)
        times_out_at = clock.monotonic() + 2.0
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask, gate, anyio.sleep_forever, "ReceiveMessage", "at hand", times_out_at)
            await idle()
            clock.advance(2.0)
            group.cancel_scope.cancel()

        assert gate.circuits.places(HERE) == 1
        assert gate.circuits.refusal(HERE) is None
        await ask(gate, answer)
        assert gate.circuits.places(HERE) is None

    async def test_who_goes_on_in_silence_finds_out(self, gate: Gate, clock: FakeClock) -> None:
        """An endpoint that died after it had answered costs those who were there, and one more."""
        await ask(gate, answer)
        for times in (20, 1):
            times_out_at = clock.monotonic() + 2.0
            async with anyio.create_task_group() as group:
                for _ in range(times):
                    group.start_soon(ask, gate, anyio.sleep_forever, "DescribeInstances", "at hand", times_out_at)
                await idle()
                clock.advance(2.0)
                group.cancel_scope.cancel()

        assert gate.circuits.refusal(HERE) is not None
        assert gate.endpoints_down().keys() == {"ec2 in eu-west-1", "region eu-west-1"}

    async def test_an_impatient_client_says_nothing(self, gate: Gate) -> None:
        """A read timeout of less than a second is no silence."""
        for _ in range(6):
            await ask(gate, raising(ReadTimeoutError(endpoint_url="https://ec2")))

        assert gate.circuits.places(HERE) == 5

    async def test_one_service_that_is_down_is_not_its_region(self, gate: Gate) -> None:
        """While another one answers there; a service that a region does not have has no address at all."""
        await ask(gate, answer)
        nobody = raising(ConnectTimeoutError(endpoint_url="https://sqs"))
        call = gate.hook("sqs", way("sqs"), "123456789012", "source", Caller("at hand"))
        for _ in range(5):
            with suppress(ConnectTimeoutError):
                await call("sqs", "ListQueues", nobody)
        assert gate.endpoints_down().keys() == {"sqs in eu-west-1"}
        assert gate.circuits.places(HERE) is None

        for _ in range(6):
            await ask(gate, raising(ConnectTimeoutError(endpoint_url="https://ec2")))
        assert gate.endpoints_down().keys() == {"sqs in eu-west-1", "ec2 in eu-west-1", "region eu-west-1"}

    async def test_an_endpoint_of_a_clients_own_is_nobody_elses(self, gate: Gate) -> None:
        """It has a circuit of its own, and says nothing of the region, up or down."""
        dead = "http://127.0.0.1:9"
        for _ in range(5):
            await ask(gate, raising(ConnectTimeoutError(endpoint_url=dead)), own_endpoint=dead)
        assert gate.endpoints_down().keys() == {f"ec2 in eu-west-1 at {dead}"}
        assert gate.circuits.places(HERE) == 5

        await ask(gate, answer, own_endpoint="http://127.0.0.1:8")
        assert gate.circuits.places(HERE) == 5

    async def test_settings_of_a_clients_own_speak_for_a_region_and_not_against_it(self, gate: Gate) -> None:
        """A proxy that does not work is its client's own affair; an answer is an answer."""
        for _ in range(5):
            await ask(gate, raising(ConnectTimeoutError(endpoint_url="https://ec2")), own_settings="a proxy")
        assert gate.endpoints_down().keys() == {"ec2 in eu-west-1"}
        assert gate.circuits.places(HERE) == 5
        assert gate.circuits.places(("ec2", HERE)) == 5

        await ask(gate, answer, own_settings="another proxy")
        assert gate.circuits.places(HERE) is None

    async def test_a_call_within_a_call_goes_on_its_ticket(self, gate: Gate) -> None:
        """A bucket's region, or a session of S3 Express, is asked for within a call that has its place already."""
        gate = Gate(Budgets([Limit("ec2", per=(), max_at_once=1)]), Circuits(CircuitPolicy(gently=1)), gate._clock)
        done = []

        async def outer() -> None:
            await ask(gate, inner)
            done.append("outer")

        async def inner() -> None:
            done.append("inner")

        with anyio.fail_after(5):
            await ask(gate, outer)
        assert done == ["inner", "outer"]

    async def test_credentials_are_waited_for_before_a_place(self, gate: Gate) -> None:
        """What brings them may need the same place: an AssumeRole under a limit on all calls of STS."""
        order = []
        caller = Caller(None)

        async def invoke() -> None:
            order.append("sent")

        async def load() -> str:
            async with gate.budgets.admit(service="ec2", action="StopInstances"):
                order.append("loaded")
            caller.credentials = "at hand"
            return caller.credentials

        caller.get_frozen_credentials = load  # type: ignore[method-assign]
        call = gate.hook("ec2", way(), "123456789012", "source", caller)
        with anyio.fail_after(5):
            await call("ec2", "StopInstances", invoke)

        assert order == ["loaded", "sent"]

    async def test_credentials_that_came_due_in_line_are_waited_for_outside(self, gate: Gate) -> None:
        """Whoever reaches his place with no good credentials gives it up, and comes again with others."""
        order = []

        class Due(Caller):
            async def get_frozen_credentials(self) -> str:
                async with gate.budgets.admit(service="ec2", action="StopInstances"):
                    order.append("loaded")
                return await super().get_frozen_credentials()

        async def invoke() -> None:
            order.append("sent")

        call = gate.hook("ec2", way(), "123456789012", "source", Due("line"))
        with anyio.fail_after(5):
            await call("ec2", "StopInstances", invoke)

        assert order == ["loaded", "sent"]

    async def test_assume_role_tells_of_sts_and_not_of_the_region(self, gate: Gate) -> None:
        """Where tokens come from says nothing of the region as a target, in either direction."""
        await gate.assume(answer, account_id="123456789012", region_name=HERE, source="source")
        assert gate.circuits.places(("sts AssumeRole", HERE)) is None
        assert gate.circuits.places(HERE) == 5

        nobody = AssumeRoleError("", code="LoadTimeout")
        for _ in range(5):
            with pytest.raises(AssumeRoleError):
                await gate.assume(raising(nobody), account_id="123456789012", region_name=THERE, source="source")
        with pytest.raises(EndpointDown, match="sts AssumeRole in us-east-1 did not answer 5 times in a row"):
            await gate.assume(answer, account_id="123456789012", region_name=THERE, source="source")
        assert gate.circuits.places(THERE) == 5
        assert gate.endpoints_down().keys() == {"sts AssumeRole in us-east-1"}

    async def test_a_throttled_assume_role_is_sent_again_and_counted(self, gate: Gate, clock: FakeClock) -> None:
        """Through the budget that all accounts share; after six times it says so."""
        cause = client_error("Throttling")
        throttled = AssumeRoleThrottled("", code="Throttling")
        throttled.__cause__ = cause
        raised = []

        async def assume() -> None:
            try:
                await gate.assume(raising(throttled), account_id="123456789012", region_name=HERE, source="source")
            except BudgetExhausted as error:
                raised.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(assume)
            for _ in range(60):
                await idle()
                clock.advance(1.0)

        assert [error.attempts for error in raised] == [6]
        assert gate.throttled == 6

    async def test_a_users_limit_holds_calls_back_before_they_are_sent(self, gate: Gate) -> None:
        """A call that waits for its turn is not under way, so its region is not blamed for the wait."""
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, gate, anyio.sleep_forever, "StopInstances")
            await idle()

            assert gate.under_way(HERE) == 1
            group.cancel_scope.cancel()

    def test_who_says_that_nobody_answers(self) -> None:
        """The transport's errors do, also as the cause of one of ours; a source's do not, nor does anything else."""
        wrapped = AssumeRoleError("no answer")
        wrapped.__cause__ = ConnectTimeoutError(endpoint_url="https://sts")
        assert is_down(wrapped) is True
        assert is_down(AssumeRoleError("", code="LoadTimeout")) is True
        wrapped.__cause__ = client_error("AccessDenied")
        assert is_down(wrapped) is False
        assert is_down(SourceError("")) is None
        assert is_down(KeyError()) is None


class Run:
    """Targets in one region, as many as the doors let in; each in a phase, and held up by nothing or by a request."""

    def __init__(self, gate: Gate, clock: FakeClock) -> None:
        self.gate = gate
        self.doors = Doors(gate, clock)
        self.go = anyio.Event()
        self.running = 0

    async def enter(self, phase: str, *, asks: bool = False) -> None:
        attempt = Attempt()
        attempt.phase = phase
        with self.doors.inside(attempt, HERE):
            if asks:
                await ask(self.gate, self.go.wait)
            else:
                await self.go.wait()

    def start(self, group: anyio.abc.TaskGroup, phase: str = "job", *, asks: bool = False, most: int = 40) -> int:
        """Let in as many as may enter now."""
        while self.running < min(most, self.doors.places(HERE) or most):
            self.running += 1
            group.start_soon(lambda: self.enter(phase, asks=asks))
        return self.running


class TestDoors:
    async def test_the_first_answer_opens_a_region_wide(self, gate: Gate, clock: FakeClock) -> None:
        """Five until then, any number from then on."""
        doors = Doors(gate, clock)
        assert doors.places(HERE) == 5
        await ask(gate, answer)
        assert doors.places(HERE) is None
        assert doors.places(THERE) == 5

    @pytest.mark.parametrize("phase", ["job", "credentials"])
    async def test_targets_that_ask_nobody_there_make_room_for_others(
        self, gate: Gate, clock: FakeClock, phase: str
    ) -> None:
        """Busy with something else, or waiting for their credentials: five more each second."""
        run = Run(gate, clock)
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

    async def test_requests_that_nobody_answers_make_no_room(self, gate: Gate, clock: FakeClock) -> None:
        """A black hole gets five targets, however long they wait; the answer lets in all the others."""
        run = Run(gate, clock)
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
            assert run.doors.places(HERE) is None
            assert HERE in told
            group.cancel_scope.cancel()

    @pytest.mark.parametrize("error", [None, ValueError(), ConnectTimeoutError(endpoint_url="x"), "cancelled"])
    async def test_a_target_that_came_through_makes_room_for_one(
        self, gate: Gate, clock: FakeClock, error: Exception | str | None
    ) -> None:
        """Whatever it ended in, unless it was given up, or met a connection that failed."""
        doors = Doors(gate, clock)
        with anyio.CancelScope() as scope:
            try:
                with doors.inside(Attempt(), HERE):
                    if error == "cancelled":
                        scope.cancel()
                        await anyio.sleep_forever()
                    elif isinstance(error, Exception):
                        raise error
            except (ValueError, ConnectTimeoutError):
                pass

        is_through = error is None or isinstance(error, ValueError)
        assert doors.places(HERE) == (6 if is_through else 5)

    async def test_a_job_that_catches_botocores_error_catches_that_nothing_was_sent(self, gate: Gate) -> None:
        """From the sixth call on it is both: ours, with its fields, and botocore's; it can be pickled, and tells
        nothing new of the endpoint."""
        for _ in range(5):
            await ask(gate, raising(ConnectTimeoutError(endpoint_url="x")))

        with pytest.raises(EndpointConnectionError, match=r"^ec2 in eu-west-1 did not answer 5 times") as raised:
            await gate.hook("ec2", way(), "123456789012", "source", Caller("at hand"))("ec2", "DescribeImages", answer)

        error = raised.value
        assert isinstance(error, EndpointDown)
        assert (error.code, error.region_name, error.attempts) == ("ConnectTimeoutError", HERE, 0)
        twin = pickle.loads(pickle.dumps(error))
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert is_down(error) is None
        assert error.kwargs == {"endpoint_url": "ec2 in eu-west-1", "error": "ConnectTimeoutError"}
        with pytest.raises(EndpointConnectionError) as passed_on:
            await gate.hook("sqs", way("sqs"), "123456789012", "source", Caller("at hand"))("sqs", "X", raising(error))
        assert passed_on.value is error

    async def test_after_a_failure_no_room_is_made(self, gate: Gate, clock: FakeClock) -> None:
        """Targets that ask nobody do not talk a region well."""
        doors = Doors(gate, clock)
        await ask(gate, raising(ConnectTimeoutError(endpoint_url="x")))
        for _ in range(3):
            with doors.inside(Attempt(), HERE):
                pass

        assert doors.places(HERE) == 4

    async def test_a_region_where_nobody_answers_is_refused_and_all_may_begin_to_hear_it(
        self, gate: Gate, clock: FakeClock
    ) -> None:
        """Five failures shut it, for 15 seconds; then one may see whether it is back."""
        doors = Doors(gate, clock)
        for _ in range(5):
            await ask(gate, raising(ConnectTimeoutError(endpoint_url="x")))

        refusal = doors.refusal(HERE)
        assert isinstance(refusal, EndpointDown)
        assert str(refusal).startswith("region eu-west-1 did not answer 5 times in a row (ConnectTimeoutError)")
        assert doors.places(HERE) is None
        clock.advance(15)
        assert doors.refusal(HERE) is None
        assert doors.places(HERE) == 1
        await ask(gate, answer)
        assert doors.places(HERE) is None
