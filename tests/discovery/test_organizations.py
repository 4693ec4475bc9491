"""Organizations: complete and exact under throttling and empty pages, with the fewest calls, in both partitions."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from asyncauth import SELF, Account, AccountSession, ConfigurationError
from asyncauth._pool import resources
from asyncauth._resilience.adaptive_bucket import AdaptiveRateConfig
from asyncauth._resilience.rate_limits import DEFAULT_RATE_LIMITS, RateLimitRule
from asyncauth.discovery import chain, organization_accounts
from asyncauth.testing import Organization, OrganizationalUnit, SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

PARTITIONS = ["aws", "aws-cn"]


def members(partition: str, count: int) -> list[Account]:
    """Return accounts of a fleet, with the same names in every partition."""
    first = 100_000_000_001 if partition == "aws" else 200_000_000_001
    return [Account(str(first + n), partition=partition, name=f"account-{n}") for n in range(count)]


def tree(accounts: list[Account], **options: Any) -> Organization:
    """Return an organization with units three levels deep; the accounts are spread over all of them."""
    ids = [account.id for account in accounts]
    parts = [ids[n::13] for n in range(13)]
    units = [
        OrganizationalUnit(
            f"top-{a}",
            accounts=parts[1 + a * 6],
            units=[
                OrganizationalUnit(
                    f"middle-{b}",
                    accounts=parts[2 + a * 6 + b * 2],
                    units=[OrganizationalUnit("deep", accounts=parts[3 + a * 6 + b * 2])],
                )
                for b in range(2)
            ],
        )
        for a in range(2)
    ]
    return Organization(units=units, **options)


UNITS = 10

#: How many times faster than AWS the fleet accepts calls, and the pool begins: the shape of a run, in less time.
#: With 1 it is AWS's pace: the pool begins with 10 calls a second, and the fleet accepts 5 after a burst of 10.
FASTER = float(os.environ.get("ASYNCAUTH_TEST_FASTER", "20"))


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with more calls of Organizations than the 10 a second of a pool, which learns its rate from there."""
    rules = [
        RateLimitRule(
            replace(rule.rate_limit, rate=100 * FASTER), AdaptiveRateConfig(start=10 * FASTER, recovery=2 / FASTER)
        )
        if rule.rate_limit.service == "organizations"
        else rule
        for rule in DEFAULT_RATE_LIMITS
    ]
    monkeypatch.setattr(resources, "RateLimiters", partial(resources.RateLimiters, defaults=rules))


@asynccontextmanager
async def lister(fleet: SimulatedFleet, partition: str = "aws") -> AsyncIterator[AccountSession]:
    """Open a session of the management account itself."""
    async with pool_over(fleet, allow_long_term=True) as pool:
        yield await pool.source_session(partition)


async def collect(accounts: AsyncIterator[Account]) -> list[Account]:
    return [account async for account in accounts]


def can_have_paths() -> bool:
    """Return whether the installed botocore knows the paths of accounts."""
    from botocore.session import Session

    return "Paths" in Session().get_service_model("organizations").shape_for("Account").members


@pytest.mark.parametrize("with_paths", [True, False])
async def test_two_thousand_accounts_under_throttling_are_complete(with_paths: bool) -> None:
    """Throttled after a burst of 10, with empty pages and one ServiceException: each once, with the fewest calls."""
    accounts = members("aws", 1999)
    suspended = [account.id for account in accounts[::50]]
    organization = tree(accounts, with_paths=with_paths, empty_page_every=7)
    async with (
        SimulatedFleet(accounts, organization=organization, suspended=suspended) as fleet,
        lister(fleet) as session,
    ):
        await fleet.limit(service="organizations", per_second=5 * FASTER, burst=10, shared=True)
        await fleet.fault("error", service="organizations", code="ServiceException", status=400, times=1)
        found = await collect(organization_accounts(session, parents=[fleet.parent_id()]))
        counts = await fleet.counts()
        management = fleet.management().id

    assert len(suspended) == 40
    assert Counter(account.id for account in found) == Counter([management, *(account.id for account in accounts)])
    assert {account.id: account.unavailable for account in found if account.unavailable} == dict.fromkeys(
        suspended, "the account's state is SUSPENDED"
    )
    listed = counts.calls("organizations", "ListAccounts", code="")
    walked = sum(
        counts.calls("organizations", action, code="")
        for action in ("ListAccountsForParent", "ListOrganizationalUnitsForParent")
    )
    if with_paths and can_have_paths():
        # Every seventh page is empty: 100 pages with accounts in 116.
        assert (listed, walked) == (116, 0)
    else:
        assert listed == (1 if can_have_paths() else 0)
        assert walked <= (100 + 2 * UNITS) * 7 / 6
    assert counts.calls("organizations", code="ServiceException") == 1
    assert counts.calls("organizations", code="TooManyRequestsException") > 0
    assert counts.calls("organizations", "DescribeAccount") == 0
    assert counts.calls("organizations", "ListTagsForResource") == 0
    assert counts.calls("organizations", "ListChildren") == 0


