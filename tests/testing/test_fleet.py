"""Life cycle and contents of the simulated fleet: start, end without leftovers, accounts, regions, resources."""

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


def runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    status = pathlib.Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_the_end(pid: int) -> None:
    """Wait until a process has ended, which need not be a child of this one."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 10)[0], f"process {pid} still runs"
    finally:
        os.close(handle)


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 3, "aws-cn": 2}, instances_per_region=(1, 4), seed=7) as fleet:
        yield fleet


# Life cycle


async def test_it_starts_and_ends_with_its_block() -> None:
    """Within the block a child process listens on 127.0.0.1; after it, process and port are gone."""
    async with SimulatedFleet(1) as fleet:
        pid, port = fleet.pid, fleet.port
        assert runs(pid)
        assert listens(port)

    assert not runs(pid)
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
    assert not runs(pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_it_works_on_asyncio_and_on_trio() -> None:
    """The fleet and its controls run on both backends."""
    async with SimulatedFleet(1) as fleet:
        await fleet.fault("hang", service="ec2")
        counts = await fleet.counts()

    assert counts.calls() == 0


async def test_an_exception_in_the_block_ends_the_fleet() -> None:
    """An exception in the block ends the fleet, and is raised unchanged."""
    pids: list[int] = []

    async def body() -> None:
        async with SimulatedFleet(1) as fleet:
            pids.append(fleet.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()

    assert not runs(pids[0])


async def test_cancellation_of_the_block_ends_the_fleet() -> None:
    """A cancelled block ends the fleet before the cancellation continues."""
    fleet = SimulatedFleet(1)
    with anyio.CancelScope() as scope:
        async with fleet:
            pid = fleet.pid
            scope.cancel()
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert not runs(pid)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_cancellation_of_the_start_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled during the handshake ends its child process."""
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
    assert not runs(started[0])


def test_the_fleet_ends_with_a_killed_parent(tmp_path: pathlib.Path) -> None:
    """A fleet ends by itself after its parent process was killed with SIGKILL."""
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
        assert runs(pid)
        parent.send_signal(signal.SIGKILL)

    wait_for_the_end(pid)
    assert not listens(port)


def test_a_fork_of_the_parent_does_not_keep_the_fleet(tmp_path: pathlib.Path) -> None:
    """The fleet ends with its parent, even if a fork of the parent keeps the pipe between them open."""
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


def test_no_temporary_file_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A fleet has no named temporary file, even while it runs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with SimulatedFleet(1) as fleet:
        fleet.blocking.preload("ec2")

        assert list(tmp_path.iterdir()) == []


def test_stop_can_be_called_at_any_time() -> None:
    """`stop` can be called before the start, and again after the end."""
    fleet = SimulatedFleet(1)
    fleet.stop()
    fleet.start()
    fleet.stop()
    fleet.stop()

    assert "stopped" in repr(fleet)


def test_a_fleet_is_started_once() -> None:
    """A second start is refused."""
    with SimulatedFleet(1) as fleet, pytest.raises(RuntimeError, match="started before"):
        fleet.start()


def test_a_child_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that does not end within the timeout is killed."""
    fleet = SimulatedFleet(1).start()
    pid = fleet.pid
    os.kill(pid, signal.SIGSTOP)
    end = _process._end
    monkeypatch.setattr(_process, "_end", lambda process, log, timeout: end(process, log, min(timeout, 0.05)))
    fleet.stop()

    assert not runs(pid)


def test_the_error_of_a_failed_start_has_its_output(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """The error of a child that does not start contains its standard error."""
    broken = tmp_path / "child.py"
    broken.write_text("raise SystemExit('the disk is full')")
    monkeypatch.setattr(_process, "_CHILD", broken)

    with pytest.raises(FleetError, match="the disk is full"):
        SimulatedFleet(1).start()


def test_a_missing_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the child cannot be launched, the error is the operating system's, and no handle is left open."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    with pytest.raises(FileNotFoundError):
        SimulatedFleet(1).start()


def test_the_start_has_a_timeout(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """A child that does not announce its port within `start_timeout` is an error."""
    broken = tmp_path / "child.py"
    broken.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(_process, "_CHILD", broken)

    with pytest.raises(FleetError, match=r"within 0\.2 s"):
        SimulatedFleet(1, start_timeout=0.2).start()


async def test_a_command_to_an_ended_child_is_a_fleet_error() -> None:
    """After an unexpected end of the child, a command raises FleetError instead of "connection refused"."""
    async with SimulatedFleet(1) as fleet:
        os.kill(fleet.pid, signal.SIGKILL)
        wait_for_the_end(fleet.pid)

        with pytest.raises(FleetError, match="process has ended"):
            await fleet.counts()


def test_without_moto_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without moto the error names the extra that installs it."""
    monkeypatch.setattr(_process.importlib.util, "find_spec", lambda name: None if name == "moto" else object())

    with pytest.raises(ImportError, match=r"needs moto: .*asyncauth\[simulate\]"):
        SimulatedFleet(1).start()


