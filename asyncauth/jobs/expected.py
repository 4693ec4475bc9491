"""Expected targets of a sync: the store notes accounts and regions before they are fetched."""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Iterable
from typing import TYPE_CHECKING, Final, Self

from asyncauth import Account
from asyncauth._aws.partitions import get_partition
from asyncauth._errors import ConfigurationError
from asyncauth._runs.targets import Targets, as_async
from asyncauth.stores import ExpectedTarget, ExpectsTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncauth import AccountLike

#: Accounts between two turns of the event loop.
_CHUNK: Final = 100


def noting_accounts(
    store: object, accounts: Iterable[AccountLike] | AsyncIterable[AccountLike], regions: Sequence[str] | None
) -> Iterable[AccountLike] | AsyncIterable[AccountLike]:
    """Return accounts that note themselves in the store when they are read; a collection is returned as it is.

    Args:
        store: the store; one that does not expect targets gets none.
        accounts: as for `pool.map`, which reports what is wrong with them.
        regions: as for `pool.map`.
    """
    if not isinstance(store, ExpectsTargets) or isinstance(accounts, Collection | Account):
        return accounts
    Targets(accounts, regions)  # refuses a consumed generator, which would look like an empty one below
    return _NotedAccounts(store, accounts, regions)


async def note_collection(store: object, accounts: object, regions: Sequence[str] | None) -> None:
    """Note the targets of all accounts of a collection; those of an iterator are noted when they are read."""
    if isinstance(store, ExpectsTargets) and isinstance(accounts, Collection):
        listed = list(accounts)
        for start in range(0, len(listed), _CHUNK):
            await store.expect(
                [each for given in listed[start : start + _CHUNK] for each in _targets_of(given, regions)]
            )


class _NotedAccounts:
    """Accounts of an iterator, each of which the store notes when it is read."""

    def __init__(
        self,
        store: ExpectsTargets,
        accounts: Iterable[AccountLike] | AsyncIterable[AccountLike],
        regions: Sequence[str] | None,
    ) -> None:
        self._store = store
        self._accounts = aiter(as_async(accounts))
        self._regions = regions

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AccountLike:
        given = await anext(self._accounts)
        expected = _targets_of(given, self._regions)
        if expected:
            await self._store.expect(expected)
        return given


def _targets_of(given: AccountLike, regions: Sequence[str] | None) -> list[ExpectedTarget]:
    try:
        targets = Targets([given], regions)
    except ConfigurationError:
        return []  # the run raises it, or has the account among the rejected ones
    is_certain = not targets.have_enabled
    return [
        ExpectedTarget(
            target.account.partition,
            target.account.id,
            target.region_name,
            is_certain or target.region_name == get_partition(target.account.partition).default_region,
        )
        for target in targets.all()
    ]
