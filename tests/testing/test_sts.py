"""STS of the simulated fleet: the calls that it grants, its refusals and their messages, and the ends of tokens."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from asyncauth import Account, Keys
from asyncauth.testing import SimulatedFleet
from tests.support.fleet_clients import ONCE, as_keys, client, enter, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

PARTITIONS = [("aws", "us-east-1"), ("aws-cn", "cn-north-1")]
both = pytest.mark.parametrize(("partition", "region"), PARTITIONS)


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedFleet]:
    accounts = [
        Account(f"{digit}{number}0000000000"[:12], partition=partition, external_id="7c1e" if number == 2 else None)
        for digit, (partition, _) in enumerate(PARTITIONS, 1)
        for number in range(5)
    ]
    denied, suspended = (
        [account.id for account in accounts if account.id[1] == "3"],
        [account.id for account in accounts if account.id[1] == "4"],
    )
    with SimulatedFleet(accounts, denied=denied, suspended=suspended, disabled_regions=["eu-south-1"]) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: SimulatedFleet) -> Iterator[SimulatedFleet]:
    yield shared
    shared.blocking.clear_faults()
    shared.blocking.reset_counts()
    shared.blocking.set_token_lifetime(None)
    shared.blocking.set_clock_offset(0)


def account(fleet: SimulatedFleet, partition: str, number: int) -> Account:
    """Return an account of a partition: 0 and 1 are plain, 2 requires an external id, 3 is denied, 4 is closed."""
    return [one for one in fleet.accounts if one.partition == partition][number]


# Granted calls


@both
async def test_the_role_of_each_account_is_assumed(fleet: SimulatedFleet, partition: str, region: str) -> None:
    """The base identity of a partition assumes the role of an account, and then acts as that role."""
    target = account(fleet, partition, 0)
    async with client(fleet, "sts", await enter(fleet, target, RoleSessionName="me"), region) as sts:
        answer = await sts.get_caller_identity()

    assert answer["Account"] == target.id
    assert answer["Arn"] == f"arn:{partition}:sts::{target.id}:assumed-role/manage-role/me"
    assert answer["UserId"].startswith("AROA")
    assert answer["UserId"].endswith(":me")


@both
async def test_calls_are_recorded_with_their_parameters(fleet: SimulatedFleet, partition: str, region: str) -> None:
    """`assumed` returns each AssumeRole with its parameters, granted or refused, without secrets."""
    target = account(fleet, partition, 2)
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    given = await enter(
        fleet,
        target,
        ExternalId="7c1e",
        DurationSeconds=900,
        Policy=policy,
        PolicyArns=[{"arn": f"arn:{partition}:iam::aws:policy/ReadOnlyAccess"}],
        Tags=[{"Key": "team", "Value": "ops"}, {"Key": "cost", "Value": "7"}],
        TransitiveTagKeys=["team"],
        SourceIdentity="alice",
    )
    async with client(fleet, "sts", region=region) as sts:
        await refusal(sts.assume_role(RoleArn=fleet.role_arn(target), RoleSessionName="test", ExternalId="wrong"))
    granted, refused = await fleet.assumed(target)

    assert granted.account == target.id
    assert granted.role_arn == fleet.role_arn(target)
    assert granted.caller.endswith(":user/fleet-operator")
    assert granted.access_key_id == given.access_key_id
    assert (granted.region, granted.role_session_name, granted.duration_seconds) == (region, "test", 900)
    assert (granted.external_id, granted.policy, granted.source_identity) == ("7c1e", policy, "alice")
    assert granted.policy_arns == (f"arn:{partition}:iam::aws:policy/ReadOnlyAccess",)
    assert dict(granted.tags) == {"team": "ops", "cost": "7"}
    assert granted.transitive_tag_keys == ("team",)
    assert (refused.code, refused.access_key_id, refused.external_id) == ("AccessDenied", None, "wrong")
    assert refused.duration_seconds is None


async def test_a_chain_of_roles(fleet: SimulatedFleet) -> None:
    """A role that trusts another role can be assumed through it only, for an hour at most."""
    hub = await fleet.add_role(account(fleet, "aws", 0), "hub")
    spoke = await fleet.add_role(account(fleet, "aws", 1), "team/spoke", trusted=[hub])
    async with client(fleet, "sts") as sts:
        at_hub = as_keys(await sts.assume_role(RoleArn=hub, RoleSessionName="hop", SourceIdentity="alice"))
        assert await refusal(sts.assume_role(RoleArn=spoke, RoleSessionName="hop")) == ("AccessDenied", 403)
    async with client(fleet, "sts", at_hub) as sts:
        answer = await sts.assume_role(RoleArn=spoke, RoleSessionName="hop", DurationSeconds=3600)
        with pytest.raises(ClientError, match="1 hour session limit for roles assumed by role chaining"):
            await sts.assume_role(RoleArn=spoke, RoleSessionName="hop", DurationSeconds=3601)
        direct = fleet.role_arn(account(fleet, "aws", 1))
        assert await refusal(sts.assume_role(RoleArn=direct, RoleSessionName="hop")) == ("AccessDenied", 403)
        changed = sts.assume_role(RoleArn=spoke, RoleSessionName="hop", SourceIdentity="bob")
        assert await refusal(changed) == ("AccessDenied", 403)

    assert answer["AssumedRoleUser"]["Arn"].endswith(":assumed-role/spoke/hop")
    assert answer["SourceIdentity"] == "alice"


async def test_other_identities_may_be_added(fleet: SimulatedFleet) -> None:
    """An added user, and an added session of an instance's role, are trusted like the base identity."""
    user = await fleet.add_identity("deployer", account=account(fleet, "aws", 1))
    session = await fleet.add_identity("i-0123456789abcdef0", role="instance-role", partition="aws-cn")
    for keys, region, partition in ((user, "us-east-1", "aws"), (session, "cn-north-1", "aws-cn")):
        async with client(fleet, "sts", keys, region) as sts:
            arn = fleet.role_arn(account(fleet, partition, 0))
            # An instance's role is not role chaining in AWS, so its sessions may be longer than an hour.
            answer = await sts.assume_role(RoleArn=arn, RoleSessionName="xx", DurationSeconds=7200)
            assert answer["Credentials"]["Expiration"] > datetime.now(UTC)

    assert user.session_token is None
    assert session.session_token is not None
    assert (await fleet.counts()).owners[account(fleet, "aws", 1).id] == {
        f"arn:aws:iam::{account(fleet, 'aws', 1).id}:user/deployer"
    }