def test_the_address_needs_a_started_fleet() -> None:
    """The address of a fleet that was not started is a RuntimeError."""
    with pytest.raises(RuntimeError, match="was not started"):
        _ = SimulatedFleet(1).endpoint_url


def test_output_of_the_child_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings and tracebacks of the child can be read while it runs, and are logged at its end."""
    with SimulatedFleet(1) as fleet:
        connection = http.client.HTTPConnection("127.0.0.1", fleet.port)
        connection.request("POST", "/.simulated-fleet/fault", b"no json", {"X-Control-Token": fleet._address.token})
        assert connection.getresponse().status == 501
        connection.close()

        assert "JSONDecodeError" in fleet.log()

    assert "the simulated fleet wrote:" in caplog.text
    assert "JSONDecodeError" in caplog.text


def test_reprs_contain_no_secrets() -> None:
    """The reprs of the fleet and its address contain neither keys nor the control token."""
    with SimulatedFleet(1) as fleet:
        shown = f"{fleet!r} {fleet._address!r} {fleet.keys()!r} {vars(fleet.blocking)!r}"

        assert fleet.keys().secret_access_key not in shown
        assert fleet._address.token not in shown


def test_settings_of_the_machine_do_not_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a profile nor a proxy of the machine reaches moto or boto in the child."""
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "000000000000")
    with SimulatedFleet(1) as fleet:
        fleet.blocking.preload("ec2", "cloudwatch")

        assert fleet.log() == ""


# Contents


def test_the_repr_shows_address_and_accounts() -> None:
    """The repr shows the fleet's state or address, and the number of accounts by partition."""
    fleet = SimulatedFleet({"aws": 3, "aws-cn": 1})

    assert repr(fleet) == "<SimulatedFleet not started [accounts: 3 in aws, 1 in aws-cn]>"


def test_numbers_make_accounts() -> None:
    """A number makes accounts of the global partition; a mapping, accounts of each partition."""
    fleet = SimulatedFleet({"aws": 2, "aws-cn": 1, "aws-us-gov": 1})

    assert [account.partition for account in fleet.accounts] == ["aws", "aws", "aws-cn", "aws-us-gov"]
    assert len({account.id for account in fleet.accounts}) == 4
    assert [account.regions for account in fleet.accounts[1:]] == [
        ("us-east-1", "eu-west-1"),
        ("cn-north-1",),
        ("us-gov-west-1",),
    ]
    assert len(SimulatedFleet(4).accounts) == 4


def test_given_accounts_keep_their_values() -> None:
    """Given accounts keep their role, external id and regions; region patterns are expanded."""
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
    """A list of region names is split by partition; an unknown region, or one of another partition, is refused."""
    assert SimulatedFleet({"aws": 1, "aws-cn": 1}, regions=["cn-northwest-1", "eu-west-3"]).regions == {
        "aws": ("eu-west-3",),
        "aws-cn": ("cn-northwest-1",),
    }
    with pytest.raises(ConfigurationError):
        SimulatedFleet(1, regions=["mars-east-1"])
    with pytest.raises(ConfigurationError):
        SimulatedFleet(1, regions={"aws": ["cn-north-1"]})


def test_unknown_accounts_are_refused() -> None:
    """An account or partition that the fleet does not have is a ValueError."""
    with pytest.raises(ValueError, match="the fleet has no account 444444444444"):
        SimulatedFleet(1, denied=["444444444444"])
    with pytest.raises(ValueError, match="no accounts in 'aws-cn', only in aws"):
        SimulatedFleet(1).keys("aws-cn")


