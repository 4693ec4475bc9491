"""Faults, rate limits and counts of the simulated fleet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from asyncauth.testing import Counts, FleetError, SimulatedFleet
from tests.support.fleet_clients import ONCE, client, enter, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncauth import Account

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1"}
both = pytest.mark.parametrize("partition", list(REGIONS))


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 3, "aws-cn": 3}) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared: SimulatedFleet) -> Iterator[SimulatedFleet]:
    yield shared
    shared.blocking.clear_faults()
    shared.blocking.reset_counts()


def accounts(fleet: SimulatedFleet, partition: str = "aws") -> list[Account]:
    return [account for account in fleet.accounts if account.partition == partition]


def whoami(fleet: SimulatedFleet, partition: str = "aws", config: AioConfig = ONCE) -> Any:
    """Return an STS client of a partition's base identity: its calls do not need moto."""
    return client(fleet, "sts", region=REGIONS[partition], config=config)


# Faults


@both
async def test_an_error_with_a_code(fleet: SimulatedFleet, partition: str) -> None:
    """An `error` fault answers with the given code, status, message and headers."""
    await fleet.fault(code="Busy", status=418, message="<later>", headers={"Retry-After": "7"}, service="sts")
    async with whoami(fleet, partition) as sts:
        with pytest.raises(ClientError) as caught:
            await sts.get_caller_identity()

    answer = caught.value.response
    assert answer["Error"] == {"Type": "Sender", "Code": "Busy", "Message": "<later>"}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 418
    assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"


async def test_an_error_without_a_code(fleet: SimulatedFleet) -> None:
    """An `error` without a code is the service's AccessDenied; with only a code, its status is 400."""
    fault = await fleet.fault(service="sts")
    async with whoami(fleet) as sts:
        assert await refusal(sts.get_caller_identity()) == ("AccessDenied", 403)
        assert await fault.remove() == 1
        await fleet.fault(service="sts", code="Whatever")
        assert await refusal(sts.get_caller_identity()) == ("Whatever", 400)


@pytest.mark.parametrize(
    ("service", "call", "expected"),
    [
        ("sts", "get_caller_identity", ("Throttling", 400)),
        ("ec2", "describe_instances", ("RequestLimitExceeded", 503)),
        ("s3", "list_buckets", ("SlowDown", 503)),
        ("dynamodb", "list_tables", ("ThrottlingException", 400)),
        ("organizations", "list_accounts", ("TooManyRequestsException", 400)),
        ("lambda", "list_functions", ("TooManyRequestsException", 429)),
        ("iam", "list_roles", ("Throttling", 400)),
    ],
)
async def test_throttling_codes_of_the_services(
    fleet: SimulatedFleet, service: str, call: str, expected: tuple[str, int]
) -> None:
    """A `throttle` fault answers with the service's throttling code, and is counted as throttled."""
    fault = await fleet.fault("throttle", service=service)
    async with client(fleet, service) as anything:
        assert await refusal(getattr(anything, call)()) == expected

    assert await fault.hits() == 1
    assert (await fleet.counts()).throttled == 1


async def test_a_fault_affects_matching_calls(fleet: SimulatedFleet) -> None:
    """Service, action, account (for AssumeRole the role's) and region select the calls, by name or pattern."""
    one, two, _ = accounts(fleet)
    await fleet.fault(service="sts", action="AssumeRole", account=one, code="One")
    await fleet.fault(service="sts", action="Get*", region="eu-*", code="Two")
    await fleet.fault(service="ec2", code="Three")
    async with whoami(fleet) as sts, client(fleet, "sts", region="eu-west-1") as european:

        async def assume(account: Account) -> Any:
            return await sts.assume_role(RoleArn=fleet.role_arn(account), RoleSessionName="test")

        assert (await refusal(assume(one)))[0] == "One"
        assert (await refusal(european.get_caller_identity()))[0] == "Two"
        await assume(two)
        await sts.get_caller_identity()


async def test_a_fault_with_a_number_of_times(fleet: SimulatedFleet) -> None:
    """After `times` calls a fault has no effect, so botocore's own retry succeeds."""
    fault = await fleet.fault("throttle", service="sts", times=2)
    patient = ONCE.merge(AioConfig(retries={"total_max_attempts": 3, "mode": "standard"}))
    async with whoami(fleet, config=patient) as sts:
        answer = await sts.get_caller_identity()

    assert answer["ResponseMetadata"]["RetryAttempts"] == 2
    assert await fault.hits() == 2
    counts = await fleet.counts()
    assert (counts.calls("sts"), counts.calls("sts", code="Throttling"), counts.calls("sts", code="")) == (3, 2, 1)