@both
async def test_web_identity_works_across_partitions(fleet: SimulatedFleet, partition: str, region: str) -> None:
    """A token of GetWebIdentityToken in one partition gives a session in every partition."""
    async with client(fleet, "sts") as sts:
        if hasattr(sts, "get_web_identity_token"):
            token = (await sts.get_web_identity_token(Audience=["x"], SigningAlgorithm="RS256"))["WebIdentityToken"]
        else:
            # The installed botocore does not have the action yet.
            token = await fleet.web_identity_token(f"arn:aws:iam::{fleet.management().id}:user/fleet-operator")
    target = account(fleet, partition, 0)
    async with client(fleet, "sts", region=region) as sts:
        answer = await sts.assume_role_with_web_identity(
            RoleArn=fleet.role_arn(target), RoleSessionName="pod", WebIdentityToken=token
        )
    async with client(fleet, "sts", as_keys(answer), region) as sts:
        assert (await sts.get_caller_identity())["Account"] == target.id

    record = (await fleet.assumed(target))[-1]
    assert record.caller == f"arn:aws:iam::{fleet.management().id}:user/fleet-operator"
    assert "WebIdentityToken" not in record.parameters


async def test_web_identity_tokens_are_checked(fleet: SimulatedFleet) -> None:
    """A forged or expired web identity token, or an unknown role, is refused."""
    arn = fleet.role_arn(account(fleet, "aws", 0))
    good, expired = await fleet.web_identity_token(), await fleet.web_identity_token(seconds=-1)
    async with client(fleet, "sts") as sts:

        async def refused(token: str, role: str = arn) -> tuple[str, int]:
            return await refusal(
                sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="pod", WebIdentityToken=token)
            )

        assert await refused(good[:-2] + "AA") == ("InvalidIdentityToken", 400)
        assert await refused("a.b.c") == ("InvalidIdentityToken", 400)
        assert await refused(expired) == ("ExpiredTokenException", 400)
        assert await refused(good, arn + "-x") == ("AccessDenied", 403)


