"""AWS Organizations of the simulated fleet, called by stock clients."""

from __future__ import annotations

import re
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from asyncauth import Account, ConfigurationError
from asyncauth._aws.global_services import home_region
from asyncauth.testing import Organization, OrganizationalUnit, SimulatedFleet
from tests.support.fleet_clients import client, enter, refusal

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

both_partitions = pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])


def organizations(fleet: SimulatedFleet, partition: str = "aws", keys: Any = None) -> Any:
    return client(fleet, "organizations", keys, region=home_region(partition))


async def pages(call: Any, **arguments: Any) -> list[dict[str, Any]]:
    """Return all pages of a listing."""
    answers = [await call(**arguments)]
    while token := answers[-1].get("NextToken"):
        answers.append(await call(**arguments, NextToken=token))
    return answers


def members(partition: str, count: int) -> list[Account]:
    digit = {"aws": 1, "aws-cn": 2, "aws-us-gov": 3}[partition]
    return [Account(f"{digit}{number:011d}", partition=partition, name=f"n{number}") for number in range(1, count + 1)]


@both_partitions
async def test_pages_have_at_most_20_accounts(partition: str) -> None:
    """45 accounts and the management account come in three pages, each account once, and 21 a page is refused."""
    async with SimulatedFleet({partition: 45}) as fleet, organizations(fleet, partition) as api:
        listed = await pages(api.list_accounts)
        refused = await refusal(api.list_accounts(MaxResults=21))
        bad_token = await refusal(api.list_accounts(NextToken="bm9uc2Vuc2U="))
        counts = await fleet.counts()
        management = fleet.management(partition).id
        ids = {account.id for account in fleet.accounts if account.partition == partition}

    assert [len(page["Accounts"]) for page in listed] == [20, 20, 6]
    found = [account["Id"] for page in listed for account in page["Accounts"]]
    assert sorted(found) == sorted({*ids, management})
    assert refused == bad_token == ("InvalidInputException", 400)
    assert counts.calls("organizations", "ListAccounts", account=management, code="") == 3


@pytest.mark.parametrize(
    ("partition", "home", "other"),
    [
        ("aws", "us-east-1", "eu-west-1"),
        ("aws-cn", "cn-northwest-1", "cn-north-1"),
        ("aws-us-gov", "us-gov-west-1", "us-gov-east-1"),
    ],
)
@pytest.mark.parametrize(
    ("service", "operation"), [("organizations", "describe_organization"), ("account", "list_regions")]
)
async def test_a_signature_for_another_region_is_refused(
    partition: str, home: str, other: str, service: str, operation: str
) -> None:
    """Organizations and Account Management are in one region of a partition; AWS's message has the region, too."""
    async with SimulatedFleet({partition: 1}) as fleet:
        async with client(fleet, service, region=home) as api:
            await getattr(api, operation)()
        async with client(fleet, service, region=other) as api:
            with pytest.raises(ClientError, match=f"scoped to a valid region, not '{other}'. .*{home}") as refused:
                await getattr(api, operation)()

    assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"


@both_partitions
async def test_the_tree_of_units(partition: str) -> None:
    """Each parent lists its own accounts and units; tags, paths and parents agree with the description."""
    one, two, three = members(partition, 3)
    tagged = Account(two.id, partition=partition, name="two", tags={"team": "data"})
    inner = OrganizationalUnit("Inner", accounts=[tagged], tags={"tier": "1"})
    tree = Organization(units=[OrganizationalUnit("Outer", accounts=[one.id], units=[inner])])
    async with (
        SimulatedFleet([one, tagged, three], organization={partition: tree}) as fleet,
        organizations(fleet, partition) as api,
    ):
        root = (await api.list_roots())["Roots"][0]
        outer = (await api.list_organizational_units_for_parent(ParentId=root["Id"]))["OrganizationalUnits"]
        deeper = (await api.list_organizational_units_for_parent(ParentId=outer[0]["Id"]))["OrganizationalUnits"]
        at_root = (await api.list_accounts_for_parent(ParentId=root["Id"]))["Accounts"]
        below = (await api.list_accounts_for_parent(ParentId=deeper[0]["Id"]))["Accounts"]
        children = (await api.list_children(ParentId=outer[0]["Id"], ChildType="ACCOUNT"))["Children"]
        parents = (await api.list_parents(ChildId=deeper[0]["Id"]))["Parents"]
        unit_tags = (await api.list_tags_for_resource(ResourceId=deeper[0]["Id"]))["Tags"]
        account_tags = (await api.list_tags_for_resource(ResourceId=two.id))["Tags"]
        unknown = await refusal(api.list_accounts_for_parent(ParentId="ou-abcd-12345678"))
        management = fleet.management(partition).id
        expected = [fleet.parent_id(path, partition) for path in ("", "Outer", "Outer/Inner")]

    assert [root["Id"], outer[0]["Id"], deeper[0]["Id"]] == expected
    assert {account["Id"] for account in at_root} == {three.id, management}
    assert [account["Id"] for account in below] == [two.id]
    assert children == [{"Id": one.id, "Type": "ACCOUNT"}]
    assert parents == [{"Id": expected[1], "Type": "ORGANIZATIONAL_UNIT"}]
    assert (unit_tags, account_tags) == ([{"Key": "tier", "Value": "1"}], [{"Key": "team", "Value": "data"}])
    assert unknown == ("ParentNotFoundException", 400)


