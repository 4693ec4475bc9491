"""A clock that is off by more than AWS accepts, in a run: one message with the offset, and no token more."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from asyncauth import AccountSession, SessionPool
from asyncauth.testing import SimulatedFleet
from tests.support.sources import write_home_file

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
@pytest.mark.parametrize(("service", "method"), [("ec2", "describe_regions"), ("dynamodb", "list_tables")])
async def test_a_job_that_a_wrong_clock_fails_assumes_no_role_again(
    service: str, method: str, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EC2 has the code of an expired token, JSON services that of a wrong signature; the summary has the offset."""
    code, message = {
        "ec2": ("RequestExpired", "Request has expired."),
        "dynamodb": ("InvalidSignatureException", "Signature not yet current: 20260101T000000Z"),
    }[service]

    async def job(session: AccountSession) -> None:
        async with session.client(service) as client:  # type: ignore[call-overload]  # a variable
            await getattr(client, method)()

    async with SimulatedFleet({partition: 5}, clock_offset=-480) as fleet:
        for name, value in fleet.environ(partition).items():
            monkeypatch.setenv(name, value)
        await fleet.fault("error", service=service, code=code, status=400, message=message)
        async with SessionPool() as pool:
            report = await pool.map(job, fleet.accounts)
            assumed = pool.statistics().tokens_assumed

    assert assumed == 5
    assert isinstance(report[0].error, ClientError)
    assert "(this machine's clock is off: it is 8 min " in report.summary()
    assert "ahead of AWS; AWS accepts 5 minutes, so correct the clock (NTP)" in report.summary()


async def test_a_profile_that_assumes_a_role_names_the_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto's own AssumeRole of a source fails by the clock, not by the role and keys."""
    async with SimulatedFleet(accounts=1, clock_offset=-1200, max_clock_skew=300) as fleet:
        for name, value in fleet.environ().items():
            monkeypatch.setenv(name, value)
        write_home_file(
            ".aws/config",
            f"[profile p]\nrole_arn = arn:aws:iam::{fleet.accounts[0].id}:role/manage-role\n"
            "credential_source = Environment\nregion = eu-central-1\n",
        )
        async with SessionPool(profile="p") as pool:
            report = await pool.map(nothing, fleet.accounts)

    assert "AssumeRole answered SignatureDoesNotMatch: this machine's clock is off: it is 20 min" in report.summary()


async def nothing(_: AccountSession) -> None:
    """Make no call."""
