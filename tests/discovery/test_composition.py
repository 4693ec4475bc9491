"""Composition: accounts are chained, filtered and deduplicated one at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth import Account, ConfigurationError, Role
from asyncauth.discovery import chain, exclude, only, unique

pytestmark = pytest.mark.anyio

A, B, C = (Account(digit * 12) for digit in "123")


class Listing:
    """Async iterator of accounts that counts how far it was read, and whether it was closed."""

    def __init__(self, *accounts: Account) -> None:
        self.accounts = list(accounts)
        self.read = 0
        self.closed = False

    def __aiter__(self) -> Listing:
        return self

    async def __anext__(self) -> Account:
        if self.read == len(self.accounts):
            raise StopAsyncIteration
        self.read += 1
        return self.accounts[self.read - 1]

    async def aclose(self) -> None:
        self.closed = True


async def collect(accounts: AsyncIterator[Account]) -> list[Account]:
    return [account async for account in accounts]


async def test_a_chain_gives_all_in_order_and_each_once() -> None:
    """Lists, ids, role ARNs and async iterators are chained; what was already given is left out."""
    chained = chain([A, "222222222222"], Listing(B, C), ["arn:aws:iam::111111111111:role/deploy"])

    assert await collect(chained) == [A, B, C, Account("111111111111", role="deploy")]


async def test_an_account_and_role_is_one_however_the_role_is_written() -> None:
    """Path and name decide, not the type; the partition and another role make another account."""
    given = [
        Account(A.id, role="team/deploy"),
        Account(A.id, role=Role("deploy", path="/team/", duration_seconds=900)),
        Account(A.id, partition="aws-cn", role="team/deploy"),
        Account(A.id, role="deploy"),
        A,
        Account(A.id, name="again"),
    ]

    assert await collect(unique(given)) == [given[0], given[2], given[3], A]


async def test_an_id_is_excluded_everywhere_and_an_account_in_its_partition() -> None:
    """A bare id has no partition, so it excludes the account in all of them."""
    china = Account(A.id, partition="aws-cn")

    assert await collect(exclude([A, china, B], [A.id])) == [B]
    assert await collect(exclude([A, china, B], [china])) == [A, B]
    assert await collect(exclude([A, china, B], iter(["arn:aws:iam::222222222222:role/any"]))) == [A, china]


async def test_a_filter_can_be_async() -> None:
    """The predicate may be a function or an async function."""

    async def is_b(account: Account) -> bool:
        return account == B

    assert await collect(only([A, B, C], is_b)) == [B]
    assert await collect(only([A, B, C], lambda account: account != B)) == [A, C]


async def test_nothing_is_read_ahead_and_an_early_end_closes_the_source() -> None:
    """After one account, one was read; closing the outermost iterator closes the innermost."""
    listing = Listing(A, B, C)
    accounts = unique(exclude(only(chain(listing, [C]), lambda _: True), []))

    assert await anext(accounts) == A
    assert (listing.read, listing.closed) == (1, False)
    await accounts.aclose()  # type: ignore[attr-defined]

    assert (listing.read, listing.closed) == (1, True)


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        (lambda: chain(A), r"got a single one: write \[Account"),
        (lambda: chain("111111111111"), "got a single one"),
        (lambda: unique(3), "got int"),
        (lambda: exclude([A], "111111111111"), r"write \['111111111111'\]"),
        (lambda: exclude([A], ["12"]), "12 ASCII digits"),
        (lambda: only([A], True), "takes a function"),
    ],
)
async def test_a_mistake_is_found_at_the_call(compose, message) -> None:  # type: ignore[no-untyped-def]
    """Not only when the first account is read, which may be in another task."""
    with pytest.raises(ConfigurationError, match=message):
        compose()


@given(st.lists(st.sampled_from([A, B, C, Account(A.id, role="deploy")])), st.sets(st.sampled_from([A, B, C])))
def test_composition_equals_its_definition(given: list[Account], excluded: set[Account]) -> None:
    """The order is kept, exclusion and uniqueness leave what a comprehension leaves."""
    import anyio

    result = anyio.run(collect, unique(exclude(given, excluded)))

    ids = {account.id for account in excluded}
    assert result == list(dict.fromkeys(account for account in given if account.id not in ids))
