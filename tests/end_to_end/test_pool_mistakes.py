"""Mistakes that are easily made, at the doors of a pool: each is refused at once, in words that say what is right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.config import AioConfig

from asyncauth import (
    Account,
    ConfigurationError,
    Keys,
    PartitionMismatch,
    Plan,
    RateLimit,
    Role,
    SessionPool,
)
from asyncauth.caches import MemoryTokenCache
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asyncauth import AccountSession

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "s" * 40)


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 2, "aws-cn": 1}, regions=["us-east-1", "cn-north-1"], instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    await running_fleet.reset_counts()
    yield running_fleet
    await running_fleet.clear_faults()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate_limits": ["ec2"]}, r"rate_limits= holds 'ec2'; it may hold RateLimit objects"),
        (
            {"rate_limits": RateLimit("ec2", rate=1)},
            r"rate_limits= must be a list of RateLimit objects.*write \[RateLimit",
        ),
        ({"refresh": 900}, r"refresh= must be a RefreshPolicy, got 900"),
        ({"token_cache": "/var/cache"}, r"token_cache= must be a TokenCache.*a str has no slot"),
        ({"keys": ("AKIAIOSFODNN7EXAMPLE", "hunter2")}, r"keys= must be Keys\(.*got a tuple"),
        ({"keys": "AKIAIOSFODNN7EXAMPLE"}, r"keys= must be Keys\(.*got a str"),
        ({"role": "arn:aws:iam::123456789012:role/x"}, r"role is a name.*an ARN can be given as an account"),
        ({"role": None}, r"role must be a Role or a role's name, got None"),
    ],
)
def test_what_a_pool_cannot_be_made_of(arguments: dict[str, Any], message: str) -> None:
    """It is refused where it is made, not where it is opened or used; no key is shown."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        SessionPool(**({"keys": KEYS} | arguments))

    assert not {"hunter2", "AKIAIOSFODNN7EXAMPLE"} & set(re.findall(r"\w+", str(raised.value)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"regions": None}, "regions of account 123456789012 must be a sequence of names, got None"),
        ({"regions": (1,)}, "regions of account 123456789012 must hold region names, got 1"),
        ({"regions": ("uss-*",)}, r"the pattern 'uss-\*' in regions of account 123456789012 matches no region of aws"),
        ({"regions": ("cn-*",)}, r"the pattern 'cn-\*' in regions of account 123456789012 matches no region of aws"),
        ({"tags": None}, "tags of account 123456789012 must be a mapping, got None"),
    ],
)
def test_what_an_account_cannot_have(arguments: dict[str, Any], message: str) -> None:
    """A pattern that matches nothing would be a target that touches nothing, and looks well."""
    with pytest.raises(ConfigurationError, match=message):
        Account("123456789012", **arguments)


def test_a_roles_path_is_taken_with_its_name() -> None:
    """As an account takes it."""
    assert SessionPool(role="team/deploy", keys=KEYS).role == Role(name="deploy", path="/team/")


async def test_an_empty_cache_is_a_cache(fleet: SimulatedFleet) -> None:
    """It is the one that was given that keeps the tokens; a role that is denied is no token."""
    cache = MemoryTokenCache(max_size=50)
    denied = fleet.accounts[1].id
    await fleet.fault(service="sts", action="AssumeRole", account=denied, code="AccessDenied", status=403)
    async with pool_over(fleet, token_cache=cache) as pool:
        report = await pool.map(who_am_i, fleet.accounts[:2])

        assert [outcome.status for outcome in report] == ["succeeded", "failed"]
        assert (cache.misses, len(cache)) == (2, 2)
        assert pool.statistics().tokens_cached == 1
        assert "1 cached" in repr(pool)


async def test_how_many_to_warm_at_once_is_a_count(fleet: SimulatedFleet) -> None:
    """As in `map`: none is no number."""
    async with pool_over(fleet) as pool:
        with pytest.raises(ConfigurationError, match="max_at_once"):
            await pool.warm(fleet.accounts[:1], max_at_once=0)