# Refused calls


@both
@pytest.mark.parametrize("number", [3, 4])
async def test_denied_and_closed_accounts(fleet: SimulatedFleet, partition: str, region: str, number: int) -> None:
    """The role of a denied account and of a closed one is refused with AWS's code and message."""
    arn = fleet.role_arn(account(fleet, partition, number))
    user = f"arn:{partition}:iam::{fleet.management(partition).id}:user/fleet-operator"
    async with client(fleet, "sts", region=region) as sts:
        with pytest.raises(ClientError) as caught:
            await sts.assume_role(RoleArn=arn, RoleSessionName="test")

    assert caught.value.response["Error"]["Code"] == "AccessDenied"
    assert caught.value.response["Error"]["Message"] == (
        f"User: {user} is not authorized to perform: sts:AssumeRole on resource: {arn}"
    )


@both
async def test_unknown_roles_accounts_and_external_ids(fleet: SimulatedFleet, partition: str, region: str) -> None:
    """A missing role or account, and a wrong or missing external id, get the same refusal."""
    plain, guarded = account(fleet, partition, 0), account(fleet, partition, 2)
    async with client(fleet, "sts", region=region) as sts:

        async def refused(arn: str, **more: Any) -> tuple[str, int]:
            return await refusal(sts.assume_role(RoleArn=arn, RoleSessionName="test", **more))

        assert await refused(fleet.role_arn(plain) + "x") == ("AccessDenied", 403)
        assert await refused(f"arn:{partition}:iam::999999999999:role/manage-role") == ("AccessDenied", 403)
        assert await refused(fleet.role_arn(guarded)) == ("AccessDenied", 403)
        assert await refused(fleet.role_arn(guarded), ExternalId="7c1") == ("AccessDenied", 403)


async def test_keys_of_another_partition_are_refused(fleet: SimulatedFleet) -> None:
    """Keys of one partition are unknown in another, and its roles cannot be assumed from there."""
    async with client(fleet, "sts", fleet.keys("aws"), "cn-north-1") as sts:
        assert await refusal(sts.get_caller_identity()) == ("InvalidClientTokenId", 403)
    async with client(fleet, "sts", fleet.keys("aws-cn"), "us-east-1") as sts:
        assert await refusal(sts.get_caller_identity()) == ("InvalidClientTokenId", 403)
    async with client(fleet, "sts") as sts:
        arn = fleet.role_arn(account(fleet, "aws-cn", 0))
        assert await refusal(sts.assume_role(RoleArn=arn, RoleSessionName="test")) == ("AccessDenied", 403)


async def test_a_disabled_region(fleet: SimulatedFleet) -> None:
    """STS in a region that is not enabled answers RegionDisabledException."""
    async with client(fleet, "sts", region="eu-south-1") as sts:
        call = sts.assume_role(RoleArn=fleet.role_arn(account(fleet, "aws", 0)), RoleSessionName="test")
        assert await refusal(call) == ("RegionDisabledException", 403)


