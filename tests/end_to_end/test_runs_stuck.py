"""Targets that get stuck where aiobotocore's own timeouts do not reach: each ends at its timeout, and frees its place.

In every test two targets run one after the other, over one connection: the second shows that place and connection are
free again after the first.
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

#: Seconds.
TIMEOUT = 0.5
#: Seconds. The claim is 0.2; a machine that is busy with something else wakes nobody on time.
SLACK = 1.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(2, regions=["us-east-1"], instances_per_region=0) as running:
        yield running


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pool(fleet: SimulatedFleet) -> Iterator[SessionPool]:
    """A pool with one place and one connection to each host, of which nothing is open in the end."""
    before = open_sockets()
    yield pool_over(fleet, max_at_once=1, config=AioConfig(max_pool_connections=1))
    assert open_sockets() == before


@pytest.fixture
def nobody_listens() -> Iterator[str]:
    """The URL of a listener whose queue is full."""
    with full_backlog() as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def open_sockets() -> int:
    names = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(os.path.islink(name) and os.readlink(name).startswith("socket:") for name in names)


def asks(url: str, **options: Any) -> Callable[[AccountSession], Awaitable[str]]:
    async def job(session: AccountSession) -> str:
        async with session.client("sts", endpoint_url=url, **options) as sts:
            return str((await sts.get_caller_identity())["Account"])

    return job


async def two_targets(
    pool: SessionPool, fleet: SimulatedFleet, job: Any, then: Callable[[], object] = lambda: None
) -> list[Outcome[str]]:
    """Run the job on two accounts, and call `then` when the first is done."""
    outcomes: list[Outcome[str]] = []
    async with pool.as_completed(job, fleet.accounts, timeout=TIMEOUT, retry=None) as run:
        async for outcome in run:
            outcomes.append(outcome)
            then()
    return outcomes


def check_timed_out(outcome: Outcome[str], record: Callable[[str, object], None]) -> None:
    late = outcome.elapsed - TIMEOUT
    record("seconds_late", round(late, 3))
    print(f"late by {late:.3f} s")

    assert (outcome.status, outcome.phase) == ("timed_out", "job")
    assert isinstance(outcome.error, TargetTimeout)
    assert f"timeout={TIMEOUT} s" in str(outcome.error)
    assert 0 <= late < SLACK


async def check_freed(server: StuckServer) -> None:
    with anyio.fail_after(SLACK):
        await server.let_go.wait()


@pytest.mark.parametrize("trouble", ["silence", "drip", "deaf"])
async def test_a_server_that_gets_stuck(
    fleet: SimulatedFleet, pool: SessionPool, trouble: Trouble, record_property: Callable[[str, object], None]
) -> None:
    """A black hole, a body that drips, a half-closed socket on which nobody reads any more."""
    async with stuck_server(trouble) as server, pool:
        stuck, free = await two_targets(pool, fleet, asks(server.url))
        await check_freed(server)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"
    assert server.connections == 2


async def test_a_connection_that_nobody_takes(
    fleet: SimulatedFleet,
    pool: SessionPool,
    nobody_listens: str,
    record_property: Callable[[str, object], None],
) -> None:
    """A black hole for the first packet already: the machine that listens drops it."""
    async with stuck_server("none") as server, pool:
        urls = iter([nobody_listens, server.url])

        async def job(session: AccountSession) -> str:
            return await asks(next(urls))(session)

        stuck, free = await two_targets(pool, fleet, job)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_tls_handshake_that_stalls(
    fleet: SimulatedFleet,
    pool: SessionPool,
    tls: tuple[ssl.SSLContext, str],
    record_property: Callable[[str, object], None],
) -> None:
    """The connection is made, and the client's hello is never answered."""
    context, bundle = tls
    async with stuck_server("stalled TLS", context) as server, pool:
        stuck, free = await two_targets(pool, fleet, asks(server.url, verify=bundle))
        await check_freed(server)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_name_lookup_that_takes_its_time(
    fleet: SimulatedFleet,
    pool: SessionPool,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """The resolver sits in a thread that nobody can end; the target does not wait for it."""
    found = threading.Event()
    lookups: list[str] = []
    look_up = socket.getaddrinfo

    def slowly(host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "slow.test":
            return look_up(host, *arguments, **options)
        lookups.append(host)
        found.wait(10)
        return look_up("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    try:
        async with stuck_server("none") as server, pool:
            stuck, free = await two_targets(pool, fleet, asks(f"http://slow.test:{server.port}"), then=found.set)
    finally:
        found.set()

    check_timed_out(stuck, record_property)
    assert lookups
    assert free.value == "123456789012"


async def test_a_connection_slot_that_somebody_holds(
    fleet: SimulatedFleet, pool: SessionPool, record_property: Callable[[str, object], None]
) -> None:
    """The only connection to the host is somebody else's, who is stuck with it; the target waits for it in vain."""
    async with stuck_server("silence") as server, pool, anyio.create_task_group() as group:
        session = await pool.session(fleet.accounts[0])
        holding = anyio.CancelScope()

        async def hold() -> None:
            with holding:
                await asks(server.url)(session)

        group.start_soon(hold)
        await server.stuck.wait()

        stuck, free = await two_targets(pool, fleet, asks(server.url), then=holding.cancel)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_server_that_hangs_up_instead_of_answering(
    fleet: SimulatedFleet, pool: SessionPool, record_property: Callable[[str, object], None]
) -> None:
    """A socket that is closed on their side is closed on ours; botocore's patience with it is not the target's."""
    patient = AioConfig(retries={"mode": "standard", "max_attempts": 50})
    async with stuck_server("hangs up") as server, pool:
        stuck, free = await two_targets(pool, fleet, asks(server.url, config=patient), then=server.heal)
        await check_freed(server)

    check_timed_out(stuck, record_property)
    assert free.value == "123456789012"


async def test_a_kept_connection_that_the_server_has_closed(fleet: SimulatedFleet, pool: SessionPool) -> None:
    """The next target gets a new one, and notices nothing."""
    async with stuck_server("hangs up later") as server, pool:
        first, second = await two_targets(pool, fleet, asks(server.url))
        await check_freed(server)

    assert first.value == second.value == "123456789012"
    assert server.connections == 2


async def test_a_target_may_hold_a_connection_and_use_another(fleet: SimulatedFleet) -> None:
    """One that streams a body asks the same host for something else meanwhile; with all places taken, too."""
    async with stuck_server("drip") as server, pool_over(fleet, max_at_once=1) as pool:

        async def job(session: AccountSession) -> str:
            async with anyio.create_task_group() as group:
                group.start_soon(asks(server.url), session)
                await server.stuck.wait()
                answer = await asks(server.url)(session)
                group.cancel_scope.cancel()
            return answer

        report = await pool.map(job, fleet.accounts[:1], timeout=10)

    assert report[0].value == "123456789012"
