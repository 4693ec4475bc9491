"""Role credentials against a simulated STS on a fake clock: chains, throttling, outages, hangs, refused source keys."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from ssl import SSLCertVerificationError
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ProxyConnectionError, SSLError

from asyncauth import (
    Account,
    AssumeRoleDenied,
    AssumeRoleError,
    AssumeRoleThrottled,
    ConfigurationError,
    RefreshPolicy,
    Role,
    SourceError,
)
from asyncauth._credentials.role_credentials import RoleCredentials
from asyncauth._credentials.sources.source import SourceFacts
from asyncauth._credentials.token_slots import TokenSlots
from asyncauth._fanout.attempt import Attempt, current_attempt
from asyncauth._models import Credentials, permit_holder
from asyncauth._resilience.circuit_breaker import CircuitBreakers
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.request_guard import RequestGuard
from asyncauth.testing import FakeClock
from tests.support.clock import running_clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

pytestmark = pytest.mark.anyio

LATENCY_SECONDS = 0.05
HUBS = tuple(f"{number}11111111111" for number in range(1, 4))


def leaves(count: int) -> list[str]:
    return [f"4{number:011d}" for number in range(count)]


def refused(code: str, status: int = 400) -> ClientError:
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code, "Message": code}, "ResponseMetadata": metadata}, "AssumeRole")


class Sts:
    """An STS with a rate (its burst is a second's worth), outages, accounts that hang, roles that do not exist.

    Attributes:
        sent: requests by account, answered or not; `granted` those that brought a token.
        at: the time of each request.
    """

    def __init__(self, clock: FakeClock, *, rate: float = 1e6, lifetime: float = 3600.0) -> None:
        self.clock = clock
        self.rate = rate
        self.lifetime = lifetime
        self.sent: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()
        self.answered = 0
        self.at: list[float] = []
        self.throttles_first = 0
        self.missing: set[str] = set()
        self.hangs: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.down: list[tuple[float, float]] = []
        self.refused_keys: set[str] = set()
        self.refusal = "ExpiredToken"
        self.failure: Callable[[], Exception] = lambda: EndpointConnectionError(endpoint_url="https://sts")
        self.began = clock.monotonic()
        self._level, self._level_at = rate, self.began

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.began

    async def assume_role(self, signer: Credentials, account: str) -> dict[str, Any]:
        self.sent[account] += 1
        self.at.append(self.now)
        if any(since <= self.now < until for since, until in self.down) or self.lost[account]:
            self.lost[account] -= self.lost[account] > 0
            raise self.failure()
        if self.hangs[account]:
            self.hangs[account] -= 1
            await anyio.sleep_forever()
        await self.clock.sleep(LATENCY_SECONDS)
        self.answered += 1
        self._refuse(signer, account)
        self.granted[account] += 1
        return {
            "Credentials": {
                "AccessKeyId": f"ASIA{account}{self.granted[account]:04d}",
                "SecretAccessKey": "s",
                "SessionToken": "t",
                "Expiration": datetime.fromtimestamp(self.clock.time(), UTC) + timedelta(seconds=self.lifetime),
            },
            "AssumedRoleUser": {"Arn": f"arn:aws:sts::{account}:assumed-role/r/s"},
        }

    def _refuse(self, signer: Credentials, account: str) -> None:
        now = self.clock.monotonic()
        self._level = min(self.rate, self._level + (now - self._level_at) * self.rate)
        self._level_at = now
        if self.throttles_first or self._level < 1:
            self.throttles_first -= self.throttles_first > 0
            raise refused("Throttling")
        self._level -= 1
        if signer.access_key_id in self.refused_keys:
            raise refused(self.refusal, 403)
        if account in self.missing:
            raise refused("AccessDenied", 403)


class Client:
    """An STS client as far as `assume_role` uses it: signs, and sends to the simulated STS."""

    def __init__(self, sts: Sts, identity: Any) -> None:
        self._sts = sts
        self._identity = identity
        self.meta = SimpleNamespace(region_name="us-east-1")

    async def assume_role(self, **parameters: Any) -> dict[str, Any]:
        signer = self._identity.peek()
        assert signer is not None, "a request was signed with no good credentials"
        assert permit_holder.get() is not None
        return await self._sts.assume_role(signer, parameters["RoleArn"].split(":")[4])


class BaseKeys:
    """The source: serves keys, and renews them when they are rejected."""

    def __init__(self, clock: FakeClock, keys: Iterable[str] = ("AKIA0000000000000000",)) -> None:
        self.clock = clock
        self.key = "source"
        self.account_id = None
        self.region_name = "us-east-1"
        self.renewals = 0
        self._keys = list(keys)
        self._good: Credentials | None = Credentials(self._keys[0], "s")
        self._renewing: anyio.Event | None = None

    def peek(self) -> Credentials | None:
        return self._good

    async def get_frozen_credentials(self) -> Credentials:
        while self._good is None:
            if self._renewing is not None:
                await self._renewing.wait()
                continue
            self._renewing = anyio.Event()
            self.renewals += 1
            await self.clock.sleep(0.2)
            self._good = Credentials(self._keys[min(self.renewals, len(self._keys) - 1)], "s")
            self._renewing.set()
            self._renewing = None
        return self._good

    def reject(self, access_key_id: str, /, *, ambiguous: bool = False) -> bool:
        if self._good is not None and self._good.access_key_id == access_key_id:
            self._good = None
        return True


class World:
    """Role credentials with everything under them, and targets that need them."""

    def __init__(self, clock: FakeClock, sts: Sts, base: BaseKeys, tasks: Any) -> None:
        self.clock = clock
        self.sts = sts
        self.base = base
        self.guard = RequestGuard(RateLimiters(clock=clock), CircuitBreakers(clock=clock), clock)
        self.roles = RoleCredentials(
            TokenSlots(None, endpoint_url=None, clock=clock, policy=RefreshPolicy()),
            guard=self.guard,
            telemetry=None,
            spawn=tasks.start_soon,
            clock=clock,
            random=Random(1),
            policy=RefreshPolicy(jitter=0.0),
        )
        facts = SourceFacts("us-east-1", "aws", long_term=True, method="keys", key="source")
        self.source: Any = SimpleNamespace(
            source=SimpleNamespace(label="the source"), facts=facts, identity=base, sts_client=self._client
        )

    async def _client(self, identity: Any, _: str) -> Client:
        return Client(self.sts, identity)

    async def enter(self, account: str, role: Role, timeout: float | None = None) -> Credentials:
        """Be a target of a run: its timeout ends it."""
        attempt = Attempt()
        attempt.times_out_at = None if timeout is None else self.clock.monotonic() + timeout
        current_attempt.set(attempt)
        with self.clock.move_on_after(timeout):
            return await self.roles.identity(self.source, Account(account), role).get_frozen_credentials()
        raise TimeoutError(account)

    async def run(
        self, accounts: Iterable[str], role: Role, *, timeout: float | None = None, at_once: int = 100
    ) -> dict[str, Credentials | Exception]:
        """Enter all accounts, so many at once; return what came of each."""
        outcomes: dict[str, Credentials | Exception] = {}
        todo = iter(list(accounts))

        async def worker() -> None:
            for account in todo:
                try:
                    outcomes[account] = await self.enter(account, role, timeout)
                except Exception as error:
                    outcomes[account] = error

        async with anyio.create_task_group() as workers:
            for _ in range(at_once):
                workers.start_soon(worker)
        return outcomes


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def world_of(clock: FakeClock, sts: Sts | None = None, base: BaseKeys | None = None) -> AsyncIterator[World]:
    async with running_clock(clock), anyio.create_task_group() as tasks:
        yield World(clock, sts or Sts(clock), base or BaseKeys(clock), tasks)
        tasks.cancel_scope.cancel()


def chain(hops: int, **fields: Any) -> Role:
    return Role("leaf", via=tuple(f"arn:aws:iam::{hub}:role/hub" for hub in HUBS[:hops]), **fields)


def succeeded(outcomes: dict[str, Credentials | Exception]) -> int:
    return sum(isinstance(outcome, Credentials) for outcome in outcomes.values())


class TestChains:
    """Nothing waits for credentials while it holds a permit, a probe or a place in a queue."""

    @pytest.mark.parametrize("hops", [1, 2, 3])
    @pytest.mark.parametrize("count", [5, 20, 200])
    async def test_a_cold_chain_costs_one_request_for_each_role(self, clock: FakeClock, hops: int, count: int) -> None:
        """As many AssumeRole as roles, however many leaves begin together with nothing cached."""
        async with world_of(clock) as world:
            outcomes = await world.run(leaves(count), chain(hops))

            assert succeeded(outcomes) == count
            assert world.sts.sent.total() == count + hops

    async def test_with_mfa_in_front(self, clock: FakeClock) -> None:
        """The code is needed once, and may take the person longer than any request: nothing gives up meanwhile."""
        codes: list[float] = []

        async def code() -> str:
            codes.append(clock.monotonic())
            await clock.sleep(100)
            return "123456"

        async with world_of(clock) as world:

            async def get_session_token(**_: Any) -> dict[str, Any]:
                return await world.sts.assume_role(world.base.peek(), "")  # type: ignore[arg-type]

            async def client(identity: Any, region: str) -> Any:
                made = Client(world.sts, identity)
                made.get_session_token = get_session_token  # type: ignore[attr-defined]
                return made

            world.source.sts_client = client
            role = chain(2, mfa_serial="arn:aws:iam::111111111111:mfa/me", mfa_token=code)
            outcomes = await world.run(leaves(20), role)

            assert succeeded(outcomes) == 20
            assert len(codes) == 1

    async def test_in_mid_run_after_one_lost_connection(self, clock: FakeClock) -> None:
        """The hub's token has ended, and one AssumeRole has just lost its connection."""
        sts = Sts(clock, lifetime=30)
        async with world_of(clock, sts) as world:
            await world.run(leaves(1), chain(1))
            sts.lost[leaves(1)[0]] = 1
            await clock.sleep(35)
            outcomes = await world.run(leaves(20), chain(1))

            assert succeeded(outcomes) == 20
            assert sts.granted[HUBS[0]] == 2

    async def test_a_hub_that_is_missing_is_requested_once(self, clock: FakeClock) -> None:
        """Every leaf gets the denial of the hub, with the hub's role in it."""
        async with world_of(clock) as world:
            world.sts.missing = {HUBS[0]}
            outcomes = await world.run(leaves(200), chain(2))

            assert world.sts.sent == {HUBS[0]: 1}
            assert {type(error) for error in outcomes.values()} == {AssumeRoleDenied}
            assert {getattr(error, "role_arn", "") for error in outcomes.values()} == {
                f"arn:aws:iam::{HUBS[0]}:role/hub"
            }

    @pytest.mark.parametrize(("timeout", "seconds"), [(None, 16.0), (20.0, 20.0), (3.0, 3.0)])
    async def test_a_hub_that_hangs_is_waited_for_by_the_targets_time_else_the_loads(
        self, clock: FakeClock, timeout: float | None, seconds: float
    ) -> None:
        """Not for the 300 s of a token that has ended."""
        async with world_of(clock) as world:
            world.sts.hangs[HUBS[0]] = 10_000
            began = clock.monotonic()
            outcomes = await world.run(leaves(5), chain(1), timeout=timeout)

            assert clock.monotonic() - began <= seconds
            assert all(isinstance(error, AssumeRoleError | TimeoutError) for error in outcomes.values())

    async def test_two_outages_of_a_minute(self, clock: FakeClock) -> None:
        """200 accounts behind two hops, `timeout=180`; STS down for 60 s at the start, and again in mid-run."""
        sts = Sts(clock, rate=600)
        sts.down = [(0, 60), (80, 140)]
        async with world_of(clock, sts) as world:
            first = await world.run(leaves(200)[:150], chain(2), timeout=180)
            await clock.sleep(max(0.0, 85 - sts.now))
            second = await world.run(leaves(200)[150:], chain(2), timeout=180)

            assert succeeded(first) + succeeded(second) == 200
            assert sts.answered <= 1.1 * sts.granted.total()
            for since, until in sts.down:
                probes = [at for at in sts.at if since + 15 <= at < until]
                assert all(later - earlier >= 5 for earlier, later in pairwise(probes))

    async def test_an_outage_is_shown_with_the_transports_error(self, clock: FakeClock) -> None:
        """Every outcome and `endpoints_down` have the name of the transport's error, sent or not."""
        sts = Sts(clock)
        sts.down = [(0, 1e9)]
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(40), Role("leaf"), timeout=20)

            assert {error.code for error in outcomes.values() if isinstance(error, AssumeRoleError)} == {
                "EndpointConnectionError"
            }
            assert all("EndpointConnectionError" in str(error) for error in outcomes.values())
            assert list(world.guard.endpoints_down().values()) == ["EndpointConnectionError"]

    async def test_without_a_timeout_an_outage_is_reported_at_once(self, clock: FakeClock) -> None:
        """A handful of requests, then each account gets the error without one, and without a wait."""
        sts = Sts(clock)
        sts.down = [(0, 1e9)]
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(100), Role("leaf"), at_once=20)

            assert sts.now < 30
            assert sts.sent.total() < 40
            assert {type(error) for error in outcomes.values()} == {AssumeRoleError}