async def test_the_state_of_an_account_can_change(fleet: SimulatedFleet) -> None:
    """An account can be denied, closed, or lose a region in the middle of a test, and recover."""
    target = account(fleet, "aws", 1)
    keys = await enter(fleet, target)
    await fleet.change_account(target, denied=True)
    async with client(fleet, "sts") as sts:
        call = sts.assume_role(RoleArn=fleet.role_arn(target), RoleSessionName="test")
        assert await refusal(call) == ("AccessDenied", 403)
    await fleet.change_account(target, denied=False, suspended=True)
    async with client(fleet, "sts", keys) as sts:
        assert await refusal(sts.get_caller_identity()) == ("InvalidClientTokenId", 403)
    await fleet.change_account(target, suspended=False, disabled_regions=["us-east-1"])
    async with client(fleet, "sts", keys) as sts:
        assert await refusal(sts.get_caller_identity()) == ("RegionDisabledException", 403)
    await fleet.change_account(target, disabled_regions=[])
    async with client(fleet, "sts", keys) as sts:
        assert (await sts.get_caller_identity())["Account"] == target.id


async def test_mfa_is_required(fleet: SimulatedFleet) -> None:
    """A role can require MFA: a code with AssumeRole, or a session made with one; each code is accepted once."""
    arn = await fleet.add_role(account(fleet, "aws", 0), "guarded", mfa=True)
    serial, code = fleet.mfa_serial(), fleet.mfa_code()
    async with client(fleet, "sts") as sts:

        async def refused(**more: str) -> tuple[str, int]:
            return await refusal(sts.assume_role(RoleArn=arn, RoleSessionName="test", **more))

        assert await refused() == ("AccessDenied", 403)
        await sts.assume_role(RoleArn=arn, RoleSessionName="test", SerialNumber=serial, TokenCode=code)
        assert await refused(SerialNumber=serial, TokenCode=code) == ("AccessDenied", 403)
        assert await refused(SerialNumber=serial + "x", TokenCode=fleet.mfa_code()) == ("AccessDenied", 403)
        plain = as_keys(await sts.get_session_token())
        strong = as_keys(await sts.get_session_token(SerialNumber=serial, TokenCode=fleet.mfa_code()))
    async with client(fleet, "sts", plain) as sts:
        assert await refused() == ("AccessDenied", 403)
    async with client(fleet, "sts", strong) as sts:
        await sts.assume_role(RoleArn=arn, RoleSessionName="test", DurationSeconds=43_200)
        assert await refusal(sts.get_session_token()) == ("AccessDenied", 403)
        assert await refusal(sts.get_federation_token(Name="bob")) == ("AccessDenied", 403)
    assert all("TokenCode" not in record.parameters for record in await fleet.assumed())