async def test_a_fault_with_a_probability(fleet: SimulatedFleet) -> None:
    """A fault with `probability` affects some calls and not others."""
    fault = await fleet.fault(service="sts", code="Unlucky", probability=0.5)
    async with whoami(fleet) as sts:
        results = await asyncio.gather(*(sts.get_caller_identity() for _ in range(60)), return_exceptions=True)

    failed = sum(isinstance(result, ClientError) for result in results)
    assert 10 < failed < 50
    assert await fault.hits() == failed


async def test_a_held_call_continues_without_its_fault(fleet: SimulatedFleet) -> None:
    """A hung call is in flight until its fault is removed, and is then answered correctly."""
    fault = await fleet.fault("hang", service="sts")
    answers: list[Any] = []

    async def call(sts: Any) -> None:
        answers.append(await sts.get_caller_identity())

    async with whoami(fleet) as sts, anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(call, sts)
        await fleet.wait_until(service="sts", in_flight=3)
        assert answers == []
        assert (await fleet.counts()).in_flight == 3
        assert await fault.remove() == 3

    assert len(answers) == 3


async def test_a_held_call_ends_with_its_caller(fleet: SimulatedFleet) -> None:
    """A hung call whose caller closes the connection ends, and is counted as Aborted."""
    await fleet.fault("hang", service="sts")
    async with whoami(fleet) as sts:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sts.get_caller_identity)
                await fleet.wait_until(service="sts", in_flight=1)
                scope.cancel()
    await fleet.wait_until(service="sts", calls=1)

    counts = await fleet.counts()
    assert counts.in_flight == 0
    assert counts.calls("sts", code="Aborted") == 1


async def test_held_calls_need_no_threads(fleet: SimulatedFleet) -> None:
    """The fleet holds 300 hung calls at once without threads, and answers others meanwhile."""
    fault = await fleet.fault("hang", service="sts", action="GetCallerIdentity")
    wide = ONCE.merge(AioConfig(max_pool_connections=300))
    async with whoami(fleet, config=wide) as sts, anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(sts.get_caller_identity)
        await fleet.wait_until(service="sts", in_flight=300)
        await enter(fleet, accounts(fleet)[0])
        threads = len(await anyio.to_thread.run_sync(lambda: list(_tasks_of(fleet.pid))))
        await fault.remove()

    assert threads < 8
    assert (await fleet.counts()).peak >= 300


def _tasks_of(pid: int) -> Iterator[str]:
    import pathlib

    return (entry.name for entry in pathlib.Path(f"/proc/{pid}/task").iterdir())


async def test_a_delay(fleet: SimulatedFleet) -> None:
    """A delayed call is answered after the delay."""
    await fleet.fault("delay", service="sts", seconds=0.1)
    before = time.monotonic()
    async with whoami(fleet) as sts:
        await sts.get_caller_identity()

    assert time.monotonic() - before >= 0.1


