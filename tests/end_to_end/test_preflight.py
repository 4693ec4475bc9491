"""The preflight says who can be reached, and what it probably was where somebody cannot; statistics count it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError, UnknownServiceError

from asyncauth import Account, AssumeRoleError, ConfigurationError, Coverage, Keys, Role, SessionPool, Unreachable
from asyncauth._credentials.sts_errors import explain
from asyncauth._runs.preflight import probable_causes
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import count_instances, pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    denied = ["100000000002", "200000000001"]
    with SimulatedFleet({"aws": 20, "aws-cn": 3}, instances_per_region=0, denied=denied) as fleet:
        yield fleet


async def test_it_assumes_every_role_once_and_reports_coverage(fleet: SimulatedFleet) -> None:
    """Accounts of both partitions, each once whatever its regions; the run that follows assumes nothing again."""
    await fleet.reset_counts()
    async with pool_over(fleet) as pool:
        coverage = await pool.warm(fleet.accounts)
        assumed = (await fleet.counts()).calls("sts", "AssumeRole")
        await pool.map(who_am_i, coverage.reachable)

        statistics = pool.statistics()

    assert len(coverage.reachable) == 21
    assert coverage.share == 21 / 23
    assert [each.account.id for each in coverage.unreachable] == ["100000000002", "200000000001"]
    assert coverage.causes == {"trust policy": 2}
    assert coverage.summary().splitlines()[1] == (
        "  100000000002 (aws-0002): trust policy or missing role or external id"
    )
    assert coverage.summary().startswith("21 of 23 accounts can be reached (91%); ")
    assert assumed == 23
    assert (await fleet.counts()).calls("sts", "AssumeRole") == 23
    assert (statistics.tokens_assumed, statistics.tokens_failed, statistics.tokens_refreshing) == (21, 2, 0)
    # A denied role's slot is kept too, for its memory of the denial, and is no token.
    assert statistics.tokens_cached == 21
    assert statistics.targets["failed"] == 2
    assert statistics.targets["succeeded"] == 21 + sum(len(account.regions) for account in coverage.reachable)
    assert (statistics.targets_running, statistics.targets_waiting, statistics.throttled) == (0, 0, 0)
    assert sum(one.bound for one in statistics.clients.values()) >= 21
    assert any(rule.rate_limit.service == "sts" and rule.admitted for rule in statistics.rate_limits)
    assert statistics.endpoints_down == {}


async def test_services_are_made_ready(fleet: SimulatedFleet) -> None:
    """In each partition, so that the first job does not wait; a service that there is not is an error at once."""
    async with pool_over(fleet) as pool:
        await pool.warm(fleet.accounts, services=["ec2"])
        built = {name: clients.built for name, clients in pool.statistics().clients.items()}
        await pool.map(count_instances, fleet.accounts[-3:])

        assert set(built.values()) == {2}, "STS and EC2"
        assert {name: clients.built for name, clients in pool.statistics().clients.items()} == built
        with pytest.raises(UnknownServiceError):
            await pool.warm(fleet.accounts[:1], services=["ec3"])
        with pytest.raises(ConfigurationError, match="got the string 'ec2'"):
            await pool.warm(fleet.accounts[:1], services="ec2")


async def test_accounts_may_come_from_anywhere(fleet: SimulatedFleet) -> None:
    """A list, an iterator, an async iterator: each account is one target."""

    async def listed() -> AsyncIterator[Account]:
        for account in fleet.accounts[:3]:
            yield account

    async with pool_over(fleet) as pool:
        for accounts in (fleet.accounts[:3], iter(fleet.accounts[:3]), listed()):
            assert len((await pool.warm(accounts)).reachable) == 2


async def test_an_account_of_another_partition_and_a_bad_source(fleet: SimulatedFleet) -> None:
    """What is no denial of STS is told apart."""
    async with SessionPool(sources={"aws": fleet.keys()}, endpoint_url=fleet.endpoint_url) as pool:
        coverage = await pool.warm([account for account in fleet.accounts if account.partition == "aws-cn"])
    assert coverage.causes == {"wrong partition": 3}

    keys = Keys("AKIAIOSFODNN7EXAMPLE", "unknown")
    async with SessionPool(keys=keys, endpoint_url=fleet.endpoint_url) as pool:
        coverage = await pool.warm(fleet.accounts[:1])
    assert coverage.unreachable[0].causes == ("source", "wrong partition")


WHO = "User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::2:role/y"


@pytest.mark.parametrize(
    ("message", "external_id", "likeliest"),
    [
        (WHO, None, "trust policy"),
        (WHO, "outside", "external id"),
        (f"{WHO} with an explicit deny in a service control policy", None, "service control policy"),
        (f"{WHO} with an explicit deny in a resource control policy", None, "service control policy"),
        (f"{WHO} because no identity-based policy allows the sts:AssumeRole action", None, "source's own policy"),
        (f"{WHO} with an explicit deny in an identity-based policy", None, "source's own policy"),
        (f"{WHO} because no resource-based policy allows the sts:AssumeRole action", None, "trust policy"),
        ("MultiFactorAuthentication failed with invalid MFA one time pass code.", None, "MFA"),
        ("The account is suspended", None, "suspended account"),
        (f"{WHO[:-1]}MFA-admin-suspended", None, "trust policy"),
    ],
)
def test_what_sts_says_is_read(message: str, external_id: str | None, likeliest: str) -> None:
    """STS's own words tell an SCP, the source's policy and a trust policy apart, where it says more than no."""
    role = Role(external_id=external_id)
    denial = ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, "AssumeRole")
    error = explain(denial, role, Account("123456789012"), "us-east-1")
    error.__cause__ = denial

    assert probable_causes(error, role)[0] == likeliest


def test_of_many_accounts_a_summary_names_twenty() -> None:
    """The others are counted by their cause; repr names none."""
    unreachable = tuple(
        Unreachable(Account(f"{number:012}"), ("source",) if number < 4_990 else ("MFA",), AssumeRoleError("no"))
        for number in range(5_000)
    )
    coverage = Coverage((Account("123456789012"),), unreachable, 1.0)
    lines = coverage.summary().splitlines()

    assert lines[0] == "1 of 5,001 accounts can be reached (0%); 1.0 s"
    assert lines[1:21] == [f"  {number:012}: source" for number in range(20)]
    assert lines[21:] == ["  and 4,970 more: source, 10 more: MFA"]
    assert repr(coverage) == f"<Coverage {lines[0]}>"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("ValidationError", "role's settings"),
        ("MalformedPolicyDocument", "session policy"),
        ("EndpointConnectionError", "network"),
        ("LoadTimeout", "network"),
        ("InternalFailure", "unknown"),
    ],
)
def test_other_refusals_have_causes_too(code: str, cause: str) -> None:
    """By their code."""
    assert probable_causes(AssumeRoleError("no", code=code), Role()) == (cause,)
