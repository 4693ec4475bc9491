"""Targets of a run: the pairs of account and region, in the order in which they were given."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeGuard

import anyio.lowlevel

from asyncauth._aws.partitions import get_partition, is_pattern, partition_of_region
from asyncauth._aws.region_selection import RegionSelection, parse_selection
from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, as_account
from asyncauth._runs.read_ahead import ReadAhead
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.validation import check_iterable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth._models import AccountLike
    from asyncauth._runs.regions import EnabledRegions, FindRegions, RegionsFrom
    from asyncauth._runtime.clock import Clock

logger: Final = logging.getLogger("asyncauth.pool")

#: Beginning of the reason of a target that no call can be made for, because no region of the run is in its partition.
NOT_IN_PARTITION: Final = "none of the regions is in partition"

#: Reason of a target that no call can be made for, because the selection excludes all regions of its account.
ALL_EXCLUDED: Final = "all its regions are excluded"

#: Accounts that a run with `confirm=` reads from an iterator before it starts.
MAX_CONFIRMED_ACCOUNTS: Final = 100_000
_MAX_GIVEN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Target:
    """One account in one region: the unit of work of a run, and the target in its events.

    Args:
        account: the account.
        region_name: the region.
        unreachable: the reason to skip the target, where none of the run's regions is in the account's partition, or
            the account is unavailable; `region_name` is then the partition's default region.
        regions_from: where the enabled regions of the account are from; None if they were not requested.
    """

    account: Account
    region_name: str
    unreachable: str | None = None
    regions_from: RegionsFrom | None = None


class RejectedAccount(NamedTuple):
    """Item of an iterator of accounts that is no valid account, so the run has no target for it.

    Args:
        given: the item, or its repr() if it is no string; its first 80 characters.
        error: what is wrong with it, usually a ConfigurationError.
    """

    given: str
    error: Exception


class Targets:
    """The targets of a run: regions are checked once, accounts are read only as they are needed.

    Args:
        accounts: accounts, 12-digit ids or role ARNs, from any iterable or async iterable. A sequence is checked as a
            whole before the run starts. The items of an iterator are checked as they are read; one that is no valid
            account is added to `rejected`. An account that is given twice is twice as many targets; in a sequence
            this is logged.
        regions: names, patterns such as `us-*`, `enabled`, `!ap-*` to exclude some, or `global` alone. An account gets
            only those regions that are in its partition. None: each account's own `regions`, else its partition's
            default region.
        once: make each account one target, in its partition's default region.
        find_regions: finds the regions of an account that has `enabled`, when the account is read; None: all regions of
            its partition, without a call.

    Raises:
        ConfigurationError: bad accounts in a sequence, all of them in one error; a consumed generator; an unknown
            region, or a pattern that matches no region.

    Attributes:
        rejected: the items of an iterator that are no valid accounts, read so far.
    """

    def __init__(
        self,
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Iterable[str] | None = None,
        *,
        once: bool = False,
        find_regions: FindRegions | None = None,
    ) -> None:
        if isinstance(accounts, (str, Account)):
            raise ConfigurationError(
                f"accounts must be an iterable of accounts, got a single account: write [{accounts!r}]"
            )
        self.rejected: list[RejectedAccount] = []
        self._once = once
        self._find_regions = find_regions
        self._ahead: ReadAhead | None = None
        self._regions = None if regions is None else _check_regions(regions)
        if isinstance(accounts, Collection):
            accounts = _check_accounts(accounts)
            _warn_of_repeats(accounts)
        elif not isinstance(accounts, Iterable | AsyncIterable):
            raise ConfigurationError(f"accounts must be an iterable or async iterable, got {type(accounts).__name__}")
        elif _is_consumed(accounts):
            raise ConfigurationError(
                f"accounts is the generator {accounts.__name__}, which was consumed before: call its function again "
                "for each run, or pass a list"
            )
        self._accounts: Iterable[AccountLike] | AsyncIterable[AccountLike] = accounts

    @property
    def total(self) -> int | None:
        """Number of targets; None if unknown because the accounts are an iterator, or their regions need a call."""
        if isinstance(self._accounts, Collection) and not self.have_enabled:
            return len(self.all())
        return None

    @property
    def have_enabled(self) -> bool:
        """Whether the number of an account's regions is known only after a call. Accounts not yet read do not count."""
        if self._once:
            return False
        if self._regions is not None:
            return self._regions.has_enabled
        return isinstance(self._accounts, Collection) and any(
            "enabled" in account.regions for account in map(as_account, self._accounts)
        )

    def all(self) -> list[Target]:
        """Return all targets, with all regions of the partition for `enabled`. The accounts must be a sequence."""
        assert isinstance(self._accounts, Collection)
        return [target for account in self._accounts for target in self.targets_of(as_account(account))]

    async def read_accounts(self) -> None:
        """Read an iterator of accounts to its end; afterwards the accounts are a sequence.

        Raises:
            ConfigurationError: there are more than `MAX_CONFIRMED_ACCOUNTS`.
        """
        if isinstance(self._accounts, Collection):
            return
        read: list[Account] = []
        async for given in as_async(self._accounts):
            if (account := self._as_account(given)) is not None:
                read.append(account)
            if len(read) > MAX_CONFIRMED_ACCOUNTS:
                raise ConfigurationError(
                    f"confirm= reads all accounts before the run, and accounts has more than {MAX_CONFIRMED_ACCOUNTS:,}"
                )
        self._accounts = read

    def expect_no_run(self) -> None:
        """Make no calls for regions any more, because every target will be skipped."""
        self._find_regions = None

    def iterate(self) -> Iterator[Target] | AsyncIterator[Target]:
        """Return an iterator over the targets that reads an account only when its first target is requested.

        It is asynchronous if the accounts are, or if a call may be needed for the regions of an account.
        """
        may_need_calls = self._find_regions is not None and self._may_need_calls
        needs_async = may_need_calls or isinstance(self._accounts, AsyncIterable)
        return _TargetReader(self) if needs_async else self._iterate()

    def read_ahead(self, limit: int, clock: Clock) -> ReadAhead | None:
        """Return what finds the regions of up to `limit` accounts at once, for the iterator; None if none need a call.

        The caller starts it in a task group that lives as long as the iterator. Without it, the iterator finds the
        regions of one account at a time.
        """
        if self._find_regions is None or not self._may_need_calls:
            return None
        self._ahead = ReadAhead(
            self._accounts,
            as_account=self._as_account,
            needs_request=self._needs_request,
            find=self._find_regions,
            limit=limit,
            clock=clock,
        )
        return self._ahead

    def accounts_with_regions(self) -> _AccountReader | ReadAhead:
        """Return an iterator over the accounts with their enabled regions; None where they need no call."""
        return self._ahead or _AccountReader(as_async(self._accounts), self._next_account)

    def _iterate(self) -> Iterator[Target]:
        assert isinstance(self._accounts, Iterable)
        for given in self._accounts:
            if (account := self._as_account(given)) is not None:
                yield from self.targets_of(account)

    @property
    def _may_need_calls(self) -> bool:
        unread = self._regions is None and not self._once and not isinstance(self._accounts, Collection)
        return unread or self.have_enabled

    async def _next_account(self, given: AsyncIterator[AccountLike]) -> tuple[Account, EnabledRegions | None]:
        while (account := self._as_account(await anext(given))) is None:
            pass
        find = self._find_regions
        return account, await find(account) if find and self._needs_request(account) else None

    def _needs_request(self, account: Account) -> bool:
        return account.unavailable is None and self._selection(account).has_enabled

    def _as_account(self, given: AccountLike) -> Account | None:
        try:
            return as_account(given)
        except Exception as error:  # noqa: BLE001 - the class of the item can raise anything
            self.rejected.append(RejectedAccount(_shorten(given), strip_frame_locals(error)))
            return None

    def _selection(self, account: Account) -> RegionSelection:
        partition = get_partition(account.partition)
        if self._once or not (self._regions or account.regions):
            return RegionSelection((partition.default_region,))
        return self._regions or _parse_own(tuple(account.regions))

    def targets_of(self, account: Account, found: EnabledRegions | None = None) -> list[Target]:
        """Return the targets of an account; `found` are its enabled regions, all of its partition if None."""
        partition, selection = get_partition(account.partition), self._selection(account)
        if account.unavailable is not None:
            return [Target(account, partition.default_region, unreachable=account.unavailable)]
        names = selection.names(partition, partition.regions if found is None else found.names)
        regions_from = None if found is None else found.source
        if names:
            return [Target(account, name, regions_from=regions_from) for name in names]
        if selection.excluded and RegionSelection(selection.wanted).names(partition, partition.regions):
            return [Target(account, partition.default_region, ALL_EXCLUDED, regions_from)]
        wanted = selection.wanted
        reason = f"{NOT_IN_PARTITION} {account.partition}"
        others = [] if any(map(is_pattern, wanted)) else sorted({partition_of_region(name).name for name in wanted})
        if len(others) == 1 and account.partition == "aws":  # the default, which 12 digits alone have
            # Without the account's id: a report counts targets by their reason.
            reason += f"; an account of {others[0]} is written Account(id, partition={others[0]!r})"
        return [Target(account, partition.default_region, unreachable=reason)]


