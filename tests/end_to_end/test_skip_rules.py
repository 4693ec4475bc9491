"""Skip rules over a fleet: regions that are not enabled, SCPs and RCPs, and suspended accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from botocore import xform_name

from asyncauth import AccountSession
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

HERE, OFF = "us-east-1", "ap-east-1"


@pytest.fixture
def fleet() -> Iterator[SimulatedFleet]:
    regions = {"aws": (HERE, OFF, "us-west-2"), "aws-cn": ("cn-north-1", "cn-northwest-1")}
    with SimulatedFleet(
        {"aws": 1, "aws-cn": 1}, regions=regions, instances_per_region=1, disabled_regions=[OFF, "cn-northwest-1"]
    ) as fleet:
        yield fleet


async def list_regions(session: AccountSession) -> int:
    async with session.client("ec2") as ec2:
        return len((await ec2.describe_instances())["Reservations"])


async def list_tables(session: AccountSession) -> int:
    async with session.client("dynamodb") as dynamodb:
        return len((await dynamodb.list_tables())["TableNames"])


@pytest.mark.parametrize("job", [list_regions, list_tables, who_am_i])
async def test_a_region_that_is_not_enabled_is_skipped(fleet: SimulatedFleet, job: object) -> None:
    """Each protocol has a code of its own for it; unlike bad keys, the token is accepted by STS elsewhere."""
    async with pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts)  # type: ignore[arg-type]

    statuses = {outcome.region_name: (outcome.status, outcome.phase) for outcome in report}
    assert statuses == {
        HERE: ("succeeded", "job"),
        OFF: ("skipped", "region"),
        "us-west-2": ("succeeded", "job"),
        "cn-north-1": ("succeeded", "job"),
        "cn-northwest-1": ("skipped", "region"),
    }
    assert all((outcome.reason or "").startswith("region not enabled (") for outcome in report.skipped)


async def test_a_token_that_is_refused_everywhere_is_a_failure(fleet: SimulatedFleet) -> None:
    """STS in the default region refuses the token, too, so the outcome is failed with AWS's code."""
    await fleet.fault("error", service="ec2", code="AuthFailure", status=401)
    await fleet.fault("error", service="sts", action="GetCallerIdentity", code="InvalidClientTokenId", status=403)
    async with pool_over(fleet) as pool:
        report = await pool.map(list_regions, fleet.accounts[:1])

    assert {(outcome.status, outcome.error_code, outcome.phase) for outcome in report} == {
        ("failed", "AuthFailure", "job")
    }


async def test_a_service_that_refuses_in_an_enabled_region_is_a_failure(fleet: SimulatedFleet) -> None:
    """EC2 also answers AuthFailure for an image that is not shared; STS in the region accepts the token."""
    await fleet.fault("error", service="ec2", region="us-west-2", code="AuthFailure", status=401, message="no image")
    async with pool_over(fleet) as pool:
        report = await pool.map(list_regions, fleet.accounts[:1], ["us-west-2"])

    assert [(outcome.status, outcome.error_code) for outcome in report] == [("failed", "AuthFailure")]


async def test_a_failed_check_of_the_region_keeps_the_jobs_error(fleet: SimulatedFleet) -> None:
    """STS closes the connection during the check; the outcome has the job's error."""
    await fleet.fault("error", service="ec2", region=OFF, code="AuthFailure", status=401)
    await fleet.fault("reset", service="sts", action="GetCallerIdentity")
    async with pool_over(fleet) as pool:
        report = await pool.map(list_regions, fleet.accounts[:1], [OFF])

    assert [(outcome.status, outcome.error_code, outcome.phase) for outcome in report] == [
        ("failed", "AuthFailure", "job")
    ]


@pytest.mark.parametrize(
    ("message", "reason", "cause"),
    [
        ("with an explicit deny in a service control policy", "denied by an SCP", "service control policy"),
        (
            "because no service control policy allows the sts:AssumeRole action",
            "denied by an SCP",
            "service control policy",
        ),
        ("The account is suspended", "account suspended", "suspended account"),
    ],
)
async def test_a_denied_role_is_skipped_where_sts_names_the_cause(
    fleet: SimulatedFleet, message: str, reason: str, cause: str
) -> None:
    """A run skips the account, and the preflight reports the cause."""
    await fleet.fault("error", service="sts", action="AssumeRole", code="AccessDenied", status=403, message=message)
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, fleet.accounts, [HERE, "cn-north-1"])
        coverage = await pool.warm(fleet.accounts)

    assert {(outcome.status, outcome.reason) for outcome in report} == {("skipped", f"{reason} (AccessDenied)")}
    assert coverage.causes == {cause: 2}


@pytest.mark.parametrize(
    ("service", "action", "code"),
    [
        ("ec2", "DescribeRegions", "UnauthorizedOperation"),
        ("sns", "ListTopics", "AuthorizationError"),
        ("lambda", "ListFunctions", "AccessDeniedException"),
        ("s3", "ListBuckets", "AccessDenied"),
    ],
)
@pytest.mark.parametrize("policy", ["service", "resource"])
async def test_a_denial_by_an_scp_or_rcp_is_skipped_whatever_its_code(
    fleet: SimulatedFleet, service: str, action: str, code: str, policy: str
) -> None:
    """Each service has a code of its own for a denial; in both partitions the message decides."""
    message = f"User: arn:aws:sts::1:assumed-role/a/b is not authorized to perform: {service}:{action}"
    by_policy = f"{message} on resource: * with an explicit deny in a {policy} control policy"
    by_identity = f"{message} because no identity-based policy allows the {service}:{action} action"

    async def job(session: AccountSession) -> None:
        provider: Any = session  # the stubs know literal service names only
        async with provider.client(service) as client:
            await getattr(client, xform_name(action))()

    async def in_a_group(session: AccountSession) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(job, session)
            group.start_soon(job, session)

    fault = await fleet.fault("error", service=service, action=action, code=code, status=403, message=by_policy)
    async with pool_over(fleet) as pool:
        denied = [*await pool.map(job, fleet.accounts), *await pool.map(in_a_group, fleet.accounts)]
        await fault.remove()
        await fleet.fault("error", service=service, action=action, code=code, status=403, message=by_identity)
        failed = await pool.map(job, fleet.accounts)

    assert {(outcome.status, outcome.reason) for outcome in denied} == {("skipped", f"denied by an SCP ({code})")}
    assert {(outcome.status, outcome.reason) for outcome in failed} == {("failed", None)}


@pytest.mark.parametrize(
    "message", ["with an explicit deny in a service control policy", "because no service control policy allows it"]
)
async def test_a_denial_by_an_scp_is_skipped(fleet: SimulatedFleet, message: str) -> None:
    """AWS's message names the policy type; any other denial is a failure."""
    scp = f"You are not authorized to perform this operation. ... {message}"
    await fleet.fault("error", service="ec2", region=HERE, code="UnauthorizedOperation", status=403, message=scp)
    await fleet.fault("error", service="ec2", region="cn-north-1", code="UnauthorizedOperation", status=403)
    async with pool_over(fleet) as pool:
        report = await pool.map(list_regions, fleet.accounts, [HERE, "cn-north-1"])

    assert [(outcome.status, outcome.reason) for outcome in report] == [
        ("skipped", "denied by an SCP (UnauthorizedOperation)"),
        ("failed", None),
    ]
    assert report[0].error_code == "UnauthorizedOperation"
    assert message in str(report[0].error)
    assert not report.skipped[0].ok
