"""The simulated fleet's life: how it starts, what it consists of, and that nothing of it stays behind."""

from __future__ import annotations

import http.client
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account, ConfigurationError, Role
from asyncauth._aws.partitions import partitions
from asyncauth.testing import FleetError, SimulatedFleet, _process
from tests.support.fleet_clients import client, enter, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def lives(pid: int) -> bool:
    """Tell whether a process is there, and not merely waiting for its parent to take note of its end."""
    status = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_the_end(pid: int) -> None:
    """Wait, without being its parent, until a process has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 10)[0], f"process {pid} goes on"
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 3, "aws-cn": 2}, instances_per_region=(1, 4), seed=7) as fleet:
        yield fleet


# Life cycle


async def test_it_starts_and_ends_with_its_block() -> None:
    """Within the block a child process listens on 127.0.0.1; after it there is neither process nor port."""
    async with SimulatedFleet(1) as fleet:
        pid, port = fleet.pid, fleet.port
        assert lives(pid)
        assert listens(port)

    assert not lives(pid)
    assert not listens(port)


def test_it_works_without_an_event_loop() -> None:
    """`with` and the blocking controls do what `async with` and the awaited ones do."""
    with SimulatedFleet(1) as fleet:
        pid = fleet.pid
        fault = fleet.blocking.fault("reset", service="ec2")
        counts = fleet.blocking.counts()

        assert fault.hits() == 0
        assert fault.remove() == 0
        assert counts.calls() == 0
    assert not lives(pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it_works_on_asyncio_and_on_trio() -> None:
    """The fleet and its controls run on both backends."""
    async with SimulatedFleet(1) as fleet:
        await fleet.fault("hang", service="ec2")
        counts = await fleet.counts()

    assert counts.calls() == 0


async def test_a_body_that_raises_leaves_nothing() -> None:
    """An exception in the block ends the fleet, and goes on as it was."""
    pids: list[int] = []

    async def body() -> None:
        async with SimulatedFleet(1) as fleet:
            pids.append(fleet.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()

    assert not lives(pids[0])


async def test_cancellation_of_the_body_leaves_nothing() -> None:
    """A cancelled block ends the fleet before the cancellation goes on."""
    fleet = SimulatedFleet(1)
    with anyio.CancelScope() as scope:
        async with fleet:
            pid = fleet.pid
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert not lives(pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_cancellation_while_it_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled half-way ends the child that it had begun."""
    started: list[int] = []
    handshake = _process.ChildProcess._handshake
    scope = anyio.CancelScope()

    def cancelled_meanwhile(self: _process.ChildProcess, spec: dict[str, Any], timeout: float) -> int:
        started.append(self.pid)
        anyio.from_thread.run_sync(scope.cancel)
        return handshake(self, spec, timeout)

    monkeypatch.setattr(_process.ChildProcess, "_handshake", cancelled_meanwhile)
    with scope:
        async with SimulatedFleet(1):
            pytest.fail("the block was entered")

    assert scope.cancelled_caught
    assert len(started) == 1
    assert not lives(started[0])