async def test_two_thousand_accounts_are_a_hundred_calls() -> None:
    """Without faults there is one call for every twenty accounts, and the first account needs one."""
    accounts = members("aws", 1999)
    async with SimulatedFleet(accounts, organization=tree(accounts)) as fleet, lister(fleet) as session:
        await fleet.reset_counts()
        listing = organization_accounts(session)
        await anext(listing)
        first = (await fleet.counts()).calls("organizations")
        rest = await collect(listing)
        counts = await fleet.counts()

    assert first == 1
    assert len(rest) == 1999
    assert counts.calls("organizations") == counts.calls("organizations", "ListAccounts") == 100


@pytest.mark.parametrize("partition", PARTITIONS)
async def test_a_walk_of_the_tree_is_a_hundred_calls_and_two_for_each_unit(partition: str) -> None:
    """Without paths, in all units: the exact number of calls, of which one finds out that there are no paths."""
    accounts = members(partition, 1999)
    organization = {partition: tree(accounts, with_paths=False)}
    async with SimulatedFleet(accounts, organization=organization) as fleet, lister(fleet, partition) as session:
        root = fleet.parent_id("", partition)
        await fleet.reset_counts()
        found = await collect(organization_accounts(session, parents=[root]))
        counts = await fleet.counts()
        await fleet.reset_counts()
        others = await collect(organization_accounts(session, exclude=[fleet.parent_id("top-0", partition)]))
        excluding = await fleet.counts()

    assert Counter(account.id for account in found) == Counter([session.account.id, *(one.id for one in accounts)])
    assert counts.calls("organizations", "ListAccounts") == (1 if can_have_paths() else 0)
    assert counts.calls("organizations", "ListOrganizationalUnitsForParent") == UNITS + 1
    sizes = Counter(account.facts["parent"] for account in found)
    assert counts.calls("organizations", "ListAccountsForParent") == sum(-(-size // 20) for size in sizes.values())
    assert counts.calls("organizations") <= 100 + 2 * UNITS
    inside = {account.id for part in range(1, 6) for account in accounts[part::13]}
    assert {account.id for account in others} == {account.id for account in found} - inside
    assert excluding.calls("organizations", "ListRoots") == 1
    assert excluding.calls("organizations") < counts.calls("organizations")


@pytest.mark.parametrize("partition", PARTITIONS)
async def test_a_selection_of_units_and_accounts(partition: str) -> None:
    """Parents and exclusions select by the tree, with paths and without, and facts name the place."""
    accounts = members(partition, 27)
    for with_paths in (True, False):
        organization = {partition: tree(accounts, with_paths=with_paths)}
        async with (
            SimulatedFleet(accounts, organization=organization) as fleet,
            lister(fleet, partition) as session,
        ):
            top, middle, deep = (
                fleet.parent_id(path, partition) for path in ("top-0", "top-0/middle-0", "top-0/middle-0/deep")
            )
            below = await collect(organization_accounts(session, parents=[top, deep], exclude=[middle, accounts[1].id]))
            only_deep = await collect(organization_accounts(session, parents=[deep]))
            without = await collect(organization_accounts(session, exclude=[top]))
            organization_id = fleet.organization_id(partition)

        spread = {unit: [account.id for account in accounts[unit::13]] for unit in range(13)}
        assert {account.id for account in below} == {*spread[1], *spread[4], *spread[5]} - {accounts[1].id}
        assert {account.id for account in only_deep} == set(spread[3])
        inside = {one for unit in range(1, 6) for one in spread[unit]}
        assert {account.id for account in without} == (
            {account.id for account in accounts} | {session.account.id}
        ) - inside
        (first, *_) = only_deep
        assert first.partition == partition
        assert first.name == "account-3"
        assert first.facts["parent"] == deep
        assert first.facts["organization_id"] == organization_id
        assert first.facts["email"] == f"{first.id}@simulated.example"
        assert first.facts["joined"].startswith("2024-01-01T")
        if with_paths and can_have_paths():
            assert first.facts["path"].split("/") == [
                organization_id,
                fleet.parent_id("", partition),
                top,
                middle,
                deep,
            ]


async def test_states_are_reasons() -> None:
    """An account in a state that is not wanted is unavailable with that state, whatever the state is."""
    accounts = members("aws", 5)
    states = dict(
        zip(
            [account.id for account in accounts],
            ["PENDING_ACTIVATION", "SUSPENDED", "PENDING_CLOSURE", "CLOSED"],
            strict=False,
        )
    )
    async with SimulatedFleet(accounts, organization=Organization(states=states)) as fleet, lister(fleet) as session:
        active = await collect(organization_accounts(session, exclude=[session.account.id]))
        pending = await collect(
            organization_accounts(session, exclude=[session.account.id], states=("ACTIVE", "PENDING_ACTIVATION"))
        )

    reasons = [f"the account's state is {state}" for state in states.values()]
    assert [account.unavailable for account in active] == [*reasons, None]
    assert [account.facts["state"] for account in active] == [*states.values(), "ACTIVE"]
    assert [account.unavailable for account in pending] == [None, *reasons[1:], None]


async def test_tags_cost_a_call_for_each_account() -> None:
    """Tags are read only when they are given; values may be patterns."""
    accounts = [
        Account(f"10000000000{n}", name=f"n{n}", tags={"stage": stage} if stage else {})
        for n, stage in enumerate(["prod-a", "prod-b", "dev", ""])
    ]
    async with SimulatedFleet(accounts) as fleet, lister(fleet) as session:
        matching = await collect(organization_accounts(session, tags={"stage": "prod-*"}))
        every = await collect(organization_accounts(session, tags={}, exclude=[session.account.id]))
        calls = (await fleet.counts()).calls("organizations", "ListTagsForResource")

    assert [(account.id, dict(account.tags)) for account in matching] == [
        (account.id, dict(account.tags)) for account in accounts[:2]
    ]
    assert [dict(account.tags) for account in every] == [dict(account.tags) for account in accounts]
    assert calls == 5 + 4


async def test_the_management_account_is_used_as_the_session() -> None:
    """As the source where the session is the source, by its role where it has one, else not at all."""
    accounts = members("aws", 2)
    organization = Organization(delegated_administrators=[accounts[0].id])
    async with (
        SimulatedFleet(accounts, organization=organization, management_role=True) as fleet,
        pool_over(fleet, allow_long_term=True) as pool,
    ):
        management = fleet.management()

        async def modes(session: AccountSession, **options: Any) -> Account:
            (found,) = [
                account
                for account in await collect(organization_accounts(session, **options))
                if account.id == management.id
            ]
            return found

        by_source = await modes(await pool.source_session())
        by_role = await modes(await pool.session(management))
        by_member = await modes(await pool.session(accounts[0]))
        skipped = await modes(await pool.source_session(), management="skip")
        plain = await modes(await pool.source_session(), management="role")

    assert (by_source.role, by_source.unavailable) == (SELF, None)
    assert (by_role.role, by_role.unavailable) == ("manage-role", None)
    assert by_member.unavailable is not None
    assert "OrganizationAccountAccessRole does not exist" in by_member.unavailable
    assert skipped.unavailable == "it is the organization's management account"
    assert (plain.role, plain.unavailable) == (None, None)


async def test_the_wrong_organization_is_refused_before_the_first_account() -> None:
    """The id is in the ARN of the first record; a member may not list; a parent must exist."""
    accounts = members("aws", 2)
    async with (
        SimulatedFleet(accounts) as fleet,
        pool_over(fleet, allow_long_term=True) as pool,
    ):
        session = await pool.source_session()
        right = await collect(organization_accounts(session, organization_id=fleet.organization_id()))
        with pytest.raises(ConfigurationError, match=f"{session.account.id} is in the organization o-.*not in o-00"):
            await anext(organization_accounts(session, organization_id="o-0000000000"))
        with pytest.raises(ConfigurationError, match="may not list its organization: only the management account"):
            await anext(organization_accounts(await pool.session(accounts[0])))

    assert len(right) == 3


async def test_an_account_without_an_organization() -> None:
    """The answer of AWS becomes a sentence that names the account."""
    async with SimulatedFleet(1, organization=None) as fleet, lister(fleet) as session:
        with pytest.raises(ConfigurationError, match=f"account {session.account.id} is in no organization"):
            await anext(organization_accounts(session))


async def test_a_parent_that_does_not_exist(caplog: pytest.LogCaptureFixture) -> None:
    """An error where the tree is walked, and a warning where the paths of accounts are all that is read."""
    walked = SimulatedFleet(1, organization=Organization(with_paths=False))
    async with walked as fleet, lister(fleet) as session:
        with pytest.raises(ConfigurationError, match="ou-abcd-12345678 is no organizational unit or root"):
            await collect(organization_accounts(session, parents=["ou-abcd-12345678"]))
    if can_have_paths():
        async with SimulatedFleet(1) as fleet, lister(fleet) as session:
            with caplog.at_level(logging.WARNING, logger="asyncauth.discovery"):
                assert await collect(organization_accounts(session, parents=["ou-abcd-12345678"])) == []
        assert "no account is in or below ou-abcd-12345678; does it exist?" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parents": ["Workloads"]}, "parents= has 'Workloads'; it takes ids"),
        ({"parents": "r-ab12"}, "parents= must be a list, got 'r-ab12'"),
        ({"exclude": ["12"]}, "12 ASCII digits"),
        ({"states": ["OPEN"]}, "states= has 'OPEN'; the states are PENDING_ACTIVATION"),
        ({"tags": ["a"]}, "tags= must be a mapping"),
        ({"organization_id": "123456789012"}, "must be an organization's id"),
        ({"management": "maybe"}, "management='maybe' must be"),
    ],
)
async def test_a_mistake_is_found_at_the_call(arguments: dict[str, Any], message: str) -> None:
    """Not when the first account is read."""
    with pytest.raises(ConfigurationError, match=message):
        organization_accounts(None, **arguments)  # type: ignore[arg-type]