async def test_paths_and_status_are_switchable() -> None:
    """`Paths` has the form of botocore's model and `Status` is absent by default; both are switchable by partition."""
    plain = Organization(with_paths=False, with_status=True)
    fleet = SimulatedFleet({"aws": 1, "aws-cn": 1}, organization={"aws-cn": plain}, suspended=["200000000001"])
    async with fleet:
        answers = {}
        for partition, region in (("aws", "us-east-1"), ("aws-cn", "cn-northwest-1")):
            # boto3's parser drops members that its model lacks: `Paths` is unknown to old ones.
            keys = fleet.keys(partition)
            api = boto3.client(
                "organizations",
                region_name=region,
                endpoint_url=fleet.endpoint_url,
                aws_access_key_id=keys.access_key_id,
                aws_secret_access_key=keys.secret_access_key,
                config=Config(retries={"total_max_attempts": 1}),
            )
            answers[partition] = api.list_accounts()["Accounts"][1]
            known = api.meta.service_model.shape_for("Account").members

    assert "Status" not in answers["aws"]
    assert "Paths" not in answers["aws-cn"]
    assert (answers["aws-cn"]["State"], answers["aws-cn"]["Status"]) == ("SUSPENDED", "SUSPENDED")
    if "Paths" in known:
        assert re.fullmatch(r"o-[a-z0-9]{10}/r-[0-9a-z]{4}/\d{12}/", answers["aws"]["Paths"][0])
    match = re.fullmatch(
        r"arn:aws-cn:organizations::(\d{12}):account/(o-[a-z0-9]{10})/\d{12}", answers["aws-cn"]["Arn"]
    )
    assert match is not None
    assert match.groups() == (fleet.management("aws-cn").id, fleet.organization_id("aws-cn"))


@pytest.mark.parametrize("state", ["PENDING_ACTIVATION", "SUSPENDED", "PENDING_CLOSURE", "CLOSED"])
async def test_states(state: Any) -> None:
    """An account has the configured state, and one that AWS has closed or suspended accepts no role."""
    (account,) = members("aws", 1)
    async with SimulatedFleet([account], organization=Organization(states={account.id: state})) as fleet:
        async with organizations(fleet) as api:
            described = (await api.describe_account(AccountId=account.id))["Account"]
        if state == "PENDING_ACTIVATION":
            await enter(fleet, account)
        else:
            assert await refusal(enter(fleet, account)) == ("AccessDenied", 403)

    assert described["State"] == state


async def test_empty_pages_with_a_token() -> None:
    """Every second page is empty and has a token; all accounts are listed nevertheless."""
    fleet = SimulatedFleet(41, organization=Organization(empty_page_every=2))
    async with fleet, organizations(fleet) as api:
        listed = await pages(api.list_accounts)

    assert [len(page["Accounts"]) for page in listed] == [20, 0, 20, 0, 2]


async def test_members_are_refused_and_delegated_administrators_are_not() -> None:
    """Only the management account and a delegated administrator may list; a member may describe the organization."""
    member, administrator = members("aws", 2)
    organization = Organization(delegated_administrators=[administrator])
    async with SimulatedFleet([member, administrator], organization=organization) as fleet:
        async with organizations(fleet, keys=await enter(fleet, member)) as api:
            refused = await refusal(api.list_accounts())
            described = (await api.describe_organization())["Organization"]
        async with organizations(fleet, keys=await enter(fleet, administrator)) as api:
            listed = (await api.list_accounts())["Accounts"]
            delegated = (await api.list_delegated_administrators())["DelegatedAdministrators"]

    assert refused == ("AccessDeniedException", 400)
    assert (described["Id"], described["MasterAccountId"]) == (fleet.organization_id(), fleet.management().id)
    assert len(listed) == 3
    assert [one["Id"] for one in delegated] == [administrator.id]


