"""IAM Identity Center of the simulated fleet, called by stock clients."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from asyncauth import Account, ConfigurationError, Keys
from asyncauth._aws.partitions import get_partition
from asyncauth.testing import FleetError, IdentityCenter, SimulatedFleet
from tests.support.fleet_clients import client, refusal

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

START = 1_800_000_000.0
both_partitions = pytest.mark.parametrize("partition", ["aws", "aws-cn"])


def refresh(login: Any, token: str | None = None) -> dict[str, str]:
    return {
        "clientId": login.client_id,
        "clientSecret": login.client_secret,
        "grantType": "refresh_token",
        "refreshToken": token or login.refresh_token,
    }


@both_partitions
async def test_accounts_roles_and_credentials(partition: str) -> None:
    """The portal lists accounts and roles in pages; its credentials, dated in milliseconds, sign for the account."""
    region = get_partition(partition).default_region
    center = IdentityCenter(roles=("Admin", "ReadOnly", "Audit"))
    fleet = SimulatedFleet({partition: 5}, identity_center={partition: center}, manual_clock=START)
    async with fleet, client(fleet, "sso", region=region) as portal:
        token = (await fleet.sso_login(partition)).access_token
        first = await portal.list_accounts(accessToken=token, maxResults=3)
        second = await portal.list_accounts(accessToken=token, maxResults=3, nextToken=first["nextToken"])
        account = first["accountList"][0]["accountId"]
        roles = await portal.list_account_roles(accessToken=token, accountId=account, maxResults=100)
        answer = await portal.get_role_credentials(accessToken=token, accountId=account, roleName="Audit")
        too_many = await refusal(portal.list_accounts(accessToken=token, maxResults=101))
        given = answer["roleCredentials"]
        keys = Keys(given["accessKeyId"], given["secretAccessKey"], given["sessionToken"])
        async with client(fleet, "sts", keys, region=region) as sts:
            identity = await sts.get_caller_identity()
        counts = await fleet.counts()

    listed = [one["accountId"] for page in (first, second) for one in page["accountList"]]
    assert listed == [one.id for one in fleet.accounts if one.partition == partition]
    assert [one["roleName"] for one in roles["roleList"]] == ["Admin", "ReadOnly", "Audit"]
    assert given["expiration"] == int((START + 3600) * 1000)
    assert identity["Account"] == account
    assert f"arn:{partition}:sts::{account}:assumed-role/AWSReservedSSO_Audit_" in identity["Arn"]
    assert too_many == ("InvalidRequestException", 400)
    assert counts.calls("sso", "GetRoleCredentials", account=account, region=region) == 1
    assert counts.calls("sso", "ListAccounts", code="") == 2


async def test_401_for_all_and_403_for_one() -> None:
    """An expired or ended login is 401 for every call, a role that is not the user's 403 for this account, and 429."""
    one, two = Account("111111111111"), Account("222222222222")
    center = IdentityCenter(no_access=[two])
    fleet = SimulatedFleet([one, two], identity_center=center, manual_clock=START)
    async with fleet, client(fleet, "sso") as portal:
        token = (await fleet.sso_login()).access_token
        role = {"accessToken": token, "roleName": "ReadOnly"}
        foreign = await refusal(portal.get_role_credentials(**role, accountId=two.id))
        unknown = await refusal(portal.get_role_credentials(accessToken=token, roleName="Root", accountId=one.id))
        await fleet.fault("throttle", service="sso", times=1)
        throttled = await refusal(portal.get_role_credentials(**role, accountId=one.id))
        await fleet.advance_clock(3599)
        await portal.get_role_credentials(**role, accountId=one.id)
        await fleet.advance_clock(1)
        expired = await refusal(portal.list_accounts(accessToken=token))
        again = (await fleet.sso_login()).access_token
        assert await fleet.end_sso_logins() == 2
        ended = await refusal(portal.list_accounts(accessToken=again))

    assert foreign == unknown == ("ForbiddenException", 403)
    assert throttled == ("TooManyRequestsException", 429)
    assert expired == ended == ("UnauthorizedException", 401)


async def test_refresh_tokens_rotate() -> None:
    """CreateToken gives a new access and refresh token; a used refresh token and one past the session are refused."""
    fleet = SimulatedFleet(1, identity_center=IdentityCenter(session_lifetime=7200), manual_clock=START)
    async with fleet, client(fleet, "sso-oidc") as oidc, client(fleet, "sso") as portal:
        login = await fleet.sso_login()
        await fleet.advance_clock(3600)
        renewed = await oidc.create_token(**refresh(login))
        used = await refusal(oidc.create_token(**refresh(login)))
        stranger = await refusal(oidc.create_token(**{**refresh(login), "clientSecret": "wrong"}))
        listed = await portal.list_accounts(accessToken=renewed["accessToken"])
        await fleet.advance_clock(3600)
        late = await refusal(oidc.create_token(**refresh(login, renewed["refreshToken"])))

    assert (renewed["expiresIn"], renewed["tokenType"]) == (3600, "Bearer")
    assert len(listed["accountList"]) == 1
    assert used == late == ("InvalidGrantException", 400)
    assert stranger == ("InvalidClientException", 401)
    assert login.access_token not in repr(login)


def test_boto3_reads_the_portal() -> None:
    """boto3's paginator lists all accounts over the same endpoint."""
    with SimulatedFleet(250, identity_center=IdentityCenter()) as fleet:
        token = fleet.blocking.sso_login().access_token
        config = Config(signature_version=UNSIGNED)
        portal = boto3.client("sso", region_name="us-east-1", endpoint_url=fleet.endpoint_url, config=config)
        pages = list(portal.get_paginator("list_accounts").paginate(accessToken=token))

    assert [len(page["accountList"]) for page in pages] == [100, 100, 50]


async def test_mistakes_are_refused() -> None:
    """A lifetime of zero, an unknown account, and a login without an Identity Center are refused by name."""
    with pytest.raises(ConfigurationError, match="role_lifetime is 0"):
        IdentityCenter(role_lifetime=0)
    with pytest.raises(ConfigurationError, match="999999999999"):
        SimulatedFleet(1, identity_center=IdentityCenter(no_access=["999999999999"]))
    async with SimulatedFleet(1) as fleet:
        with pytest.raises(FleetError, match="no Identity Center in aws"):
            await fleet.sso_login()