async def test_a_source_that_is_missing(fleet: SimulatedFleet) -> None:
    """Account and partition are named, and what to add."""
    async with pool_over(fleet, sources={"aws": fleet.keys("aws")}) as pool:
        with pytest.raises(PartitionMismatch, match=r"'aws-cn', which account \d{12} is in.*add 'aws-cn'") as raised:
            await pool.session(fleet.accounts[-1])

    assert raised.value.account == fleet.accounts[-1].id


class TestRun:
    async def test_a_run_that_is_not_entered_says_how(self, fleet: SimulatedFleet) -> None:
        """Nothing would ever come of it, so waiting for its outcomes is refused."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match=r"async with pool.as_completed\(...\) as outcomes"):
                async for _ in pool.as_completed(who_am_i, fleet.accounts):
                    pass
            with pytest.raises(ConfigurationError, match=r"async with pool.as_completed\(...\) as outcomes"):
                await pool.as_completed(who_am_i, fleet.accounts).collect()

    async def test_a_job_is_no_coroutine_and_no_none(self, fleet: SimulatedFleet) -> None:
        """A coroutine is closed, so that nobody is told that it was never awaited."""

        async def job(session: AccountSession) -> None: ...

        async def pages(session: AccountSession) -> AsyncIterator[int]:
            yield 1

        async def none() -> None: ...

        async def two(session: AccountSession, region: str) -> None: ...

        session: Any = None
        async with pool_over(fleet) as pool:
            for wrong, message in (
                (job(session), r"called already: pass job, not job\(\.\.\.\)"),
                (None, "must be an async callable that takes an AccountSession, got None"),
                (pages, "pages yields; it must return: collect what it yields in a list"),
                (none, r"none\(\) -> 'None' is called with one AccountSession \(too many positional arguments\)"),
                (
                    two,
                    r"two\(.*\) -> 'None' is called with one .*'region'\); fix other .* with functools.partial",
                ),
            ):
                with pytest.raises(ConfigurationError, match=message):
                    await pool.map(wrong, fleet.accounts)  # type: ignore[arg-type]

    async def test_a_job_that_is_not_async(self, fleet: SimulatedFleet) -> None:
        """It is named, with what it returned and what to write."""

        def count(_: AccountSession) -> int:
            return 1

        async with pool_over(fleet) as pool:
            report = await pool.map(count, fleet.accounts, max_at_once=1)  # type: ignore[arg-type,var-annotated]

        assert {type(outcome.error) for outcome in report} == {ConfigurationError}
        assert "count is not async: it returned int" in str(report[0].error)
        # What is wrong with it is wrong for all: it was called once, and no other role was assumed.
        assert (await fleet.counts()).calls("sts", "AssumeRole") == 1

    async def test_clients_that_are_not_entered_say_how(self, fleet: SimulatedFleet) -> None:
        """A method of a client is asked of what only lends one."""
        async with pool_over(fleet) as pool:
            session = await pool.session(fleet.accounts[0])
            for lease in (session.client("sts"), pool.client("sts", fleet.accounts[0])):
                with pytest.raises(AttributeError, match=r"'get_caller_identity': this lends a client.*async with"):
                    _ = lease.get_caller_identity  # type: ignore[attr-defined]
                with pytest.raises(TypeError, match="nothing to await; write `async with"):
                    await lease
                with pytest.raises(TypeError, match="write `async with"), lease:  # type: ignore[attr-defined]
                    pass

    async def test_roles_of_one_account_are_two_things(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """What one role has done is not done for another; and whoever is asked sees both."""
        reader, writer = Account(fleet.accounts[0].id, role="manage-role"), fleet.accounts[0]
        done: list[str | None] = []
        plans: list[Plan] = []

        async def job(session: AccountSession) -> None:
            done.append(session.role_arn)

        def confirm(plan: Plan) -> bool:
            plans.append(plan)
            return True

        journal = tmp_path / "journal"
        async with pool_over(fleet, role=Role("manage-role")) as pool:
            await pool.map(job, [reader], journal=journal)
            report = await pool.map(job, [reader, writer], journal=journal)
            assert [outcome.status for outcome in report] == ["skipped", "succeeded"]

            other = Account(fleet.accounts[0].id, role="other")
            await pool.map(job, [reader, other], confirm=confirm)
        assert [arn.rpartition("/")[2] for arn in plans[0].roles] == ["manage-role", "other"]
        assert plans[0].accounts == (fleet.accounts[0].id,)

    @pytest.mark.parametrize("retry", [ValueError, (ValueError,), "often"])
    async def test_a_retry_is_a_retry(self, fleet: SimulatedFleet, retry: object) -> None:
        """Or a number of attempts."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="must be a Retry, a number of attempts, or None"):
                await pool.map(who_am_i, fleet.accounts, retry=retry)  # type: ignore[arg-type]

    async def test_accounts_that_can_be_read_once(self, fleet: SimulatedFleet) -> None:
        """Counting them would use them up, though they have a length."""

        class Once:
            def __init__(self, accounts: list[Account]) -> None:
                self._left = iter(accounts)

            def __len__(self) -> int:
                return 2

            def __iter__(self) -> Iterator[Account]:
                return self._left

        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, Once(list(fleet.accounts[:2])))

        assert len(report.succeeded) == 2

    async def test_throttling_in_a_task_group_is_tried_again(self, fleet: SimulatedFleet) -> None:
        """A group passes by itself if all in it do, and has the code that all have."""
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", times=2)
        calls = 0

        async def job(session: AccountSession) -> None:
            nonlocal calls
            calls += 1
            async with anyio.create_task_group() as group:
                group.start_soon(ask_once, session)

        async def ask_once(session: AccountSession) -> None:
            async with session.client("sts", config=AioConfig(retries={"total_max_attempts": 1})) as sts:
                await sts.get_caller_identity()

        async with pool_over(fleet) as pool:
            report = await pool.map(job, fleet.accounts[:1], retry=2)
            assert (calls, report[0].status, report[0].error_code) == (2, "failed", "Throttling")

            report = await pool.map(job, fleet.accounts[:1])
            assert report[0].ok

    async def test_what_was_done_when_a_producer_failed_is_not_lost(
        self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """`map` says so in the log; a run that was collected has it unread."""
        failed = OSError("page 3 could not be listed")

        async def listing() -> AsyncIterator[Account]:
            for account in fleet.accounts[:2]:
                yield account
            raise failed

        async with pool_over(fleet) as pool:
            with pytest.raises(OSError, match="page 3"):
                await pool.map(who_am_i, listing())
            assert "the run ended early (OSError): 2 targets: 2 succeeded" in caplog.text

            async with pool.as_completed(who_am_i, listing()) as outcomes:
                with pytest.raises(OSError, match="page 3"):
                    await outcomes.collect()
                assert [outcome.status for outcome in outcomes.unread()] == ["succeeded", "succeeded"]

    async def test_a_progress_that_would_have_to_wait(self, fleet: SimulatedFleet) -> None:
        """Nobody would await it."""

        async def show(_: object) -> None: ...

        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="must be a plain function"):
                await pool.map(who_am_i, fleet.accounts, progress=show)  # type: ignore[arg-type]

    async def test_no_confirm_is_none(self, fleet: SimulatedFleet) -> None:
        """None asks nobody, as False does."""
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, fleet.accounts[:1], confirm=None)  # type: ignore[arg-type]

        assert report[0].ok

    async def test_a_summary_says_why_targets_were_skipped(self, fleet: SimulatedFleet) -> None:
        """Nothing done is no success: the account was taken for one of another partition."""
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, [fleet.accounts[0].id], regions=["cn-north-1"])

        assert report.summary().endswith("skipped 1: none of the regions is in partition aws")