async def test_a_partition_without_an_organization() -> None:
    """A partition whose organization is None answers AWSOrganizationsNotInUse, and the other lists."""
    async with SimulatedFleet({"aws": 1, "aws-cn": 1}, organization={"aws": None}) as fleet:
        async with organizations(fleet) as api:
            refused = await refusal(api.list_accounts())
        async with organizations(fleet, "aws-cn") as api:
            listed = (await api.list_accounts())["Accounts"]

    assert refused == ("AWSOrganizationsNotInUseException", 400)
    assert len(listed) == 2


async def test_throttling_and_service_exceptions_of_one_operation() -> None:
    """A burst of two is answered, the third ListAccounts is throttled, ListRoots is not; a fault fails one call."""
    async with SimulatedFleet(1, manual_clock=1_800_000_000.0) as fleet, organizations(fleet) as api:
        await fleet.limit(service="organizations", action="ListAccounts", per_second=5, burst=2)
        await api.list_accounts()
        await api.list_accounts()
        throttled = await refusal(api.list_accounts())
        await api.list_roots()
        await fleet.advance_clock(0.2)
        await api.list_accounts()
        await fleet.fault(service="organizations", action="ListRoots", code="ServiceException", status=500, times=1)
        failed = await refusal(api.list_roots())
        await api.list_roots()

    assert throttled == ("TooManyRequestsException", 400)
    assert failed == ("ServiceException", 500)


async def test_one_description_for_all_partitions() -> None:
    """Each partition takes over the accounts of one description that are its own."""
    one, two = members("aws", 1)[0], members("aws-cn", 1)[0]
    tree = Organization([OrganizationalUnit("Both", [one, two])])
    async with SimulatedFleet([one, two], organization=tree) as fleet:
        found = {}
        for partition in ("aws", "aws-cn"):
            async with organizations(fleet, partition) as api:
                answer = await api.list_accounts_for_parent(ParentId=fleet.parent_id("Both", partition))
            found[partition] = [account["Id"] for account in answer["Accounts"]]

    assert found == {"aws": [one.id], "aws-cn": [two.id]}


@pytest.mark.parametrize("has_role", [False, True])
async def test_the_management_account_has_the_role_only_if_configured(has_role: bool) -> None:
    """The role cannot be assumed in the management account by default, as in AWS."""
    async with SimulatedFleet(1, management_role=has_role) as fleet:
        entered = enter(fleet, fleet.management())
        if has_role:
            await entered
        else:
            assert await refusal(entered) == ("AccessDenied", 403)


async def test_ten_thousand_accounts_without_state_in_moto() -> None:
    """10,000 accounts are 501 pages, and moto is not imported for them."""
    async with SimulatedFleet(10_000, instances_per_region=0) as fleet, organizations(fleet) as api:
        listed = await pages(api.list_accounts)

    assert len(listed) == 501
    assert len({account["Id"] for page in listed for account in page["Accounts"]}) == 10_001


@pytest.mark.parametrize(
    ("organization", "message"),
    [
        (lambda: Organization(empty_page_every=1), "at least 2"),
        (lambda: Organization(states={"100000000001": "OPEN"}), "not one of"),  # type: ignore[dict-item]
        (lambda: Organization([OrganizationalUnit("a", ["999999999999"])]), "no account of aws"),
        (lambda: Organization([OrganizationalUnit("a"), OrganizationalUnit("a")]), "two units 'a'"),
        (
            lambda: Organization(
                [OrganizationalUnit("a", ["100000000001"]), OrganizationalUnit("b", ["100000000001"])]
            ),
            "more than one organizational unit",
        ),
        (lambda: Organization(delegated_administrators=["999999999999"]), "no account of aws"),
        (lambda: {"aws-cn": None}, "no accounts"),
    ],
)
def test_descriptions_that_no_organization_can_have(organization: Any, message: str) -> None:
    """A description that contradicts itself or the fleet is refused before a process starts, with its place."""
    with pytest.raises(ConfigurationError, match=message):
        SimulatedFleet(1, organization=organization())