async def test_the_maximum_session_duration_of_a_role(fleet: SimulatedFleet) -> None:
    """DurationSeconds above the role's MaxSessionDuration is refused."""
    arn = await fleet.add_role(account(fleet, "aws", 0), "short", max_session_duration=3600)
    async with client(fleet, "sts") as sts:
        call = sts.assume_role(RoleArn=arn, RoleSessionName="test", DurationSeconds=3601)
        assert await refusal(call) == ("ValidationError", 400)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"DurationSeconds": 899}, "ValidationError"),
        ({"DurationSeconds": 43_201}, "ValidationError"),
        ({"RoleSessionName": "x" * 65}, "ValidationError"),
        ({"RoleSessionName": "x"}, "ValidationError"),
        ({"RoleSessionName": "a b"}, "ValidationError"),
        ({"RoleSessionName": "name\n"}, "ValidationError"),
        ({"RoleArn": "arn:aws:iam::12345678901:role/x"}, "ValidationError"),
        ({"RoleArn": "arn:aws:iam::123456789012:user/alice"}, "ValidationError"),
        ({"RoleArn": "junk" * 600}, "ValidationError"),
        ({"ExternalId": "a b"}, "ValidationError"),
        ({"SourceIdentity": "x" * 65}, "ValidationError"),
        ({"TokenCode": "12345x"}, "ValidationError"),
        ({"SerialNumber": "short", "TokenCode": "123456"}, "ValidationError"),
        ({"Policy": "{"}, "MalformedPolicyDocument"),
        ({"Policy": "{" + " " * 2048 + "}"}, "ValidationError"),
        ({"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}] * 11}, "ValidationError"),
        ({"Tags": [{"Key": f"k{number}", "Value": ""} for number in range(51)]}, "ValidationError"),
        ({"Tags": [{"Key": "k", "Value": ""}, {"Key": "K", "Value": ""}]}, "ValidationError"),
        ({"Tags": [{"Key": "k" * 129, "Value": ""}]}, "ValidationError"),
        ({"Tags": [{"Key": "k", "Value": "v" * 257}]}, "ValidationError"),
        ({"TransitiveTagKeys": ["unknown"]}, "ValidationError"),
        (
            {
                "ProvidedContexts": [{"ProviderArn": "arn:aws:iam::aws:contextProvider/x", "ContextAssertion": "abcd"}]
                * 6
            },
            "ValidationError",
        ),
    ],
)
async def test_documented_limits_hold(fleet: SimulatedFleet, parameters: dict[str, Any], code: str) -> None:
    """Parameters that the STS API reference forbids are refused, also those that botocore does not validate."""
    async with client(fleet, "sts", config=ONCE.merge(AioConfig(parameter_validation=False))) as sts:
        arguments = {"RoleArn": fleet.role_arn(account(fleet, "aws", 0)), "RoleSessionName": "test", **parameters}

        assert (await refusal(sts.assume_role(**arguments)))[0] == code


async def test_an_action_that_is_not_simulated(fleet: SimulatedFleet) -> None:
    """An STS action that is not simulated gets NotImplemented with a status that botocore does not retry."""
    async with client(fleet, "sts") as sts:
        call = sts.decode_authorization_message(EncodedMessage="x")
        assert await refusal(call) == ("NotImplemented", 501)


async def test_other_actions(fleet: SimulatedFleet) -> None:
    """GetAccessKeyInfo and GetFederationToken are answered."""
    async with client(fleet, "sts") as sts:
        known = await sts.get_access_key_info(AccessKeyId=fleet.keys().access_key_id)
        assert known["Account"] == fleet.management().id
        unknown = sts.get_access_key_info(AccessKeyId=fleet.keys("aws-cn").access_key_id)
        assert await refusal(unknown) == ("ValidationError", 400)
        answer = await sts.get_federation_token(Name="bob")
    async with client(fleet, "sts", as_keys(answer)) as sts:
        assert (await sts.get_caller_identity())["Arn"].endswith(":federated-user/bob")


# Ends of tokens


@both
async def test_tokens_expire(fleet: SimulatedFleet, partition: str, region: str) -> None:
    """A token is refused, and counted as expired, after the fleet's token lifetime."""
    await fleet.set_token_lifetime(0.2)
    before = time.monotonic()
    keys = await enter(fleet, account(fleet, partition, 0), DurationSeconds=3600)
    async with client(fleet, "sts", keys, region) as sts:
        # No sleep: repeat the call until it is refused, which depends on the fleet's clock alone.
        with anyio.fail_after(10):
            while True:
                try:
                    await sts.get_caller_identity()
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    break

    assert code == "ExpiredToken"
    assert time.monotonic() - before >= 0.2
    assert (await fleet.counts()).expired >= 1