def proxy_failure(cause: Exception) -> Exception:
    error = ProxyConnectionError(proxy_url="http://proxy:3128", error=OSError())
    error.__cause__ = cause
    return error


class ProxyError(Exception):
    """The name and message of httpx's error."""


def untrusted() -> Exception:
    error = SSLError(endpoint_url="https://sts", error=OSError())
    error.__cause__ = SSLCertVerificationError(1, "certificate verify failed")
    return error


class TestSettings:
    """Failures that a setting causes: waiting is in vain, or may be."""

    @pytest.mark.parametrize("make", [lambda: proxy_failure(ProxyError("407 Login")), untrusted], ids=["407", "TLS"])
    async def test_a_setting_that_prevents_every_request_ends_the_retries(
        self, clock: FakeClock, make: Callable[[], Exception]
    ) -> None:
        """One request for each target, no wait, and the breaker of STS stays closed: the endpoint is not the cause."""
        sts = Sts(clock)
        sts.down, sts.failure = [(0, 1e9)], make
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(40), chain(1), timeout=60)

            assert {type(error) for error in outcomes.values()} == {ConfigurationError}
            assert sts.now == 0
            assert sts.sent == {HUBS[0]: 1}
            assert world.guard.endpoints_down() == {}

    @pytest.mark.parametrize("hops", [0, 1])
    async def test_a_proxy_that_does_not_listen_is_tried_for_some_seconds(self, clock: FakeClock, hops: int) -> None:
        """It may restart; each role of a chain waits for 8 s, not for the target's 300."""
        sts = Sts(clock)
        sts.down, sts.failure = [(0, 1e9)], lambda: proxy_failure(ConnectionRefusedError(111, "refused"))
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(40), chain(hops), timeout=300)

            assert {type(error) for error in outcomes.values()} == {AssumeRoleError}
            assert 5 <= sts.now <= 9 * (hops + 1)
            assert sts.sent.total() < 60

    async def test_a_proxy_that_listens_again_soon_fails_no_target(self, clock: FakeClock) -> None:
        """Its restart of 3 s is waited for."""
        sts = Sts(clock)
        sts.down, sts.failure = [(0, 3)], lambda: proxy_failure(ConnectionRefusedError(111, "refused"))
        async with world_of(clock, sts) as world:
            assert succeeded(await world.run(leaves(4), Role("leaf"), timeout=300)) == 4

    async def test_settings_that_have_worked_are_not_suspected(self, clock: FakeClock) -> None:
        """After STS has answered once, a proxy that is down for a minute is an outage like any other."""
        sts = Sts(clock)
        sts.down, sts.failure = [(10, 70)], lambda: proxy_failure(ConnectionRefusedError(111, "refused"))
        async with world_of(clock, sts) as world:
            assert succeeded(await world.run(leaves(1), Role("leaf"), timeout=60)) == 1
            await clock.sleep(15)

            assert succeeded(await world.run(leaves(50)[1:], chain(1), timeout=120)) == 49


