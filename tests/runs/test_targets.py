"""Targets of a run: accounts times regions, without regions of another partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account
from asyncauth._runs.targets import RejectedAccount, Target, Targets

pytestmark = pytest.mark.anyio

GLOBAL, CHINA = Account("111111111111"), Account("222222222222", partition="aws-cn")


def pairs(targets: Targets) -> list[tuple[str, str]]:
    iterator = targets.iterate()
    assert isinstance(iterator, Iterator)
    return [(target.account.id, target.region_name) for target in iterator]


def test_without_regions_an_account_is_one_target_in_its_default_region() -> None:
    """The default in aws-cn is cn-north-1; an account's own regions take precedence over the default."""
    own = Account("333333333333", regions=("eu-west-1", "us-west-*"))

    targets = Targets([GLOBAL, CHINA, own], None)

    assert pairs(targets) == [
        ("111111111111", "us-east-1"),
        ("222222222222", "cn-north-1"),
        ("333333333333", "eu-west-1"),
        ("333333333333", "us-west-1"),
        ("333333333333", "us-west-2"),
    ]
    assert targets.total == 5


def test_a_region_of_another_partition_is_no_target() -> None:
    """One list of regions serves both partitions; each account gets the regions of its own partition."""
    targets = Targets([GLOBAL, CHINA], ["us-east-1", "cn-north-1", "eu-west-*", "us-east-1"])

    assert pairs(targets) == [
        ("111111111111", "us-east-1"),
        ("111111111111", "eu-west-1"),
        ("111111111111", "eu-west-2"),
        ("111111111111", "eu-west-3"),
        ("222222222222", "cn-north-1"),
    ]


def test_an_account_with_none_of_the_regions_is_one_unreachable_target() -> None:
    """No account is left out of the outcomes: this target carries the reason to skip it."""
    iterator = Targets([CHINA], ["us-east-1"]).iterate()
    assert isinstance(iterator, Iterator)

    assert list(iterator) == [Target(CHINA, "cn-north-1", unreachable="none of the regions is in partition aws-cn")]


@pytest.mark.parametrize(
    ("accounts", "regions", "message"),
    [
        (["123"], None, "exactly 12 ASCII digits"),
        ([{"Id": "123456789012"}], None, r"Account\(record\['Id'\], name=record\['Name'\]\)"),
        ([" 1234-5678-9012\n"], None, r"did you mean '123456789012'\?"),
        ([GLOBAL], ["US-EAST-1"], r"unknown region 'US-EAST-1' \(did you mean us-east-1\?\)"),
        ("123456789012", None, r"write \['123456789012'\]"),
        (GLOBAL, None, "got a single"),
        (7, None, "must be an iterable"),
        ([GLOBAL], "us-east-1", r"write \['us-east-1'\]"),
        ([GLOBAL], [], "regions is empty"),
        ([GLOBAL], ["us-foo-9"], "unknown region 'us-foo-9'"),
        ([GLOBAL], ["mars-*"], "matches no region"),
        ([GLOBAL], [7], "must hold region names"),
    ],
)
def test_bad_accounts_and_regions_are_refused_before_the_run(accounts: object, regions: object, message: str) -> None:
    """The error names the value and, where there is one, the correction."""
    with pytest.raises(ConfigurationError, match=message):
        Targets(accounts, regions)  # type: ignore[arg-type]