async def test_a_token_that_ends_in_transit_is_counted_apart(fleet: SimulatedFleet) -> None:
    """`expired_in_transit` counts a call that was signed in time and arrived too late, and no call signed too late."""
    await fleet.set_token_lifetime(1.2)
    keys = await enter(fleet, account(fleet, "aws", 0))
    ends_at = time.monotonic() + 1.2

    async def arrive_late(request: Any, **_: Any) -> None:
        await anyio.sleep(max(0.0, ends_at - time.monotonic()))

    async with client(fleet, "sts", keys) as sts:
        sts.meta.events.register("before-send.sts.GetCallerIdentity", arrive_late)
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)
        in_transit = await fleet.counts()
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)
    signed_late = await fleet.counts()

    assert (in_transit.expired, in_transit.expired_in_transit) == (1, 1)
    assert (signed_late.expired, signed_late.expired_in_transit) == (2, 1)


async def test_expiration_follows_from_the_lifetime(fleet: SimulatedFleet) -> None:
    """Expiration is the answer's Date plus the lifetime in whole seconds: the requested one, or the fleet's."""
    async with client(fleet, "sts") as sts:
        arn = fleet.role_arn(account(fleet, "aws", 0))
        for lifetime, seconds in ((None, 1800), (2.0, 2)):
            await fleet.set_token_lifetime(lifetime)
            answer = await sts.assume_role(RoleArn=arn, RoleSessionName="test", DurationSeconds=1800)
            date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            # A second may end between Expiration and the header.
            assert (answer["Credentials"]["Expiration"] - date).total_seconds() in {seconds, seconds - 1}


async def test_a_clock_offset_does_not_change_lifetimes(fleet: SimulatedFleet) -> None:
    """With a clock offset, Date and Expiration are on the fleet's clock, and tokens live as long as before."""
    await fleet.set_clock_offset(3000)
    async with client(fleet, "sts") as sts:
        answer = await sts.assume_role(RoleArn=fleet.role_arn(account(fleet, "aws", 0)), RoleSessionName="test")
    date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    async with client(fleet, "sts", as_keys(answer)) as sts:
        await sts.get_caller_identity()

    ahead = (date - datetime.now(UTC)).total_seconds()
    assert 2990 < ahead < 3010
    assert (answer["Credentials"]["Expiration"] - date).total_seconds() in {3600, 3599}


async def test_tokens_can_be_expired_early(fleet: SimulatedFleet) -> None:
    """`expire_tokens` expires the tokens of one account, or all, at once; long-term keys stay valid."""
    ours, theirs = account(fleet, "aws", 0), account(fleet, "aws", 1)
    our_keys, their_keys = await enter(fleet, ours), await enter(fleet, theirs)
    assert await fleet.expire_tokens(ours) >= 1
    async with client(fleet, "sts", our_keys) as sts:
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)
    async with client(fleet, "sts", their_keys) as sts:
        await sts.get_caller_identity()
        await fleet.expire_tokens()
        assert await refusal(sts.get_caller_identity()) == ("ExpiredToken", 403)
    async with client(fleet, "sts") as sts:
        await sts.get_caller_identity()

    assert (await fleet.counts()).calls("sts", "GetCallerIdentity", code="ExpiredToken") == 2


async def test_a_token_belongs_to_its_key(fleet: SimulatedFleet) -> None:
    """A key with the token or the secret of another key, or without its token, is refused."""
    one, two = [await enter(fleet, account(fleet, "aws", 0)) for _ in range(2)]
    for keys, code in (
        (Keys(one.access_key_id, one.secret_access_key, two.session_token), "InvalidClientTokenId"),
        (Keys(one.access_key_id, one.secret_access_key), "InvalidClientTokenId"),
        (Keys(one.access_key_id, two.secret_access_key, one.session_token), "SignatureDoesNotMatch"),
        (Keys("AKIAIOSFODNN7EXAMPLE", one.secret_access_key), "InvalidClientTokenId"),
        (Keys(fleet.keys().access_key_id, fleet.keys().secret_access_key, "made-up"), "InvalidClientTokenId"),
    ):
        async with client(fleet, "sts", keys) as sts:
            assert await refusal(sts.get_caller_identity()) == (code, 403)
