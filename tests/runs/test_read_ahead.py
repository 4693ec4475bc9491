"""Read-ahead of accounts: order, limits, the place of errors, and what a cancellation at any await leaves behind."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth import Account, PoolClosed
from asyncauth._fanout import Limits, fan_out
from asyncauth._runs.read_ahead import ReadAhead
from asyncauth._runs.regions import EnabledRegions
from asyncauth._runs.targets import Target, Targets
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from asyncauth._models import AccountLike

pytestmark = pytest.mark.anyio

FOUND = EnabledRegions(("us-east-1", "us-west-2"), "account")
WANTED, PLAIN, REJECTED = "wanted", "plain", "rejected"


def accounts_of(kinds: Sequence[str]) -> list[AccountLike]:
    """Return an account for each kind: with `enabled`, with a region of its own, or an item that is no account."""
    regions = {WANTED: ("enabled",), PLAIN: ("eu-west-1",)}
    return [
        "no account" if kind == REJECTED else Account(f"{number:012d}", regions=regions[kind])
        for number, kind in enumerate(kinds)
    ]


class Listing:
    """Iterator of accounts that counts what was read, and whether it was closed."""

    def __init__(self, accounts: Sequence[AccountLike], *, steps: Callable[[], int] = lambda: 0) -> None:
        self.accounts = accounts
        self.steps = steps
        self.read = 0
        self.closed = 0

    async def iterate(self) -> AsyncIterator[AccountLike]:
        try:
            for account in self.accounts:
                for _ in range(self.steps()):
                    await anyio.lowlevel.checkpoint()
                self.read += 1
                yield account
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.closed += 1


class Finder:
    """Finder of regions that counts its requests, and how many run at the same time."""

    def __init__(self, wait: Callable[[Account], Awaitable[object]] | None = None) -> None:
        self.wait = wait
        self.calls: Counter[str] = Counter()
        self.running = self.max_running = 0

    async def find(self, account: Account) -> EnabledRegions:
        self.calls[account.id] += 1
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await (anyio.lowlevel.checkpoint() if self.wait is None else self.wait(account))
        finally:
            self.running -= 1
        return FOUND


def read_ahead(listing: Listing, finder: Finder, limit: int) -> tuple[Targets, ReadAhead]:
    targets = Targets(listing.iterate(), find_regions=finder.find)
    ahead = targets.read_ahead(limit, SYSTEM_CLOCK)
    assert ahead is not None
    return targets, ahead


async def read_into(found: list[Target], targets: Targets) -> None:
    """Add the targets to a list, in which those before an error stay."""
    async for target in targets.iterate():  # type: ignore[union-attr]
        found.append(target)  # noqa: PERF401 - a comprehension would lose them


async def test_requests_of_several_accounts_run_at_once() -> None:
    """After the first job has started: as many as the limit, and no more, while the first has no answer."""
    gate = anyio.Event()
    finder, listing = Finder(lambda _: gate.wait()), Listing(accounts_of([WANTED] * 100))
    targets, ahead = read_ahead(listing, finder, 10)
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        ahead.open()
        await anyio.wait_all_tasks_blocked()
        at_once = finder.running
        read = listing.read
        gate.set()
        found = [target async for target in targets.iterate()]  # type: ignore[union-attr]

    assert (at_once, read) == (10, 10)
    assert [target.account.id for target in found] == [f"{n:012d}" for n in range(100) for _ in range(2)]
    assert finder.calls.total() == 100
    assert (listing.closed, finder.max_running) == (1, 10)


async def test_before_the_first_job_there_is_one_request() -> None:
    """The first account's targets are there while the second one's request has not begun."""
    finder, listing = Finder(), Listing(accounts_of([PLAIN, WANTED, PLAIN, WANTED, WANTED]))
    targets, ahead = read_ahead(listing, finder, 10)
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        iterator = targets.iterate()
        first = [await anext(iterator) for _ in range(4)]  # type: ignore[arg-type]
        with anyio.move_on_after(0) as waited:
            await anext(iterator)  # type: ignore[arg-type]
        await anyio.wait_all_tasks_blocked()
        before = finder.calls.total()
        ahead.open()
        rest = [target async for target in iterator]  # type: ignore[union-attr]

    assert waited.cancelled_caught
    assert [target.regions_from for target in first] == [None, "account", "account", None]
    assert before == 1
    assert [target.account.id[-1] for target in rest] == ["3", "3", "4", "4"]


async def test_accounts_without_a_request_are_read_when_they_are_wanted() -> None:
    """An iterator of plain accounts is not read ahead, however many the limit allows."""
    listing = Listing(accounts_of([PLAIN] * 20))
    targets, ahead = read_ahead(listing, Finder(), 10)
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        ahead.open()
        iterator = targets.iterate()
        for wanted in range(1, 5):
            await anext(iterator)  # type: ignore[arg-type]
            await anyio.wait_all_tasks_blocked()
            assert listing.read == wanted
        await ahead.aclose()

    assert listing.closed == 1


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.lists(st.sampled_from([WANTED, WANTED, PLAIN, REJECTED]), max_size=40),
    limit=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    sequence=st.booleans(),
)
def test_every_account_comes_out_once_and_in_its_order(kinds: list[str], limit: int, seed: int, sequence: bool) -> None:
    """Whatever each request and the listing take, and whenever the first job starts; never more than `limit` ahead."""
    random = Random(seed)

    async def steps(_: object = None) -> None:
        for _ in range(random.randrange(6)):
            await anyio.lowlevel.checkpoint()

    async def main() -> None:
        finder = Finder(steps)
        listing = Listing(accounts_of(kinds), steps=lambda: random.randrange(3))
        given_accounts = listing.iterate() if not sequence else iter(listing.accounts)
        targets = Targets(given_accounts, find_regions=finder.find)
        ahead = targets.read_ahead(limit, SYSTEM_CLOCK)
        assert ahead is not None
        found: list[Target] = []
        async with anyio.create_task_group() as tasks:
            ahead.start(tasks)
            async for target in targets.iterate():  # type: ignore[union-attr]
                found.append(target)
                assert len(found) > 1 or finder.calls.total() <= 1
                await steps()
                ahead.open()
        expected = [
            (account.id, name)
            for account in listing.accounts
            if isinstance(account, Account)
            for name in (FOUND.names if account.regions == ("enabled",) else account.regions)
        ]
        assert [(target.account.id, target.region_name) for target in found] == expected
        assert all(count == 1 for count in finder.calls.values())
        assert finder.calls.total() == kinds.count(WANTED)
        assert finder.max_running <= limit
        assert len(targets.rejected) == kinds.count(REJECTED)

    anyio.run(main)


@pytest.mark.parametrize("place", [0, 1, 7])
async def test_an_error_of_the_listing_comes_after_the_accounts_before_it(place: int) -> None:
    """As without the read-ahead: the accounts that were read still have their targets."""

    async def listing() -> AsyncIterator[AccountLike]:
        for account in accounts_of([WANTED] * place):
            yield account
        raise LookupError("the listing failed")

    targets = Targets(listing(), find_regions=Finder().find)
    ahead = targets.read_ahead(5, SYSTEM_CLOCK)
    assert ahead is not None
    found: list[Target] = []
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        ahead.open()
        with pytest.raises(LookupError, match="the listing failed"):
            await read_into(found, targets)

    assert len(found) == 2 * place


async def test_an_error_of_a_request_comes_at_the_place_of_its_account() -> None:
    """A closed pool ends the run at the account that met it, not before the accounts that came first."""

    async def wait(account: Account) -> None:
        if account.id.endswith("3"):
            raise PoolClosed("the pool is closed")
        await anyio.lowlevel.checkpoint()

    targets, ahead = read_ahead(Listing(accounts_of([WANTED] * 6)), Finder(wait), 10)
    found: list[Target] = []
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        ahead.open()
        with pytest.raises(PoolClosed):
            await read_into(found, targets)
        await ahead.aclose()

    assert [target.account.id[-1] for target in found] == ["0", "0", "1", "1", "2", "2"]


async def test_an_interrupt_in_the_listing_is_raised_by_the_run() -> None:
    """KeyboardInterrupt is no failure of the listing: the block raises it as it is, not in a group."""

    async def listing() -> AsyncIterator[AccountLike]:
        yield accounts_of([WANTED])[0]
        raise KeyboardInterrupt

    targets = Targets(listing(), find_regions=Finder().find)
    ahead = targets.read_ahead(5, SYSTEM_CLOCK)
    assert ahead is not None

    async def work(_target: Target, _attempt: object) -> None:
        ahead.open()

    async def run() -> int:
        count = 0
        async with fan_out(work, targets.iterate()) as results:
            async for _ in results:
                count += 1
        return count

    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        with pytest.raises(KeyboardInterrupt):
            await run()


@pytest.mark.parametrize("after", range(40))
async def test_a_run_that_is_left_at_any_moment_leaves_nothing(after: int) -> None:
    """Cancelled after any number of steps: no request runs, the listing is closed once, and every task has ended."""

    async def wait(_account: Account) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

    finder, listing = Finder(wait), Listing(accounts_of([WANTED, PLAIN] * 50), steps=lambda: 1)
    targets, ahead = read_ahead(listing, finder, 4)

    async def work(_target: Target, _attempt: object) -> None:
        ahead.open()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            ahead.start(tasks)
            async with fan_out(work, targets.iterate(), limits=Limits(max_at_once=3)) as results:
                for _ in range(after):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
                async for _ in results:
                    pass

    assert scope.cancelled_caught
    assert finder.running == 0
    assert listing.closed == (1 if listing.read else listing.closed)
    assert finder.calls.total() <= listing.read


async def test_closing_the_targets_cancels_their_requests() -> None:
    """As the engine does at its deadline: requests end, the listing is closed, and nothing is left to wait for."""
    finder, listing = Finder(lambda _: anyio.sleep_forever()), Listing(accounts_of([WANTED] * 50))
    targets, ahead = read_ahead(listing, finder, 8)
    async with anyio.create_task_group() as tasks:
        ahead.start(tasks)
        ahead.open()
        iterator = targets.iterate()
        with anyio.move_on_after(0):
            await anext(iterator)  # type: ignore[arg-type]
        await anyio.wait_all_tasks_blocked()
        running = finder.running
        await iterator.aclose()  # type: ignore[union-attr]

    assert running == 8
    assert (finder.running, listing.closed) == (0, 1)
