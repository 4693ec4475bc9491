"""Targets that hang where aiobotocore's own timeouts have no effect: each ends at its timeout and frees its place.

In every test two targets run one after the other over one connection: the second shows that place and connection are
free after the first.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig

from asyncauth import Outcome, TargetTimeout
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over
from tests.support.stuck_server import certificate, full_backlog, stuck_server

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator

    from asyncauth import AccountSession, SessionPool
    from tests.support.stuck_server import StuckServer, Trouble

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

#: Long enough on a busy machine for a target whose server answers.
TIMEOUT_SECONDS = 1.5
#: A test fails instead of waiting longer for an event.
HANG_SECONDS = 60


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(2, regions=["us-east-1"], instances_per_region=0) as running:
        yield running


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pool(fleet: SimulatedFleet) -> Iterator[SessionPool]:
    """Pool with one place and one connection to each host; it leaves no socket open."""
    before = open_sockets()
    yield pool_over(fleet, max_at_once=1, config=AioConfig(max_pool_connections=1))
    assert open_sockets() == before


@pytest.fixture
def full_listener() -> Iterator[str]:
    """URL of a listener whose queue of connections is full."""
    with full_backlog() as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def open_sockets() -> int:
    names = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.islink(name) and os.readlink(name).startswith("socket:") for name in names)


def caller_of(url: str, **options: Any) -> Callable[[AccountSession], Awaitable[str]]:
    async def job(session: AccountSession) -> str:
        async with session.client("sts", endpoint_url=url, **options) as sts:
            return str((await sts.get_caller_identity())["Account"])

    return job


async def two_targets(
    pool: SessionPool, fleet: SimulatedFleet, job: Any, then: Callable[[], object] = lambda: None
) -> list[Outcome[str]]:
    """Run the job on two accounts, and call `then` after each outcome."""
    outcomes: list[Outcome[str]] = []
    async with pool.as_completed(job, fleet.accounts, timeout=TIMEOUT_SECONDS, retry=None) as run:
        async for outcome in run:
            outcomes.append(outcome)
            then()
    return outcomes


def check_timed_out(outcome: Outcome[str], record: Callable[[str, object], None]) -> None:
    late = outcome.elapsed - TIMEOUT_SECONDS
    record("seconds_late", round(late, 3))
    print(f"late by {late:.3f} s")

    assert (outcome.status, outcome.phase) == ("timed_out", "job")
    assert isinstance(outcome.error, TargetTimeout)
    assert f"timeout={TIMEOUT_SECONDS} s" in str(outcome.error)
    assert late >= 0


async def check_released(server: StuckServer) -> None:
    with anyio.fail_after(HANG_SECONDS):
        await server.let_go.wait()


@pytest.mark.parametrize("trouble", ["silence", "drip", "deaf"])
async def test_a_server_that_hangs(
    fleet: SimulatedFleet, pool: SessionPool, trouble: Trouble, record_property: Callable[[str, object], None]
) -> None:
    """It never responds, it sends the body byte by byte, or it does not read from a half-closed socket."""
    async with stuck_server(trouble) as server, pool:
        stuck, free = await two_targets(pool, fleet, caller_of(server.url))
        await check_released(server)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"
    assert server.connections == 2


async def test_a_connection_that_is_not_accepted(
    fleet: SimulatedFleet,
    pool: SessionPool,
    full_listener: str,
    record_property: Callable[[str, object], None],
) -> None:
    """The listening machine drops the first packet of the connection."""
    async with stuck_server("none") as server, pool:
        urls = iter([full_listener, server.url])

        async def job(session: AccountSession) -> str:
            return await caller_of(next(urls))(session)

        stuck, free = await two_targets(pool, fleet, job)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_tls_handshake_that_stalls(
    fleet: SimulatedFleet,
    pool: SessionPool,
    tls: tuple[ssl.SSLContext, str],
    record_property: Callable[[str, object], None],
) -> None:
    """The connection is established, and the server never responds to the client's hello."""
    context, bundle = tls
    async with stuck_server("stalled TLS", context) as server, pool:
        stuck, free = await two_targets(pool, fleet, caller_of(server.url, verify=bundle))
        await check_released(server)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_slow_name_lookup(
    fleet: SimulatedFleet,
    pool: SessionPool,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """The resolver blocks a thread that cannot be cancelled; the target does not wait for it."""
    found = threading.Event()
    lookups: list[str] = []
    resolve = socket.getaddrinfo

    def slow_lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "slow.test":
            return resolve(host, *arguments, **options)
        lookups.append(host)
        found.wait(10)
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow_lookup)
    try:
        async with stuck_server("none") as server, pool:
            stuck, free = await two_targets(pool, fleet, caller_of(f"http://slow.test:{server.port}"), then=found.set)
    finally:
        found.set()

    check_timed_out(stuck, record_property)
    assert lookups
    assert free.value == "123456789012"


async def test_a_connection_that_another_call_holds(
    fleet: SimulatedFleet, pool: SessionPool, record_property: Callable[[str, object], None]
) -> None:
    """The only connection to the host is in use by a call that hangs; the target times out as it waits for it."""
    async with stuck_server("silence") as server, pool, anyio.create_task_group() as group:
        session = await pool.session(fleet.accounts[0])
        holding = anyio.CancelScope()

        async def hold() -> None:
            with holding:
                await caller_of(server.url)(session)

        group.start_soon(hold)
        await server.stuck.wait()

        stuck, free = await two_targets(pool, fleet, caller_of(server.url), then=holding.cancel)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_server_that_closes_the_connection_without_a_response(
    fleet: SimulatedFleet, pool: SessionPool, record_property: Callable[[str, object], None]
) -> None:
    """The socket is closed on this side, too, and botocore's 50 retries do not extend the target's timeout."""
    many_retries = AioConfig(retries={"mode": "standard", "max_attempts": 50})
    async with stuck_server("hangs up") as server, pool:
        stuck, free = await two_targets(pool, fleet, caller_of(server.url, config=many_retries), then=server.heal)
        await check_released(server)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_kept_connection_that_the_server_has_closed(fleet: SimulatedFleet, pool: SessionPool) -> None:
    """The next target gets a new connection, and succeeds."""
    async with stuck_server("hangs up later") as server, pool:
        first, second = await two_targets(pool, fleet, caller_of(server.url))
        await check_released(server)

    assert first.value == second.value == "123456789012"
    assert server.connections == 2


async def test_a_target_can_use_two_connections(fleet: SimulatedFleet) -> None:
    """A target that reads a response makes another call to the same host, even with `max_at_once=1`."""
    async with stuck_server("drip") as server, pool_over(fleet, max_at_once=1) as pool:

        async def job(session: AccountSession) -> str:
            async with anyio.create_task_group() as group:
                group.start_soon(caller_of(server.url), session)
                await server.stuck.wait()
                answer = await caller_of(server.url)(session)
                group.cancel_scope.cancel()
            return answer

        report = await pool.map(job, fleet.accounts[:1], timeout=10)

    assert report[0].value == "123456789012"