def test_repeated_accounts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each repetition is a target, which a job that changes something may not expect."""
    targets = Targets([GLOBAL, GLOBAL, f"arn:aws:iam::{GLOBAL.id}:role/other", "222222222222"])

    assert targets.total == 4
    assert caplog.messages == [
        f"1 accounts are given more than once ({GLOBAL.id}); each repetition is a target of its own"
    ]


def test_an_iterator_is_not_read_ahead() -> None:
    """Its length is unknown, and an account is read only when its first target is requested."""
    read = []

    def listing() -> Iterator[str]:
        for account in ("111111111111", "222222222222", "bad"):
            read.append(account)
            yield account

    targets = Targets(listing(), ["us-east-1"])
    iterator = targets.iterate()
    assert isinstance(iterator, Iterator)

    assert targets.total is None
    assert read == []
    assert next(iterator).account.id == "111111111111"
    assert read == ["111111111111"]
    next(iterator)
    assert targets.rejected == []
    assert list(iterator) == []
    assert [(each.given, type(each.error)) for each in targets.rejected] == [("bad", ConfigurationError)]


BAD = ["1.00000000011E+11", 123, "x" * 100, {"Id": "1" * 200}, None]


def check_rejected(rejected: list[RejectedAccount]) -> None:
    assert [each.given for each in rejected] == ["1.00000000011E+11", "123", "x" * 80, "{'Id': '" + "1" * 72, "None"]
    for each in rejected:
        assert isinstance(each.error, ConfigurationError)
        trace = each.error.__traceback__
        while trace is not None:
            assert trace.tb_frame.f_locals == {}, "the error keeps local variables"
            trace = trace.tb_next


def test_a_bad_item_of_an_iterator_is_rejected() -> None:
    """It has no target; `rejected` has its first 80 characters and its error, and the other items have targets."""
    targets = Targets(iter([GLOBAL, *BAD, CHINA]))  # type: ignore[list-item]
    found = pairs(targets)

    assert found == [("111111111111", "us-east-1"), ("222222222222", "cn-north-1")]
    check_rejected(targets.rejected)


async def test_a_bad_item_of_an_async_iterator_is_rejected() -> None:
    """As in an iterator."""

    async def listing() -> AsyncIterator[Account | str]:
        for item in (GLOBAL, *BAD, CHINA):
            yield item  # type: ignore[misc]

    targets = Targets(listing())
    iterator = targets.iterate()
    assert isinstance(iterator, AsyncIterator)
    found = [target.account async for target in iterator]

    assert found == [GLOBAL, CHINA]
    check_rejected(targets.rejected)


def test_an_item_whose_repr_fails_is_rejected_by_its_class() -> None:
    """No item ends the run."""

    class Broken:
        def __repr__(self) -> str:
            raise ValueError

    targets = Targets(iter([Broken()]))  # type: ignore[list-item]

    assert pairs(targets) == []
    assert [each.given for each in targets.rejected] == ["<Broken>"]


@pytest.mark.parametrize("kind", [list, tuple, set, dict.fromkeys])
def test_all_bad_items_of_a_collection_are_named_at_once(kind: type) -> None:
    """The error has the position and the mistake of each."""
    accounts = kind(["111111111111", "first bad", "222222222222", "second bad"])

    with pytest.raises(ConfigurationError) as refused:
        Targets(accounts)

    lines = str(refused.value).splitlines()
    assert lines[0] == "2 of 4 accounts are invalid:"
    assert sorted(("first bad" in line, "second bad" in line) for line in lines[1:]) == [(False, True), (True, False)]
    if kind is not set:
        assert [line.split()[0] for line in lines[1:]] == ["[1]", "[3]"]


def test_a_consumed_generator_is_refused() -> None:
    """A run over it would look like a success without targets."""

    def listing() -> Iterator[str]:
        yield "111111111111"

    accounts = listing()
    assert pairs(Targets(accounts)) == [("111111111111", "us-east-1")]

    with pytest.raises(ConfigurationError, match="the generator listing, which was consumed before"):
        Targets(accounts)


async def test_a_consumed_async_generator_is_refused() -> None:
    """As a consumed generator is."""

    async def listing() -> AsyncIterator[str]:
        yield "111111111111"

    accounts = listing()
    assert [account async for account in accounts] == ["111111111111"]

    with pytest.raises(ConfigurationError, match="the generator listing, which was consumed before"):
        Targets(accounts)


async def test_accounts_may_be_listed_asynchronously() -> None:
    """An async iterable of accounts gives the same targets as a sequence."""

    async def listing() -> AsyncIterator[Account | str]:
        yield GLOBAL
        yield "arn:aws-cn:iam::222222222222:role/ops/deploy"

    iterator = Targets(listing(), ["*-1"]).iterate()
    assert isinstance(iterator, AsyncIterator)
    found = [target async for target in iterator]

    assert {target.account.partition for target in found} == {"aws", "aws-cn"}
    assert all(target.region_name.endswith("-1") for target in found)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_confirmed_run_reads_at_most_100_000_accounts(is_async: bool) -> None:
    """One more is an error, and no further account is read; exactly so many are a plan."""
    read = 0

    def listing(count: int) -> Iterator[Account]:
        nonlocal read
        for _ in range(count):
            read += 1
            yield GLOBAL

    async def listing_async(count: int) -> AsyncIterator[Account]:
        for account in listing(count):
            yield account

    many = Targets((listing_async if is_async else listing)(100_050))
    with pytest.raises(
        ConfigurationError, match="reads all accounts before the run, and accounts has more than 100,000"
    ):
        await many.read_accounts()
    assert read == 100_001

    enough = Targets((listing_async if is_async else listing)(100_000))
    await enough.read_accounts()
    assert enough.total == len(enough.all()) == 100_000
