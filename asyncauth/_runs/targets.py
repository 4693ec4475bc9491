"""Targets of a run: the pairs of account and region, in the order in which they were given."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

from asyncauth._aws.partitions import get_partition, is_pattern, partition_of_region, partitions
from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, as_account
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.validation import check_iterable

if TYPE_CHECKING:
    from asyncauth._models import AccountLike

logger: Final = logging.getLogger("asyncauth.pool")

#: Beginning of the reason of a target that no call can be made for, because no region of the run is in its partition.
NOT_IN_PARTITION: Final = "none of the regions is in partition"

_MAX_GIVEN_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Target:
    """One account in one region: the unit of work of a run, and the target in its events.

    Args:
        account: the account.
        region_name: the region.
        unreachable: the reason to skip the target, where none of the run's regions is in the account's partition, or
            the account is unavailable; `region_name` is then the partition's default region.
    """

    account: Account
    region_name: str
    unreachable: str | None = None


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
        regions: names, or patterns such as `us-*`. An account gets only those regions that are in its partition.
            None: each account's own `regions`, else its partition's default region.
        once: make each account one target, in its partition's default region.

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
    ) -> None:
        if isinstance(accounts, (str, Account)):
            raise ConfigurationError(
                f"accounts must be an iterable of accounts, got a single account: write [{accounts!r}]"
            )
        self.rejected: list[RejectedAccount] = []
        self._once = once
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
        """Number of targets; None if unknown because the accounts are an iterator."""
        if isinstance(self._accounts, Collection):
            return sum(len(self._targets_of(as_account(account))) for account in self._accounts)
        return None

    def all(self) -> list[Target]:
        """Return all targets. The accounts must be a sequence."""
        return list(self._iterate())

    def iterate(self) -> Iterator[Target] | AsyncIterator[Target]:
        """Return an iterator over the targets that reads an account only when its first target is requested."""
        return self._iterate_async() if isinstance(self._accounts, AsyncIterable) else self._iterate()

    def _iterate(self) -> Iterator[Target]:
        assert isinstance(self._accounts, Iterable)
        for given in self._accounts:
            yield from self._targets_of_item(given)

    async def _iterate_async(self) -> AsyncIterator[Target]:
        assert isinstance(self._accounts, AsyncIterable)
        async for given in self._accounts:
            for target in self._targets_of_item(given):
                yield target

    def _targets_of_item(self, given: AccountLike) -> list[Target]:
        try:
            account = as_account(given)
        except Exception as error:  # noqa: BLE001 - the class of the item can raise anything
            self.rejected.append(RejectedAccount(_shorten(given), strip_frame_locals(error)))
            return []
        return self._targets_of(account)

    def _targets_of(self, account: Account) -> list[Target]:
        partition = get_partition(account.partition)
        if account.unavailable is not None:
            return [Target(account, partition.default_region, unreachable=account.unavailable)]
        if self._once:
            return [Target(account, partition.default_region)]
        wanted = self._regions or account.regions or (partition.default_region,)
        names: dict[str, None] = {}
        for name in wanted:
            names |= dict.fromkeys(partition.match_regions(name) if is_pattern(name) else (name,))
        known = set(partition.regions)
        targets = [Target(account, name) for name in names if name in known]
        if targets:
            return targets
        reason = f"{NOT_IN_PARTITION} {account.partition}"
        others = [] if any(map(is_pattern, wanted)) else sorted({partition_of_region(name).name for name in wanted})
        if len(others) == 1 and account.partition == "aws":  # the default, which 12 digits alone have
            # Without the account's id: a report counts targets by their reason.
            reason += f"; an account of {others[0]} is written Account(id, partition={others[0]!r})"
        return [Target(account, partition.default_region, unreachable=reason)]


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


def _check_regions(regions: Iterable[str]) -> tuple[str, ...]:
    if isinstance(regions, str):
        raise ConfigurationError(f"regions must be a list of names, got the string {regions!r}; write [{regions!r}]")
    check_iterable("regions", regions, "a list of names")
    checked = tuple(regions)
    if not checked:
        raise ConfigurationError(
            "regions is empty; None means each account's own regions, else its partition's default region"
        )
    for name in checked:
        if not isinstance(name, str):
            raise ConfigurationError(f"regions must hold region names, got {name!r}")
        if not is_pattern(name):
            partition_of_region(name)
        elif not any(partition.match_regions(name) for partition in partitions().values()):
            raise ConfigurationError(f"the pattern {name!r} in regions matches no region of any partition")
    return checked
