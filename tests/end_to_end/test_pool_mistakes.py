"""Common mistakes in the use of a pool: each is refused at once, with a message that has the right form."""

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
        ({"token_cache": "/var/cache"}, r"token_cache= must be a TokenCache.*a str has no load"),
        ({"keys": ("AKIAIOSFODNN7EXAMPLE", "hunter2")}, r"keys= must be Keys\(.*got a tuple"),
        ({"keys": "AKIAIOSFODNN7EXAMPLE"}, r"keys= must be Keys\(.*got a str"),
        ({"role": "arn:aws:iam::123456789012:role/x"}, r"role must be a name.*an ARN can be given as an account"),
        ({"role": None}, r"role must be a Role or a role's name, got None"),
    ],
)
def test_invalid_arguments_of_a_pool(arguments: dict[str, Any], message: str) -> None:
    """They are refused at construction, not on opening or use; the message has no key."""
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
def test_invalid_arguments_of_an_account(arguments: dict[str, Any], message: str) -> None:
    """They are refused; a pattern that matches no region would be a target without any effect."""
    with pytest.raises(ConfigurationError, match=message):
        Account("123456789012", **arguments)


def test_a_roles_name_can_have_a_path() -> None:
    """A pool's role is split into path and name, like an account's."""
    assert SessionPool(role="team/deploy", keys=KEYS).role == Role(name="deploy", path="/team/")


async def test_a_given_cache_is_used(fleet: SimulatedFleet) -> None:
    """The given cache keeps the tokens, though it is empty at first; a denied role counts as no token."""
    cache = MemoryTokenCache(max_size=50)
    denied = fleet.accounts[1].id
    await fleet.fault(service="sts", action="AssumeRole", account=denied, code="AccessDenied", status=403)
    async with pool_over(fleet, token_cache=cache) as pool:
        report = await pool.map(who_am_i, fleet.accounts[:2])

        assert [outcome.status for outcome in report] == ["succeeded", "failed"]
        assert (cache.misses, len(cache)) == (2, 1)
        assert pool.statistics().tokens_cached == 1
        assert "1 cached" in repr(pool)


async def test_warm_checks_its_limit(fleet: SimulatedFleet) -> None:
    """`warm` refuses the same `max_at_once` as `map`."""
    async with pool_over(fleet) as pool:
        with pytest.raises(ConfigurationError, match="max_at_once"):
            await pool.warm(fleet.accounts[:1], max_at_once=0)


async def test_a_missing_source(fleet: SimulatedFleet) -> None:
    """The message names account and partition, and the argument to add."""
    async with pool_over(fleet, sources={"aws": fleet.keys("aws")}) as pool:
        with pytest.raises(PartitionMismatch, match=r"'aws-cn', which account \d{12} is in.*add 'aws-cn'") as raised:
            await pool.session(fleet.accounts[-1])

    assert raised.value.account == fleet.accounts[-1].id