def test_an_unmodified_program_needs_only_the_environment(shared: SimulatedFleet) -> None:
    """An unmodified program runs against the fleet with `environ()`, in each partition."""
    code = (
        "from botocore.session import get_session\n"
        "print(get_session().create_client('sts').get_caller_identity()['Arn'])"
    )
    for partition in ("aws", "aws-cn"):
        environ = {**os.environ, **shared.environ(partition), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)

        assert done.stdout.strip() == (f"arn:{partition}:iam::{shared.management(partition).id}:user/fleet-operator")


async def test_accounts_have_their_instances(shared: SimulatedFleet) -> None:
    """Each account has the given number of its own instances in its regions, in both partitions."""
    for account in (shared.accounts[0], shared.accounts[-1]):
        region = account.regions[0]
        async with client(shared, "ec2", await enter(shared, account, region), region) as ec2:
            answer = await ec2.describe_instances()

        assert {reservation["OwnerId"] for reservation in answer["Reservations"]} == {account.id}
        assert len(answer["Reservations"]) == shared.instances(account, region)
        assert answer["Reservations"][0]["Instances"][0]["Placement"]["AvailabilityZone"].startswith(region)


async def test_a_region_without_instances_is_empty(shared: SimulatedFleet) -> None:
    """A region in which the fleet has no instances answers with an empty list."""
    async with client(shared, "ec2", await enter(shared, shared.accounts[0]), "us-west-2") as ec2:
        assert (await ec2.describe_instances())["Reservations"] == []


async def test_the_same_seed_gives_the_same_fleet(shared: SimulatedFleet) -> None:
    """The same seed gives the same sizes, ids, types and tags, in any order of calls."""
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
    """In every partition the base identity assumes the role of an account, and moto answers as that account."""
    async with SimulatedFleet(dict.fromkeys(partitions(), 1), instances_per_region=1) as fleet:
        for account in fleet.accounts:
            region = account.regions[0]
            keys = await enter(fleet, account, region)
            async with client(fleet, "ec2", keys, region) as ec2:
                answer = await ec2.describe_instances()

            assert [page["OwnerId"] for page in answer["Reservations"]] == [account.id]


async def test_instance_type_offerings(shared: SimulatedFleet) -> None:
    """The lists of instance types, which the child reads at first use, are complete."""
    async with client(shared, "ec2", region="eu-west-1") as ec2:
        offered = await ec2.describe_instance_type_offerings(LocationType="availability-zone")

    assert {one["Location"][:-1] for one in offered["InstanceTypeOfferings"]} == {"eu-west-1"}


async def test_every_instance_has_metrics(shared: SimulatedFleet) -> None:
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
        for partition, region in (("aws", "us-east-1"), ("aws-cn", "cn-northwest-1")):
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
    """Only the account that stores a secret can read it."""
    ours, theirs = shared.accounts[0], shared.accounts[1]
    async with client(shared, "secretsmanager", await enter(shared, ours)) as secrets:
        await secrets.create_secret(Name="base-keys", SecretString="s3cret")
        assert (await secrets.get_secret_value(SecretId="base-keys"))["SecretString"] == "s3cret"
    async with client(shared, "secretsmanager", await enter(shared, theirs)) as secrets:
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            await secrets.get_secret_value(SecretId="base-keys")


async def test_the_regions_of_an_account() -> None:
    """EC2 and Account Management list the regions of the account's partition, and those that are not enabled."""
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


async def test_only_the_management_account_reads_other_accounts() -> None:
    """A member account cannot read another account's regions, nor the management account those of another partition."""
    async with SimulatedFleet({"aws": 2, "aws-cn": 1}) as fleet:
        member = await enter(fleet, fleet.accounts[0])
        async with client(fleet, "account", member) as account:
            with pytest.raises(ClientError, match="AccessDeniedException"):
                await account.list_regions(AccountId=fleet.accounts[1].id)
        async with client(fleet, "account") as account:
            with pytest.raises(ClientError, match="AccessDeniedException"):
                await account.list_regions(AccountId=fleet.accounts[2].id)


async def test_a_thousand_accounts_start_at_once() -> None:
    """The contents of an account are made at its first call: the last of 1,000 accounts answers as itself."""
    async with SimulatedFleet(1000) as fleet:
        last = fleet.accounts[-1]
        async with client(fleet, "sts", await enter(fleet, last)) as sts:
            assert (await sts.get_caller_identity())["Account"] == last.id
