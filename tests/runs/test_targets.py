"""Targets of a run: accounts times regions, without regions of another partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account
from asyncauth._runs.targets import Target, Targets

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
    with pytest.raises(ConfigurationError, match="'bad'"):
        next(iterator)


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