class TestRun:
    async def test_a_run_must_be_entered(self, fleet: SimulatedFleet) -> None:
        """Waiting for outcomes of a run that was not entered would last forever, so it is refused."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match=r"async with pool.as_completed\(...\) as outcomes"):
                async for _ in pool.as_completed(who_am_i, fleet.accounts):
                    pass
            with pytest.raises(ConfigurationError, match=r"async with pool.as_completed\(...\) as outcomes"):
                await pool.as_completed(who_am_i, fleet.accounts).collect()

    async def test_invalid_jobs(self, fleet: SimulatedFleet) -> None:
        """They are refused with the right form; a coroutine is closed, so there is no warning about a missing await."""

        async def job(session: AccountSession) -> None: ...

        async def pages(session: AccountSession) -> AsyncIterator[int]:
            yield 1

        async def none() -> None: ...

        async def two(session: AccountSession, region: str) -> None: ...

        session: Any = None
        async with pool_over(fleet) as pool:
            for wrong, message in (
                (job(session), r"called already: pass job, not job\(\.\.\.\)"),
                (None, "must be a function that takes an AccountSession, got None"),
                (pages, "pages yields; it must return: collect what it yields in a list"),
                (none, r"none\(\) -> 'None' is called with one AccountSession \(too many positional arguments\)"),
                (
                    two,
                    r"two\(.*\) -> 'None' is called with one .*'region'\); fix other .* with functools.partial",
                ),
            ):
                with pytest.raises(ConfigurationError, match=message):
                    await pool.map(wrong, fleet.accounts)  # type: ignore[arg-type]

    async def test_a_client_must_be_entered(self, fleet: SimulatedFleet) -> None:
        """A lease that is used as a client, awaited, or entered with `with` raises the right form."""
        async with pool_over(fleet) as pool:
            session = await pool.session(fleet.accounts[0])
            for lease in (session.client("sts"), pool.client("sts", fleet.accounts[0])):
                with pytest.raises(
                    AttributeError,
                    match=r"must be entered before its client has 'get_caller_identity': write `async with",
                ):
                    _ = lease.get_caller_identity  # type: ignore[attr-defined]
                with pytest.raises(TypeError, match="not awaitable; write `async with"):
                    await lease
                with pytest.raises(TypeError, match="needs `async with`: write `async with"), lease:  # type: ignore[attr-defined]
                    pass

    async def test_two_roles_of_one_account_are_two_targets(self, fleet: SimulatedFleet, tmp_path: Path) -> None:
        """The journal keeps them apart, and the plan to confirm has both."""
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
    async def test_invalid_retries(self, fleet: SimulatedFleet, retry: object) -> None:
        """`retry` takes a Retry, a number of attempts, or None."""
        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="must be a Retry, a number of attempts, or None"):
                await pool.map(who_am_i, fleet.accounts, retry=retry)  # type: ignore[arg-type]

    async def test_accounts_that_can_be_iterated_once(self, fleet: SimulatedFleet) -> None:
        """They are not iterated to count them, though they have a length."""

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
        """A group is transient if all its members are, and has the code that they share."""
        await fleet.fault("throttle", service="sts", action="GetCallerIdentity", times=2)
        calls = 0

        async def job(session: AccountSession) -> None:
            nonlocal calls
            calls += 1
            async with anyio.create_task_group() as group:
                group.start_soon(call_once, session)

        async def call_once(session: AccountSession) -> None:
            async with session.client("sts", config=AioConfig(retries={"total_max_attempts": 1})) as sts:
                await sts.get_caller_identity()

        async with pool_over(fleet) as pool:
            report = await pool.map(job, fleet.accounts[:1], retry=2)
            assert (calls, report[0].status, report[0].error_code) == (2, "failed", "Throttling")

            report = await pool.map(job, fleet.accounts[:1])
            assert report[0].ok

    async def test_outcomes_before_a_failed_producer_are_kept(
        self, fleet: SimulatedFleet, caplog: pytest.LogCaptureFixture
    ) -> None:
        """`map` logs a summary of them; a collected run has them unread."""
        failed = OSError("page 3 could not be listed")

        async def listing() -> AsyncIterator[Account]:
            for account in fleet.accounts[:2]:
                yield account
            raise failed

        async with pool_over(fleet) as pool:
            with pytest.raises(OSError, match="page 3"):
                await pool.map(who_am_i, listing())
            assert "the run ended early (OSError): <Report 2 targets: 2 succeeded" in caplog.text

            async with pool.as_completed(who_am_i, listing()) as outcomes:
                with pytest.raises(OSError, match="page 3"):
                    await outcomes.collect()
                assert [outcome.status for outcome in outcomes.unread()] == ["succeeded", "succeeded"]

    async def test_a_progress_listener_must_be_synchronous(self, fleet: SimulatedFleet) -> None:
        """An async function is refused, because the engine does not await listeners."""

        async def show(_: object) -> None: ...

        async with pool_over(fleet) as pool:
            with pytest.raises(ConfigurationError, match="must be a plain function"):
                await pool.map(who_am_i, fleet.accounts, progress=show)  # type: ignore[arg-type]

    async def test_confirm_can_be_none(self, fleet: SimulatedFleet) -> None:
        """None means no confirmation, like False."""
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, fleet.accounts[:1], confirm=None)  # type: ignore[arg-type]

        assert report[0].ok

    async def test_a_summary_has_the_reasons_of_skipped_targets(self, fleet: SimulatedFleet) -> None:
        """A run without a target in the account's partition is not shown as a success."""
        async with pool_over(fleet) as pool:
            report = await pool.map(who_am_i, [fleet.accounts[0].id], regions=["cn-north-1"])

        assert re.search(r"; skipped 1 \(\d{12} us-east-1\): none of the regions is in partition aws", report.summary())
        with pytest.raises(ExceptionGroup, match="0 of 1 target failed; 1 target never tried"):
            report.raise_for_failures()


async def test_a_plain_for_over_pages(fleet: SimulatedFleet) -> None:
    """botocore's `__iter__` would yield attributes of a coroutine, as if they were pages."""
    async with pool_over(fleet) as pool, pool.client("ec2", fleet.accounts[0]) as ec2:
        paginator = ec2.get_paginator("describe_instances")
        with pytest.raises(TypeError, match="write `async for page in"):
            list(paginator.paginate())
        pages = [page async for page in paginator.paginate()]
        whole = await paginator.paginate().build_full_result()

    assert [page["Reservations"] for page in pages] == [whole["Reservations"]] == [[]]


def test_a_plain_with_over_a_pool() -> None:
    """The message has the right form."""
    with pytest.raises(TypeError, match="write `async with SessionPool"), SessionPool(keys=KEYS):  # type: ignore[attr-defined]
        pass