class _TargetReader:
    """Async iterator over targets, account by account.

    It is no generator, so its `aclose` closes the accounts' iterator also after a wait for it was cancelled.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._accounts: _AccountReader | ReadAhead | None = None
        self._left: deque[Target] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Target:
        if self._accounts is None:
            self._accounts = self._targets.accounts_with_regions()
        while not self._left:
            account, found = await anext(self._accounts)
            self._left.extend(self._targets.targets_of(account, found))
        return self._left.popleft()

    async def aclose(self) -> None:
        """Close the accounts' iterator."""
        if self._accounts is not None:
            await self._accounts.aclose()


class _AccountReader:
    """Async iterator over accounts with their regions, one account at a time."""

    def __init__(
        self,
        accounts: AsyncIterable[AccountLike],
        read: Callable[[AsyncIterator[AccountLike]], Awaitable[tuple[Account, EnabledRegions | None]]],
    ) -> None:
        self._accounts = aiter(accounts)
        self._read = read

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Account, EnabledRegions | None]:
        return await self._read(self._accounts)

    async def aclose(self) -> None:
        """Close the accounts' iterator, if it can be closed."""
        if (aclose := getattr(self._accounts, "aclose", None)) is not None:
            await aclose()


class _AsyncReader:
    """Async iterator over an iterable. Unlike an async generator, it needs no closing.

    The event loop runs between two items, so a slow iterable blocks it for no longer than one item takes.
    """

    def __init__(self, accounts: Iterable[AccountLike]) -> None:
        self._accounts = iter(accounts)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AccountLike:
        await anyio.lowlevel.checkpoint()
        for account in self._accounts:
            return account
        raise StopAsyncIteration


