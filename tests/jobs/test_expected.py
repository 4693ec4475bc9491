"""Expected targets: the store knows what a sync is to fetch before the run reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account, ConfigurationError
from asyncauth.cli.inventory_output import CountedStore
from asyncauth.jobs.expected import note_collection, noting_accounts
from asyncauth.stores import CsvStore, ExpectedTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.anyio

IDS = ["012345678901", "112345678901"]


class Noting:
    """Store that keeps what it is to expect."""

    def __init__(self) -> None:
        self.expected: list[ExpectedTarget] = []
        self.interrupted = False

    async def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        self.expected += targets

    async def interrupt(self) -> None:
        self.interrupted = True


async def test_a_collection_is_noted_before_the_run() -> None:
    """Each account has the regions of its partition, its own ones if the run has none; the run gets the collection."""
    store = Noting()
    accounts = [Account(IDS[0], regions=["eu-west-1", "eu-west-2"]), Account(IDS[1], partition="aws-cn"), "bad id"]

    assert noting_accounts(store, accounts, None) is accounts
    assert store.expected == []
    await note_collection(store, accounts, None)

    assert store.expected == [
        ("aws", IDS[0], "eu-west-1", True), ("aws", IDS[0], "eu-west-2", True), ("aws-cn", IDS[1], "cn-north-1", True),
    ]  # fmt: skip


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_of_enabled_regions_only_the_default_one_is_certain(partition: str) -> None:
    """AWS has not answered yet which regions the account has enabled."""
    store = Noting()

    await note_collection(store, [Account(IDS[0], partition=partition)], ["enabled"])

    certain = [target.region for target in store.expected if target.is_certain]
    assert certain == [{"aws": "us-east-1", "aws-cn": "cn-north-1"}[partition]]
    assert len(store.expected) > 1


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_account_of_an_iterator_is_noted_when_it_is_read(is_async: bool) -> None:
    """An account that was not read is not expected; an item that is no account is left to the run."""
    given: list[Any] = [IDS[0], "bad id", IDS[1]]

    async def listing() -> AsyncIterator[Any]:
        for each in given:
            yield each

    store, accounts = Noting(), listing() if is_async else iter(given)
    noted: Any = noting_accounts(store, accounts, ["us-east-1"])
    await note_collection(store, accounts, ["us-east-1"])
    read = [await anext(noted), await anext(noted)]

    assert read == given[:2]
    assert [target.account for target in store.expected] == IDS[:1]
    assert [each async for each in noted] == given[2:]
    assert [target.account for target in store.expected] == IDS


async def test_a_counted_store_passes_targets_and_the_end_on() -> None:
    """The command line counts what a store commits, and the store still learns what it is to expect."""
    store = Noting()
    counted: Any = CountedStore(store)  # type: ignore[arg-type]  # only what is passed on

    await note_collection(counted, IDS, ["us-east-1"])
    await counted.interrupt()

    assert [target.account for target in store.expected] == IDS
    assert store.interrupted


async def test_a_consumed_generator_is_refused(tmp_path: Path) -> None:
    """It would look like an empty fleet; a store that expects nothing gets the accounts as they are."""

    def listing() -> Iterator[str]:
        yield from IDS

    accounts = listing()
    assert noting_accounts(CsvStore(tmp_path / "csv"), accounts, None) is accounts
    assert list(accounts) == IDS

    with pytest.raises(ConfigurationError, match="was consumed before"):
        noting_accounts(Noting(), accounts, None)