async def test_two_organizations_with_the_same_names_in_one_run() -> None:
    """Every outcome is in its partition, no call crosses, and the first target is admitted after one page."""
    accounts = {partition: members(partition, 45) for partition in PARTITIONS}
    async with (
        SimulatedFleet([*accounts["aws"], *accounts["aws-cn"]]) as fleet,
        pool_over(fleet, allow_long_term=True) as pool,
    ):
        sessions = [await pool.source_session(partition) for partition in PARTITIONS]
        started: list[int] = []

        async def job(session: AccountSession) -> str:
            if not started:
                started.append(0)
                started[0] = (await fleet.counts()).calls("organizations", code="")
                await second_page.remove()
            return await who_am_i(session)

        second_page = await fleet.fault("hang", service="organizations", after=1)
        found = chain(*(organization_accounts(session, management="skip") for session in sessions))
        report = await pool.map(job, found, max_at_once=5)
        counts = await fleet.counts()

    assert started[0] == 1, "the first job waited for the second page"
    assert Counter(outcome.status for outcome in report) == {"succeeded": 90, "skipped": 2}
    assert {outcome.reason for outcome in report.skipped} == {"it is the organization's management account"}
    for outcome in report.succeeded:
        assert outcome.value.startswith(f"arn:{outcome.account.partition}:sts::{outcome.account.id}:")
    assert sorted(outcome.account.name for outcome in report.succeeded) == sorted(
        2 * [f"account-{n}" for n in range(45)]
    )
    assert counts.codes == {}


async def test_an_empty_page_is_not_the_end() -> None:
    """Every second page is empty and has a token."""
    async with SimulatedFleet(41, organization=Organization(empty_page_every=2)) as fleet, lister(fleet) as session:
        found = await collect(organization_accounts(session))

    assert len(found) == 42