class TestThrottling:
    """An STS that throttles is waited for, by few requests."""

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_an_sts_of_50_a_second_is_met_without_knowing_its_rate(self, clock: FakeClock) -> None:
        """1,000 accounts finish within 1.3 of the ideal 20 s, with under 10 % throttled answers, all with a token."""
        sts = Sts(clock, rate=50)
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(1000), Role("leaf"))

            assert succeeded(outcomes) == 1000
            assert sts.now < 1.3 * 20
            assert (sts.answered - 1000) / sts.answered < 0.10

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_an_sts_of_600_a_second_is_not_slowed_below_it(self, clock: FakeClock) -> None:
        """1,000 accounts take no longer than 600 a second would."""
        sts = Sts(clock, rate=600)
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(1000), Role("leaf"))

            assert succeeded(outcomes) == 1000
            assert sts.now < 1000 / 600
            assert sts.answered == 1000

    @pytest.mark.parametrize("count", [20, 50, 100, 200])
    async def test_an_sts_that_always_throttles_is_given_up_after_half_a_minute(
        self, clock: FakeClock, count: int
    ) -> None:
        """One AssumeRoleThrottled for each account, with requests and seconds; at most 1.5 requests for each."""
        sts = Sts(clock, rate=1e-9)
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(count), Role("leaf"), at_once=200)

            assert {type(error) for error in outcomes.values()} == {AssumeRoleThrottled}
            assert 30 <= sts.now < 40
            assert sts.sent.total() <= 1.5 * count
            for account, error in outcomes.items():
                assert getattr(error, "attempts", None) == (sts.sent[account] or error.attempts)  # type: ignore[union-attr]
                if sts.sent[account]:
                    assert f"({sts.sent[account]} request" in str(error)

    async def test_a_target_waits_until_its_own_timeout(self, clock: FakeClock) -> None:
        """And fails a little earlier, with the cause."""
        sts = Sts(clock, rate=1e-9)
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(30), Role("leaf"), timeout=60)

            assert {type(error) for error in outcomes.values()} == {AssumeRoleThrottled}
            assert 59 <= sts.now < 60

    async def test_an_sts_that_throttles_its_first_200_requests(self, clock: FakeClock) -> None:
        """100 targets with time get their tokens."""
        sts = Sts(clock)
        sts.throttles_first = 200
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(100), Role("leaf"), timeout=120)

            assert succeeded(outcomes) == 100
            assert sts.sent.total() == 300