@both
async def test_a_reset(fleet: SimulatedFleet, partition: str) -> None:
    """A reset ends the connection with RST before an answer, which is a connection error for a stock client."""
    await fleet.fault("reset", service="s*")
    async with whoami(fleet, partition) as sts:
        with pytest.raises(BotoCoreError):
            await sts.get_caller_identity()
    # An unsigned request is recognized as S3's by its path alone.
    async with await anyio.connect_tcp("127.0.0.1", fleet.port) as stream:
        await stream.send(b"GET /bucket/key HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await stream.receive()

    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert (await fleet.counts()).calls(code="Reset") == 2


async def test_a_body_that_drips(fleet: SimulatedFleet) -> None:
    """A dripping body arrives complete, and takes longer than a timeout that no pause between two bytes exceeds."""
    await fleet.fault("drip", service="sts", seconds=0.001, times=1)
    async with whoami(fleet) as sts:
        before = time.monotonic()
        answer = await sts.get_caller_identity()
        took = time.monotonic() - before
        await fleet.fault("drip", service="sts", seconds=0.2)
        with anyio.move_on_after(0.3) as scope:
            await sts.get_caller_identity()

    assert answer["Account"] == fleet.management().id
    assert took > 0.1
    assert scope.cancelled_caught


async def test_a_truncated_body(fleet: SimulatedFleet) -> None:
    """A truncated answer is a transport error, not a shorter answer."""
    await fleet.fault("truncate", service="sts")
    async with whoami(fleet) as sts:
        with pytest.raises(BotoCoreError):
            await sts.get_caller_identity()


async def test_a_hang_ends_with_the_read_timeout(fleet: SimulatedFleet) -> None:
    """A hung call ends with the client's read timeout."""
    await fleet.fault("hang", service="sts")
    async with whoami(fleet, config=ONCE.merge(AioConfig(read_timeout=0.1))) as sts:
        with pytest.raises(ReadTimeoutError):
            await sts.get_caller_identity()


async def test_invalid_commands_are_refused(fleet: SimulatedFleet) -> None:
    """Invalid arguments of a fault, limit or wait are refused before they are sent, unknown accounts by the fleet."""
    with pytest.raises(ValueError, match="needs seconds="):
        await fleet.fault("delay")
    with pytest.raises(ValueError, match="from 0 to 1"):
        await fleet.fault(probability=1.5)
    with pytest.raises(ValueError, match="must not be negative"):
        await fleet.limit(per_second=-1)
    with pytest.raises(ValueError, match="needs calls= or in_flight="):
        await fleet.wait_until(service="sts")
    with pytest.raises(FleetError, match="the fleet has no '000000000000'"):
        await fleet.change_account("000000000000", denied=True)
    with pytest.raises(TimeoutError, match="did not see"):
        await fleet.wait_until(service="sts", calls=1, timeout=0.01)


# Limits


async def test_a_rate_limit_throttles_beyond_it(fleet: SimulatedFleet) -> None:
    """Calls above the limit are answered with Throttling until the limit is removed."""
    limit = await fleet.limit(service="sts", action="AssumeRole", per_second=0, burst=5)
    arn = fleet.role_arn(accounts(fleet)[0])
    async with whoami(fleet) as sts:
        results = await asyncio.gather(
            *(sts.assume_role(RoleArn=arn, RoleSessionName="test") for _ in range(12)), return_exceptions=True
        )
        codes = Counter(
            result.response["Error"]["Code"] if isinstance(result, ClientError) else "ok" for result in results
        )
        await sts.get_caller_identity()
        await limit.remove()
        await sts.assume_role(RoleArn=arn, RoleSessionName="test")

    assert codes == {"ok": 5, "Throttling": 7}
    assert (await fleet.counts()).throttled == 7


async def test_a_rate_limit_refills(fleet: SimulatedFleet) -> None:
    """A bucket is refilled at its rate."""
    await fleet.limit(service="sts", per_second=50, burst=1)
    async with whoami(fleet) as sts:
        await sts.get_caller_identity()
        with anyio.fail_after(10):
            while True:
                try:
                    await sts.get_caller_identity()
                    break
                except ClientError:
                    continue


async def test_callers_and_regions_have_separate_buckets(fleet: SimulatedFleet) -> None:
    """A limit applies to each calling account and region, as in AWS; a shared limit applies to all calls together."""
    limit = await fleet.limit(service="sts", action="GetCallerIdentity", per_second=0, burst=1)
    keys = await enter(fleet, accounts(fleet)[0])
    async with (
        whoami(fleet) as base,
        client(fleet, "sts", region="eu-west-1") as elsewhere,
        client(fleet, "sts", keys) as member,
    ):
        for sts in (base, elsewhere, member):
            await sts.get_caller_identity()
            assert (await refusal(sts.get_caller_identity()))[0] == "Throttling"
        await limit.remove()
        await fleet.limit(service="sts", action="GetCallerIdentity", per_second=0, burst=1, shared=True)
        await base.get_caller_identity()
        assert (await refusal(member.get_caller_identity()))[0] == "Throttling"


# Counts


@both
async def test_calls_are_counted_by_kind(fleet: SimulatedFleet, partition: str) -> None:
    """Calls are counted by service, action, account, region and code; AssumeRole under the account of the role."""
    region = REGIONS[partition]
    one, two, _ = accounts(fleet, partition)
    keys = await enter(fleet, one)
    await enter(fleet, two)
    await enter(fleet, two)
    async with client(fleet, "sts", keys, region) as sts, client(fleet, "cloudwatch", keys, region) as cloudwatch:
        await sts.get_caller_identity()
        await fleet.fault(service="cloudwatch", code="Nope")
        await refusal(cloudwatch.list_metrics())
    counts = await fleet.counts()

    assert counts.calls("sts", "AssumeRole") == 3
    assert counts.calls("sts", "AssumeRole", account=two) == 2
    assert counts.calls("sts", "AssumeRole", account=two.id, region=region) == 2
    assert counts.calls(region="us-west-1") == 0
    assert counts.calls("sts", account=one) == 2
    assert counts.calls("cloudwatch") == counts.calls("monitoring") == 1
    assert counts.accounts("sts", "AssumeRole") == {one.id, two.id}
    assert counts.accounts(code="Nope") == {one.id}
    assert counts.codes == {"Nope": 1}
    assert counts.owners[one.id] == {f"arn:{partition}:sts::{one.id}:assumed-role/manage-role/test"}


async def test_concurrency_is_measured(fleet: SimulatedFleet) -> None:
    """The peak number of calls in flight is counted in total, by account, and by action."""
    one, two, _ = accounts(fleet)
    fault = await fleet.fault("hang", service="sts", action="AssumeRole")
    async with whoami(fleet) as sts, anyio.create_task_group() as tasks:

        async def assume(account: Account) -> None:
            await sts.assume_role(RoleArn=fleet.role_arn(account), RoleSessionName="test")

        for account in (one, one, two):
            tasks.start_soon(assume, account)
        await fleet.wait_until(service="sts", in_flight=3)
        await sts.get_caller_identity()
        await fault.remove()
    counts = await fleet.counts()

    assert counts.peak == 4
    assert counts.peak_by_account[one.id] == 2
    assert counts.peak_by_account[two.id] == 1
    assert counts.peak_by_action["sts", "AssumeRole"] == 3
    assert counts.in_flight == 0


async def test_counts_can_be_reset(fleet: SimulatedFleet) -> None:
    """`reset_counts` clears the counts, but not the gauges of calls in flight."""
    fault = await fleet.fault("hang", service="sts", action="GetCallerIdentity")
    await enter(fleet, accounts(fleet)[0])
    async with whoami(fleet) as sts, anyio.create_task_group() as tasks:
        tasks.start_soon(sts.get_caller_identity)
        await fleet.wait_until(in_flight=1)
        await fleet.reset_counts()
        counts = await fleet.counts()
        assert (counts.calls(), counts.in_flight, counts.peak) == (0, 1, 1)
        assert await fleet.assumed() == []
        await fault.remove()

    assert (await fleet.counts()).calls("sts", "GetCallerIdentity") == 1


def test_counts_show_the_gauges() -> None:
    """The repr of counts is one line of figures for a fleet of any size."""
    empty = {"calls": [], "in_flight": 1, "peak": 2, "peaks": [], "throttled": 3, "expired": 4}
    empty |= {"expired_early": 5, "expired_in_transit": 6, "owners": {}, "billed_metrics": 7, "data_points": 8}

    assert repr(Counts.from_json(empty)) == (
        "Counts(in_flight=1, peak=2, throttled=3, expired=4, expired_early=5, expired_in_transit=6, "
        "billed_metrics=7, data_points=8)"
    )


def test_controls_without_an_event_loop(fleet: SimulatedFleet) -> None:
    """Every control has a blocking counterpart."""
    controls = fleet.blocking
    limit = controls.limit(service="ec2", per_second=1)
    controls.fault("hang", service="ec2")
    arn = controls.add_role(accounts(fleet)[0], "extra", trusted=["*"])
    keys = controls.add_identity("alice")
    controls.wait_until(calls=0)
    controls.set_clock_offset(0)
    controls.set_token_lifetime(None)
    controls.change_account(accounts(fleet)[0], denied=False)
    controls.clear_faults()
    controls.reset_counts()

    assert limit.remove() == 0
    assert arn.endswith(":role/extra")
    assert keys.session_token is None
    assert controls.assumed() == []
    assert controls.expire_tokens("000000000000") == 0
    assert controls.counts().calls() == 0


def test_commands_need_the_control_token(fleet: SimulatedFleet) -> None:
    """The control path refuses commands without the fleet's token, and unknown commands."""
    import urllib.error
    import urllib.request

    for token, path, status in (("", "counts", "403"), (fleet._address.token, "no-such-command", "404")):
        request = urllib.request.Request(
            f"{fleet.endpoint_url}/.simulated-fleet/{path}", data=b"{}", headers={"X-Control-Token": token}
        )
        with pytest.raises(urllib.error.HTTPError, match=status):
            urllib.request.urlopen(request)
