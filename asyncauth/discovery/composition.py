"""Composition of accounts: iterators that chain, filter and deduplicate others, one account at a time.

None of them reads ahead. Leaving one early closes what it reads from.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, Role, as_account

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncauth._models import AccountLike

#: Accounts, ids or role ARNs, from any iterable or async iterable.
Accounts: TypeAlias = "Iterable[AccountLike] | AsyncIterable[AccountLike]"


def chain(*accounts: Accounts) -> AsyncIterator[Account]:
    """Return the accounts of several iterables one after the other; what was already given is left out.

    Args:
        accounts: any iterables or async iterables of accounts, ids or role ARNs.

    Raises:
        ConfigurationError: one of the arguments is no iterable, or a single account.

    Example:
        everywhere = chain(organization_accounts(session), file_accounts("vendors.csv"))
        report = await pool.map(job, everywhere)
    """
    for each in accounts:
        _check(each)
    return unique(_chain(accounts))


def only(
    accounts: Accounts, predicate: Callable[[Account], bool] | Callable[[Account], Awaitable[bool]]
) -> AsyncIterator[Account]:
    """Return the accounts for which a function, or an async function, returns true.

    Example:
        production = only(accounts, lambda account: account.tags.get("stage") == "production")
    """
    _check(accounts)
    if not callable(predicate):
        raise ConfigurationError(f"only() takes a function of an account, got {predicate!r}")
    return _only(accounts, predicate)


def exclude(accounts: Accounts, excluded: Iterable[AccountLike]) -> AsyncIterator[Account]:
    """Return the accounts without those of a list.

    Args:
        accounts: any iterable or async iterable of accounts.
        excluded: a 12-digit id excludes the account in every partition; an `Account` or a role ARN in its own.

    Raises:
        ConfigurationError: an id is invalid, or `excluded` is a single one.

    Example:
        others = exclude(accounts, ["111111111111"])
    """
    _check(accounts)
    if isinstance(excluded, str | Account):
        raise ConfigurationError(f"exclude() takes a list of accounts, got a single one: write [{excluded!r}]")
    # A list, read to its end: a generator could not be read again for each account.
    keys = {_exclusion_key(each) for each in excluded}
    return _only(accounts, lambda account: account.id not in keys and (account.partition, account.id) not in keys)


def unique(accounts: Accounts) -> AsyncIterator[Account]:
    """Return the accounts, each account and role once: the first one given is the one returned.

    Accounts that act as their source, without a role, are the same if the source is.

    Example:
        report = await pool.map(job, unique(read_accounts()))
    """
    _check(accounts)
    seen: set[Hashable] = set()

    def is_new(account: Account) -> bool:
        key = account_key(account)
        if key in seen:
            return False
        seen.add(key)
        return True

    return _only(accounts, is_new)


def account_key(account: Account) -> Hashable:
    """Return what makes two accounts the same one: partition, id and role, and the source if there is no role."""
    role: object = account.role
    if isinstance(role, Role):
        path, name = role.path, role.name
    elif isinstance(role, str):
        before, _, name = role.removeprefix("/").rpartition("/")
        path = f"/{before}/" if before else "/"
    else:
        source = getattr(account, "source", None)
        return (account.partition, account.id, role, source if isinstance(source, Hashable) else id(source))
    return (account.partition, account.id, path, name)


async def iterate(accounts: Accounts) -> AsyncGenerator[Account, None]:
    """Return the accounts of an iterable or async iterable as `Account`s, and close it in the end."""
    if isinstance(accounts, AsyncIterable):
        source = aiter(accounts)
        try:
            async for each in source:
                yield as_account(each)
        finally:
            aclose = getattr(source, "aclose", None)
            if aclose is not None:
                await aclose()
    else:
        for each in accounts:
            yield as_account(each)


async def _chain(parts: Iterable[Accounts]) -> AsyncIterator[Account]:
    for part in parts:
        async with aclosing(iterate(part)) as accounts:
            async for account in accounts:
                yield account


async def _only(
    accounts: Accounts, predicate: Callable[[Account], bool] | Callable[[Account], Awaitable[bool]]
) -> AsyncIterator[Account]:
    async with aclosing(iterate(accounts)) as given:
        async for account in given:
            kept = predicate(account)
            if await kept if inspect.isawaitable(kept) else kept:
                yield account


def _exclusion_key(excluded: AccountLike) -> Hashable:
    account = as_account(excluded)
    return account.id if excluded == account.id else (account.partition, account.id)


def _check(accounts: object) -> None:
    if isinstance(accounts, str | Account):
        raise ConfigurationError(f"accounts must be an iterable of accounts, got a single one: write [{accounts!r}]")
    if not isinstance(accounts, Iterable | AsyncIterable):
        raise ConfigurationError(f"accounts must be an iterable or async iterable, got {type(accounts).__name__}")