def test_nothing_survives_a_killed_parent(tmp_path: pathlib.Path) -> None:
    """When the process that started a fleet is killed with SIGKILL, the fleet ends by itself."""
    code = (
        "from asyncauth.testing import SimulatedFleet\n"
        "import sys, time\n"
        "fleet = SimulatedFleet(1).start()\n"
        "print(fleet.pid, fleet.port, flush=True)\n"
        "time.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        pid, port = map(int, parent.stdout.readline().split())
        assert lives(pid)
        parent.send_signal(signal.SIGKILL)

    wait_for_the_end(pid)
    assert not listens(port)


def test_a_fork_that_lives_on_does_not_keep_it(tmp_path: pathlib.Path) -> None:
    """The fleet ends with its parent even when a process that the parent forked holds the pipe between them open."""
    code = (
        "from asyncauth.testing import SimulatedFleet\n"
        "import os, time\n"
        "fleet = SimulatedFleet(1).start()\n"
        "fork = os.fork()\n"
        "if fork:\n"
        "    print(fleet.pid, fork, flush=True)\n"
        "time.sleep(60)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, cwd=tmp_path) as parent:
        assert parent.stdout is not None
        pid, fork = map(int, parent.stdout.readline().split())
        parent.send_signal(signal.SIGKILL)

        try:
            wait_for_the_end(pid)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_no_file_stays_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A fleet leaves no temporary file, not even while it runs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with SimulatedFleet(1) as fleet:
        fleet.blocking.preload("ec2")

        assert list(tmp_path.iterdir()) == []


def test_stopping_twice_does_no_harm() -> None:
    """`stop` may be called before the start, and again after the end."""
    fleet = SimulatedFleet(1)
    fleet.stop()
    fleet.start()
    fleet.stop()
    fleet.stop()

    assert "stopped" in repr(fleet)


def test_a_fleet_is_started_once() -> None:
    """Starting again is refused: the ports, keys and counts of the first life are gone."""
    with SimulatedFleet(1) as fleet, pytest.raises(RuntimeError, match="started before"):
        fleet.start()


def test_a_child_that_ignores_its_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is stuck is killed, after a moment of patience."""
    fleet = SimulatedFleet(1).start()
    pid = fleet.pid
    os.kill(pid, signal.SIGSTOP)
    end = _process._end
    monkeypatch.setattr(_process, "_end", lambda process, log, patience: end(process, log, min(patience, 0.05)))
    fleet.stop()

    assert not lives(pid)


def test_a_child_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """What the child wrote to standard error is in the error when it does not start."""
    broken = tmp_path / "child.py"
    broken.write_text("raise SystemExit('the disk is full')")
    monkeypatch.setattr(_process, "_CHILD", broken)

    with pytest.raises(FleetError, match="the disk is full"):
        SimulatedFleet(1).start()


def test_an_interpreter_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the child cannot even be launched, the error is the operating system's, and nothing is left open."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    with pytest.raises(FileNotFoundError):
        SimulatedFleet(1).start()


def test_a_child_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A start is bounded in time."""
    broken = tmp_path / "child.py"
    broken.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(_process, "_CHILD", broken)

    with pytest.raises(FleetError, match=r"within 0\.2 s"):
        SimulatedFleet(1, start_timeout=0.2).start()


async def test_a_fleet_that_died_says_so() -> None:
    """When the child is gone in the middle, the next command says so instead of "connection refused"."""
    async with SimulatedFleet(1) as fleet:
        os.kill(fleet.pid, signal.SIGKILL)
        wait_for_the_end(fleet.pid)

        with pytest.raises(FleetError, match="process is gone"):
            await fleet.counts()


def test_without_moto_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without moto the fleet names the extra that brings it."""
    monkeypatch.setattr(_process.importlib.util, "find_spec", lambda name: None if name == "moto" else object())

    with pytest.raises(ImportError, match=r"needs moto: .*asyncauth\[simulate\]"):
        SimulatedFleet(1).start()


def test_what_needs_a_running_fleet_says_so() -> None:
    """The address of a fleet that was not started is a clear error."""
    with pytest.raises(RuntimeError, match="was not started"):
        _ = SimulatedFleet(1).endpoint_url


def test_what_the_child_wrote_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings and tracebacks of the child are there while it runs, and logged when it ends."""
    with SimulatedFleet(1) as fleet:
        connection = http.client.HTTPConnection("127.0.0.1", fleet.port)
        connection.request("POST", "/.simulated-fleet/fault", b"no json", {"X-Control-Token": fleet._address.token})
        assert connection.getresponse().status == 501
        connection.close()

        assert "JSONDecodeError" in fleet.log()

    assert "the simulated fleet wrote:" in caplog.text
    assert "JSONDecodeError" in caplog.text


def test_its_secrets_are_not_shown() -> None:
    """Neither the fleet's repr nor that of its address shows the keys or the token of its control."""
    with SimulatedFleet(1) as fleet:
        shown = f"{fleet!r} {fleet._address!r} {fleet.keys()!r} {vars(fleet.blocking)!r}"

        assert fleet.keys().secret_access_key not in shown
        assert fleet._address.token not in shown


def test_its_child_takes_nothing_from_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a profile that does not exist nor a proxy of the machine reaches moto or boto in the child."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "000000000000")
    with SimulatedFleet(1) as fleet:
        fleet.blocking.preload("ec2", "cloudwatch")

        assert fleet.log() == ""


# What it consists of


def test_its_repr_is_a_dashboard() -> None:
    """The repr says where the fleet is and how many accounts each partition has."""
    fleet = SimulatedFleet({"aws": 3, "aws-cn": 1})

    assert repr(fleet) == "<SimulatedFleet not started [accounts: 3 in aws, 1 in aws-cn]>"


def test_numbers_make_accounts() -> None:
    """A number stands for accounts of the global partition; a mapping, for those of each."""
    fleet = SimulatedFleet({"aws": 2, "aws-cn": 1, "aws-us-gov": 1})

    assert [account.partition for account in fleet.accounts] == ["aws", "aws", "aws-cn", "aws-us-gov"]
    assert len({account.id for account in fleet.accounts}) == 4
    assert [account.regions for account in fleet.accounts[1:]] == [
        ("us-east-1", "eu-west-1"),
        ("cn-north-1",),
        ("us-gov-west-1",),
    ]
    assert len(SimulatedFleet(4).accounts) == 4


def test_accounts_bring_their_own() -> None:
    """Given accounts keep their role, external id and regions; patterns are spelled out."""
    fleet = SimulatedFleet(
        [
            Account("111111111111", role="team/deploy", external_id="7c1e", regions=("eu-west-*",)),
            "222222222222",
            Account("333333333333", role=Role("other", external_id="9f")),
        ],
        role="entry",
    )

    assert fleet.role_arn("111111111111") == "arn:aws:iam::111111111111:role/team/deploy"
    assert fleet.role_arn("222222222222") == "arn:aws:iam::222222222222:role/entry"
    assert fleet.role_arn(fleet.accounts[2]) == "arn:aws:iam::333333333333:role/other"
    assert fleet.accounts[0].regions == ("eu-west-1", "eu-west-2", "eu-west-3")
    assert fleet.accounts[1].regions == ("us-east-1", "eu-west-1")


def test_regions_are_checked() -> None:
    """Region names go to their partitions by themselves, and an unknown one is refused."""
    assert SimulatedFleet({"aws": 1, "aws-cn": 1}, regions=["cn-northwest-1", "eu-west-3"]).regions == {
        "aws": ("eu-west-3",),
        "aws-cn": ("cn-northwest-1",),
    }
    with pytest.raises(ConfigurationError):
        SimulatedFleet(1, regions=["mars-east-1"])
    with pytest.raises(ConfigurationError):
        SimulatedFleet(1, regions={"aws": ["cn-north-1"]})


def test_strangers_are_refused() -> None:
    """Denying an account that the fleet does not have is a mistake of the test, and said so."""
    with pytest.raises(ValueError, match="444444444444 is not one of the fleet's"):
        SimulatedFleet(1, denied=["444444444444"])
    with pytest.raises(ValueError, match="no account in 'aws-cn', only in aws"):
        SimulatedFleet(1).keys("aws-cn")


def test_its_environment_is_all_a_program_needs(shared: SimulatedFleet) -> None:
    """A program that knows nothing of the fleet runs against it with `environ()`, in each partition."""
    code = (
        "from botocore.session import get_session\n"
        "print(get_session().create_client('sts').get_caller_identity()['Arn'])"
    )
    for partition in ("aws", "aws-cn"):
        environ = {**os.environ, **shared.environ(partition), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

        assert done.stdout.strip() == (f"arn:{partition}:iam::{shared.management(partition).id}:user/fleet-operator")


async def test_the_instances_are_those_that_were_asked_for(shared: SimulatedFleet) -> None:
    """Each account shows its own instances in its own regions, in both partitions."""
    for account in (shared.accounts[0], shared.accounts[-1]):
        region = account.regions[0]
        async with client(shared, "ec2", await enter(shared, account, region), region) as ec2:
            answer = await ec2.describe_instances()

        assert {reservation["OwnerId"] for reservation in answer["Reservations"]} == {account.id}
        assert len(answer["Reservations"]) == shared.instances(account, region)
        assert answer["Reservations"][0]["Instances"][0]["Placement"]["AvailabilityZone"].startswith(region)


async def test_a_region_without_instances_is_empty(shared: SimulatedFleet) -> None:
    """A region in which the fleet has nothing answers with nothing."""
    async with client(shared, "ec2", await enter(shared, shared.accounts[0]), "us-west-2") as ec2:
        assert (await ec2.describe_instances())["Reservations"] == []


async def test_the_same_seed_gives_the_same_fleet(shared: SimulatedFleet) -> None:
    """Sizes, ids, types and tags are the same for the same seed, in whatever order accounts are asked."""
    account = shared.accounts[1]

    async def ids(fleet: SimulatedFleet) -> set[str]:
        async with client(fleet, "ec2", await enter(fleet, account), "eu-west-1") as ec2:
            pages = (await ec2.describe_instances())["Reservations"]
        return {instance["InstanceId"] for page in pages for instance in page["Instances"]}

    async with SimulatedFleet({"aws": 3, "aws-cn": 2}, instances_per_region=(1, 4), seed=7) as twin:
        assert await ids(twin) == await ids(shared)
    assert SimulatedFleet(3, instances_per_region=(1, 100), seed=1).instances() != (
        SimulatedFleet(3, instances_per_region=(1, 100), seed=2).instances()
    )
    assert SimulatedFleet(3, instances_per_region=lambda account, region: len(region)).instances() == 3 * 18


async def test_every_partition_that_botocore_knows() -> None:
    """In each of the partitions the base identity enters an account, and moto answers as that account."""
    async with SimulatedFleet(dict.fromkeys(partitions(), 1), instances_per_region=1) as fleet:
        for account in fleet.accounts:
            region = account.regions[0]
            keys = await enter(fleet, account, region)
            async with client(fleet, "ec2", keys, region) as ec2:
                answer = await ec2.describe_instances()

            assert [page["OwnerId"] for page in answer["Reservations"]] == [account.id]


async def test_what_instances_may_be_had(shared: SimulatedFleet) -> None:
    """The lists of instance types, which are read late, are there when they are asked for."""
    async with client(shared, "ec2", region="eu-west-1") as ec2:
        offered = await ec2.describe_instance_type_offerings(LocationType="availability-zone")

    assert {one["Location"][:-1] for one in offered["InstanceTypeOfferings"]} == {"eu-west-1"}


async def test_metrics_are_there_for_every_instance(shared: SimulatedFleet) -> None:
    """CloudWatch has CPUUtilization of each instance, up to now, through ListMetrics, GetMetricData and statistics."""
    from datetime import UTC, datetime, timedelta

    account = shared.accounts[-1]
    end = datetime.now(UTC)
    async with client(shared, "cloudwatch", await enter(shared, account, "cn-north-1"), "cn-north-1") as cloudwatch:
        listed = (await cloudwatch.list_metrics(Namespace="AWS/EC2", MetricName="CPUUtilization"))["Metrics"]
        span = {"StartTime": end - timedelta(hours=2), "EndTime": end}
        data = await cloudwatch.get_metric_data(
            MetricDataQueries=[
                {"Id": "cpu", "MetricStat": {"Metric": listed[0], "Period": 300, "Stat": "Average"}},
            ],
            **span,
        )
        statistics = await cloudwatch.get_metric_statistics(**listed[0], Period=3600, Statistics=["Maximum"], **span)

    assert len(listed) == shared.instances(account, "cn-north-1")
    assert 22 <= len(data["MetricDataResults"][0]["Values"]) <= 25
    assert all(0 < value <= 100 for value in data["MetricDataResults"][0]["Values"])
    assert statistics["Datapoints"]


async def test_the_organization_lists_the_fleet() -> None:
    """ListAccounts of each management account gives its partition's accounts with names, state and tags."""
    given = [
        Account(f"{number}11111111111", partition=partition, name="billing", tags={"team": "money"})
        for number, partition in enumerate(("aws", "aws-cn"), 1)
    ]
    closed = Account("222222222222", partition="aws-cn", name="closed")
    async with SimulatedFleet([*given, closed], suspended=[closed]) as fleet:
        listed: dict[str, dict[str, Any]] = {}
        for partition, region in (("aws", "us-east-1"), ("aws-cn", "cn-north-1")):
            async with client(fleet, "organizations", region=region) as organizations:
                pages = organizations.get_paginator("list_accounts").paginate(MaxResults=1)
                here = {account["Id"]: account async for page in pages for account in page["Accounts"]}
            ours = {account.id for account in fleet.accounts if account.partition == partition}
            assert set(here) == {*ours, fleet.management(partition).id}
            listed |= here
        async with client(fleet, "organizations") as organizations:
            tags = await organizations.list_tags_for_resource(ResourceId=given[0].id)

    assert listed[given[0].id]["Name"] == "billing"
    assert listed[given[1].id]["Arn"].startswith("arn:aws-cn:organizations::")
    assert (listed[closed.id]["State"], listed[given[0].id]["State"]) == ("SUSPENDED", "ACTIVE")
    assert tags["Tags"] == [{"Key": "team", "Value": "money"}]


async def test_secrets_manager_keeps_a_secret(shared: SimulatedFleet) -> None:
    """A secret that one account keeps is there for it, and not for another."""
    ours, theirs = shared.accounts[0], shared.accounts[1]
    async with client(shared, "secretsmanager", await enter(shared, ours)) as secrets:
        await secrets.create_secret(Name="base-keys", SecretString="s3cret")
        assert (await secrets.get_secret_value(SecretId="base-keys"))["SecretString"] == "s3cret"
    async with client(shared, "secretsmanager", await enter(shared, theirs)) as secrets:
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            await secrets.get_secret_value(SecretId="base-keys")


async def test_the_regions_of_an_account() -> None:
    """EC2 and Account Management tell the regions of the account's own partition, and which are switched off."""
    async with SimulatedFleet(
        {"aws": 1, "aws-cn": 1}, regions=["us-east-1", "me-south-1"], disabled_regions=["eu-west-3"]
    ) as fleet:
        async with client(fleet, "ec2", await enter(fleet, fleet.accounts[0])) as ec2:
            enabled = {region["RegionName"] for region in (await ec2.describe_regions())["Regions"]}
            every = {
                region["RegionName"]: region["OptInStatus"]
                for region in (await ec2.describe_regions(AllRegions=True))["Regions"]
            }
            filtered = await ec2.describe_regions(
                AllRegions=True, Filters=[{"Name": "opt-in-status", "Values": ["opted-in"]}]
            )
            with pytest.raises(ClientError, match="InvalidParameterValue"):
                await ec2.describe_regions(RegionNames=["cn-north-1"])
        async with client(fleet, "account") as account:
            pages = account.get_paginator("list_regions").paginate(
                AccountId=fleet.accounts[0].id, MaxResults=10, RegionOptStatusContains=["ENABLED", "ENABLED_BY_DEFAULT"]
            )
            listed = {region["RegionName"] async for page in pages for region in page["Regions"]}
            await account.enable_region(RegionName="af-south-1", AccountId=fleet.accounts[0].id)
            status = await account.get_region_opt_status(RegionName="af-south-1", AccountId=fleet.accounts[0].id)
            await account.disable_region(RegionName="af-south-1", AccountId=fleet.accounts[0].id)
            then = await account.get_region_opt_status(RegionName="af-south-1", AccountId=fleet.accounts[0].id)
            foreign = account.get_region_opt_status(RegionName="cn-north-1")
            assert await refusal(foreign) == ("ValidationException", 400)
        async with client(fleet, "ec2", region="cn-north-1") as ec2:
            chinese = {region["RegionName"] for region in (await ec2.describe_regions())["Regions"]}

    assert {"us-east-1", "me-south-1"} <= enabled
    assert not {"eu-west-3", "af-south-1", "cn-north-1"} & enabled
    assert (every["us-east-1"], every["me-south-1"], every["eu-west-3"], every["af-south-1"]) == (
        "opt-in-not-required",
        "opted-in",
        "not-opted-in",
        "not-opted-in",
    )
    assert [region["RegionName"] for region in filtered["Regions"]] == ["me-south-1"]
    assert listed == enabled
    assert (status["RegionOptStatus"], then["RegionOptStatus"]) == ("ENABLED", "DISABLED")
    assert chinese == {"cn-north-1", "cn-northwest-1"}


async def test_only_the_management_account_asks_for_others() -> None:
    """A member account cannot read the regions of another, nor the management account those of another partition."""
    async with SimulatedFleet({"aws": 2, "aws-cn": 1}) as fleet:
        member = await enter(fleet, fleet.accounts[0])
        async with client(fleet, "account", member) as account:
            with pytest.raises(ClientError, match="AccessDeniedException"):
                await account.list_regions(AccountId=fleet.accounts[1].id)
        async with client(fleet, "account") as account:
            with pytest.raises(ClientError, match="AccessDeniedException"):
                await account.list_regions(AccountId=fleet.accounts[2].id)


async def test_a_thousand_accounts_start_as_one() -> None:
    """Accounts cost nothing until they are asked: the last of a thousand answers at once, as itself."""
    async with SimulatedFleet(1000) as fleet:
        last = fleet.accounts[-1]
        async with client(fleet, "sts", await enter(fleet, last)) as sts:
            assert (await sts.get_caller_identity())["Account"] == last.id