def as_async(accounts: Iterable[AccountLike] | AsyncIterable[AccountLike]) -> AsyncIterable[AccountLike]:
    """Return accounts as an async iterable."""
    return accounts if isinstance(accounts, AsyncIterable) else _AsyncReader(accounts)


def _check_accounts(accounts: Collection[AccountLike]) -> list[Account]:
    checked: list[Account] = []
    errors: dict[int, ConfigurationError] = {}
    for position, given in enumerate(accounts):
        try:
            checked.append(as_account(given))
        except ConfigurationError as error:
            errors[position] = error
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        lines = [f"\n  [{position}] {error}" for position, error in errors.items()]
        raise ConfigurationError(f"{len(errors)} of {len(accounts)} accounts are invalid:{''.join(lines)}")
    return checked


def _is_consumed(accounts: object) -> TypeGuard[GeneratorType[Any, Any, Any] | AsyncGeneratorType[Any, Any]]:
    # The frame of a generator is dropped when the generator ends.
    return (isinstance(accounts, GeneratorType) and accounts.gi_frame is None) or (
        isinstance(accounts, AsyncGeneratorType) and accounts.ag_frame is None
    )


def _shorten(given: object) -> str:
    try:
        text = given if isinstance(given, str) else repr(given)
    except Exception:  # noqa: BLE001 - the class of the item can raise anything
        text = f"<{type(given).__name__}>"
    return text[:_MAX_GIVEN_CHARACTERS]


def _warn_of_repeats(accounts: Sequence[Account]) -> None:
    repeated = [key for key, count in Counter((one.partition, one.id) for one in accounts).items() if count > 1]
    if repeated:
        named = ", ".join(account_id for _, account_id in repeated[:3])
        logger.warning(
            "%d accounts are given more than once (%s%s); each repetition is a target of its own",
            len(repeated),
            named,
            ", ..." if len(repeated) > 3 else "",
        )


@lru_cache(maxsize=256)  # accounts usually have one of few selections
def _parse_own(regions: tuple[str, ...]) -> RegionSelection:
    return parse_selection(regions)


def _check_regions(regions: Iterable[str]) -> RegionSelection:
    if isinstance(regions, str):
        raise ConfigurationError(f"regions must be a list of names, got the string {regions!r}; write [{regions!r}]")
    check_iterable("regions", regions, "a list of names")
    checked = tuple(regions)
    if not checked:
        raise ConfigurationError(
            "regions is empty; None means each account's own regions, else its partition's default region"
        )
    return parse_selection(checked)