async def test_a_resource_of_a_session(fleet: SimulatedFleet) -> None:
    """boto3's resources are reached through a bridge."""
    async with pool_over(fleet) as pool:
        session = await pool.session(fleet.accounts[0])
        with pytest.raises(TypeError, match=r"session.aioboto3\(\).resource\('s3'\)"):
            session.resource("s3")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (int("012345670123", 8), {"'012345670123'", "'001402433619'"}),
        (123456789012, {"'123456789012'"}),
        (98765432109, {"'098765432109'"}),
        (-1, set()),
        (10**13, set()),
    ],
)
def test_an_integer_as_account_id_shows_what_it_can_be(given: int, shown: set[str]) -> None:
    """YAML reads digits after a zero as octal, if all are below 8: the decimal reading would be another account."""
    with pytest.raises(ConfigurationError) as raised:
        Account(given)  # type: ignore[arg-type]

    found = set(re.findall(r"'\d{12}'", str(raised.value)))
    assert shown <= found
    assert bool(found) is bool(shown)


@pytest.mark.parametrize(
    ("region", "text"),
    [
        ("us-esat-1", r"did you mean us-east-1\?"),
        ("eu-wset-1", r"did you mean eu-west-1\?"),
        ("cn-nroth-1", r"did you mean cn-north-1\?"),
        ("aws-global", r"global services; their region is us-east-1"),
        ("aws-cn-global", r"global services; their region is cn-north-1"),
        ("x" * 100_000, r"unknown region 'x{79}\.\.\.: no partition"),
    ],
)
def test_an_unknown_region_has_the_right_hint(region: str, text: str) -> None:
    """A transposition suggests the region of the same letters; a pseudo-region is explained; a long value is cut."""
    with pytest.raises(ConfigurationError, match=text) as raised:
        Account("123456789012", regions=[region])

    assert len(str(raised.value)) < 500


async def test_regions_of_another_partition_suggest_it(fleet: SimulatedFleet) -> None:
    """12 digits do not show that an account is in aws-cn; the reason to skip it has what to write."""
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, ["123456789012"], ["cn-north-1"])

    assert report[0].status == "skipped"
    assert "written Account(id, partition='aws-cn')" in (report[0].reason or "")


async def test_a_denial_beside_a_source_of_aws_cn_mentions_it(fleet: SimulatedFleet) -> None:
    """STS denies a role in an account that its partition does not have, as it denies any other."""
    chinese = next(account for account in fleet.accounts if account.partition == "aws-cn")
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, [chinese.id])

    assert "write Account(id, partition='aws-cn')" in str(report[0].error)


@pytest.mark.parametrize(
    ("of_profile", "of_variable", "account"),
    [
        ("us-east-1", "cn-north-1", "111111111111"),
        ("cn-north-1", "us-east-1", "arn:aws-cn:iam::111111111111:role/r"),
        ("us-east-1", "us-east-1", "arn:aws-cn:iam::111111111111:role/r"),
    ],
)
async def test_a_region_that_a_variable_changed_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of_profile: str, of_variable: str, account: str
) -> None:
    """The partition follows the region, so the message names the variable if it changed the profile's region."""
    (tmp_path / "config").write_text(
        f"[profile corp]\nregion = {of_profile}\naws_access_key_id = AKIA0000000000000000\n"
        "aws_secret_access_key = not-a-secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", of_variable)
    async with SessionPool(profile="corp") as pool:
        with pytest.raises(PartitionMismatch) as caught:
            await pool.session(account)

    assert f"its region is {of_variable}" in str(caught.value)
    assert ("the variable AWS_DEFAULT_REGION" in str(caught.value)) == (of_profile != of_variable)


@pytest.mark.parametrize("place", ["the variable AWS_CA_BUNDLE", "the setting ca_bundle of profile 'corp'", "verify="])
@pytest.mark.parametrize("kind", ["keys", "assumed role"])
async def test_a_ca_bundle_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, kind: str
) -> None:
    """The file and the setting are named before a request is made, also if the profile's own request needs it first."""
    missing = str(tmp_path / "missing.pem")
    keys = "aws_access_key_id = AKIA0000000000000000\naws_secret_access_key = not-a-secret\n"
    role = "role_arn = arn:aws:iam::111111111111:role/r\nsource_profile = base\n" if kind == "assumed role" else keys
    bundle = f"ca_bundle = {missing}\n" if "setting" in place else ""
    (tmp_path / "config").write_text(f"[profile corp]\nregion = us-east-1\n{role}{bundle}[profile base]\n{keys}")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if "variable" in place:
        monkeypatch.setenv("AWS_CA_BUNDLE", missing)
    if place == "verify=" and kind != "keys":
        pytest.skip("verify= is for clients, not for the profile's own request")
    async with SessionPool(profile="corp", verify=missing if place == "verify=" else None) as pool:
        with pytest.raises(ConfigurationError) as caught:
            await pool.session("222222222222")

    assert missing in str(caught.value)
    assert place in str(caught.value)