class TestHangs:
    """A request without an answer is sent again on another connection."""

    async def test_one_that_hangs_is_sent_again_after_four_seconds(self, clock: FakeClock) -> None:
        """Inside the load's ten."""
        async with world_of(clock) as world:
            account = leaves(1)[0]
            world.sts.hangs[account] = 1
            await world.enter(account, Role("leaf"))

            assert world.sts.at == [0, 4]
            assert world.sts.now == pytest.approx(4 + LATENCY_SECONDS)

    async def test_a_load_ends_when_no_caller_is_left(self, clock: FakeClock) -> None:
        """A caller that gives up takes no other with it, and the last one takes the load."""
        async with world_of(clock) as world:
            account = leaves(1)[0]
            world.sts.hangs[account] = 1_000
            outcomes = await world.run([account, account], Role("leaf"), timeout=25)
            sent = world.sts.sent[account]
            await clock.sleep(100)

            assert isinstance(outcomes[account], AssumeRoleError)
            assert world.sts.sent[account] == sent
            assert world.roles.refreshing == 0


class TestSourceKeys:
    """Keys that STS refuses are renewed once, and remembered for themselves alone."""

    async def test_keys_that_end_in_mid_run_are_renewed_once(self, clock: FakeClock) -> None:
        """25 accounts meet the refusal at the same time; all succeed with the new keys."""
        base = BaseKeys(clock, ["AKIAOLD0000000000000", "AKIANEW0000000000000"])
        async with world_of(clock, base=base) as world:
            world.sts.refused_keys = {"AKIAOLD0000000000000"}
            outcomes = await world.run(leaves(25), Role("leaf"))

            assert succeeded(outcomes) == 25
            assert base.renewals == 1

    async def test_keys_that_come_back_the_same_are_refused_without_a_request(self, clock: FakeClock) -> None:
        """For a few seconds; then one request finds out."""
        base = BaseKeys(clock, ["AKIAOLD0000000000000"])
        async with world_of(clock, base=base) as world:
            world.sts.refused_keys = {"AKIAOLD0000000000000"}
            first = await world.run(leaves(1), Role("leaf"))
            outcomes = await world.run(leaves(50)[1:], Role("leaf"))
            sent = world.sts.sent.total()
            await clock.sleep(10)
            world.sts.refused_keys = set()
            later = await world.run(leaves(50), Role("leaf"))

            assert all(isinstance(error, SourceError) for error in [*first.values(), *outcomes.values()])
            assert sent == 1
            assert succeeded(later) == 50

    @pytest.mark.parametrize("code", ["ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch"])
    async def test_refused_keys_cost_one_request_however_many_begin_together(self, clock: FakeClock, code: str) -> None:
        """The first request of a source goes alone; when the refusal is forgotten, one request finds out again."""
        sts = Sts(clock)
        sts.refused_keys, sts.refusal = {"AKIA0000000000000000"}, code
        async with world_of(clock, sts) as world:
            first = await world.run(leaves(200), Role("leaf"))
            sent = sts.sent.total()
            await clock.sleep(10)
            later = await world.run(leaves(200), Role("leaf"))

            assert sent == 1
            assert sts.sent.total() == 2
            assert all(isinstance(error, SourceError) for error in [*first.values(), *later.values()])

    async def test_a_first_request_that_hangs_holds_the_others_for_a_second(self, clock: FakeClock) -> None:
        """A slow STS does not serialise a run: after one second all of them go."""
        sts = Sts(clock)
        sts.hangs["400000000000"] = 1
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(50), Role("leaf"))

            assert succeeded(outcomes) == 50
            assert sts.at[1] == pytest.approx(1.0)
            assert sts.at[49] < 2.0

    async def test_a_first_request_that_fails_otherwise_lets_the_others_go(self, clock: FakeClock) -> None:
        """A role that is missing shows that STS accepts the keys."""
        sts = Sts(clock)
        sts.missing = {"400000000000"}
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(50), Role("leaf"))

            assert succeeded(outcomes) == 49
            assert sts.at[:11] == pytest.approx([0.0, *[LATENCY_SECONDS] * 10])

    async def test_a_cancelled_first_request_is_followed_by_one_other(self, clock: FakeClock) -> None:
        """The wait of the others does not depend on the target that began."""
        sts = Sts(clock)
        sts.refused_keys = {"AKIA0000000000000000"}
        async with world_of(clock, sts) as world:
            world.roles._first_requests.begin(("source", "us-east-1"))
            async with anyio.create_task_group() as tasks:
                outcomes: dict[str, Credentials | Exception] = {}

                async def run() -> None:
                    outcomes.update(await world.run(leaves(50)[1:], Role("leaf")))

                tasks.start_soon(run)
                await clock.sleep(0.3)
                world.roles._first_requests.end(("source", "us-east-1"))

            assert sts.at == pytest.approx([0.3])
            assert all(isinstance(error, SourceError) for error in outcomes.values())

    async def test_every_target_of_refused_keys_gets_the_same_message(self, clock: FakeClock) -> None:
        """The message names the source and no role, so a report counts one cause; the fields name the target's role."""
        sts = Sts(clock)
        sts.refused_keys = {"AKIA0000000000000000"}
        async with world_of(clock, sts) as world:
            outcomes = await world.run(leaves(30), Role("leaf"), at_once=5)

            errors = [error for error in outcomes.values() if isinstance(error, SourceError)]
            assert len(errors) == 30
            assert len({str(error) for error in errors}) == 1
            assert {error.account for error in errors} == set(leaves(30))
