"""Accounts with a source of their own, with SELF as their role, and accounts that are unavailable."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import (
    SELF,
    Account,
    ConfigurationError,
    Keys,
    LongTermCredentialsError,
    PoolClosed,
    Profile,
    SessionPool,
    SourceExpired,
    SsoRole,
)
from asyncauth._pool import resources
from asyncauth.testing import IdentityCenter, SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth.testing import SsoLogin

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

both = pytest.mark.parametrize("partition", ["aws", "aws-cn"])


@pytest.fixture
async def fleet() -> AsyncIterator[SimulatedFleet]:
    async with SimulatedFleet({"aws": 3, "aws-cn": 3}) as started:
        yield started


def first(fleet: SimulatedFleet, partition: str) -> Account:
    """Return an account that is one target: without regions of its own."""
    return replace(next(account for account in fleet.accounts if account.partition == partition), regions=())


@both
async def test_an_account_is_reached_through_its_own_source(fleet: SimulatedFleet, partition: str) -> None:
    """The pool's source cannot do anything; the account's can, and signs AssumeRole."""
    useless = Keys("AKIA" + "0" * 16, "useless")
    account = replace(first(fleet, partition), source=fleet.keys(partition))
    async with pool_over(fleet, sources={"aws": useless, "aws-cn": useless}) as pool:
        report = await pool.map(who_am_i, [account, replace(account, source=None)])

    assert [outcome.status for outcome in report] == ["succeeded", "failed"]
    assert f"::{account.id}:assumed-role/manage-role/" in str(report[0].value)


async def test_a_source_is_opened_once_for_all_accounts_that_have_it(fleet: SimulatedFleet) -> None:
    """Three accounts with equal keys resolve one source, and all explicit sources share one set of clients."""
    calls: list[int] = []

    async def fetch() -> Keys:
        calls.append(1)
        return fleet.keys("aws")

    accounts = [replace(each, source=fetch) for each in fleet.accounts if each.partition == "aws"]
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, accounts, regions=["us-east-1", "us-west-2"])
        await pool.session(replace(accounts[0], source=fleet.keys("aws")))
        labels = list(pool.statistics().clients)

    report.raise_for_failures()
    assert len(calls) == 1
    assert len(labels) == 1


async def test_accounts_with_more_sources_than_are_kept_open(
    fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least recently used source is resolved again when it is needed; the sessions of an evicted one work on."""
    monkeypatch.setattr(resources, "MAX_ACCOUNT_SOURCES", 2)
    calls: list[str] = []

    def fetch(name: str) -> Any:
        async def call() -> Keys:
            calls.append(name)
            return fleet.keys("aws")

        return call

    plain = first(fleet, "aws")
    accounts = [replace(plain, source=fetch(name)) for name in "abc"]
    async with pool_over(fleet) as pool:
        oldest = await pool.session(accounts[0])
        for account in (*accounts[1:], accounts[2], accounts[0]):
            await pool.session(account)
        arn = await who_am_i(oldest)

    assert calls == ["a", "b", "c", "a"]
    assert f"::{plain.id}:" in arn


async def test_outcomes_do_not_keep_a_source(fleet: SimulatedFleet) -> None:
    """An outcome's account is equal to the given one, has no source, and can be pickled."""
    given = replace(first(fleet, "aws"), source=fleet.keys("aws"))
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, [given])

    assert report[0].account == given
    assert report[0].account.source is None
    assert pickle.loads(pickle.dumps(report))[0].account == given
    with pytest.raises(TypeError, match="holds secrets"):
        pickle.dumps(given)


async def test_a_failing_source_fails_its_own_accounts_alone(fleet: SimulatedFleet) -> None:
    """A profile that does not exist is found out once for the two accounts that name it."""
    accounts = [replace(account, regions=()) for account in fleet.accounts if account.partition == "aws"]
    broken = [replace(account, source=Profile("missing")) for account in accounts[:2]]
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, [*broken, accounts[2]])

    assert [outcome.status for outcome in report] == ["failed", "failed", "succeeded"]
    assert "missing" in str(report[0].error)
    assert str(report[0].error) == str(report[1].error)


async def test_what_is_no_source_is_refused(fleet: SimulatedFleet) -> None:
    """The error names what was given and what is accepted."""
    async with pool_over(fleet) as pool:
        with pytest.raises(ConfigurationError, match="for a profile write Profile"):
            await pool.session(replace(first(fleet, "aws"), source="production"))


@both
async def test_self_acts_as_the_source(fleet: SimulatedFleet, partition: str) -> None:
    """No role is assumed; the caller is the source itself, and one GetCallerIdentity found its account."""
    keys = await fleet.add_identity("operator", partition=partition, role="operator", lifetime=3600)
    management = fleet.management(partition).id
    account = Account(management, partition=partition, role=SELF, source=keys)
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, [account, account])
        plan_roles = (await pool.map(who_am_i, [account], dry_run=True))[0].status
        counts = await fleet.counts()

    report.raise_for_failures()
    assert {str(outcome.value) for outcome in report} == {
        f"arn:{partition}:sts::{management}:assumed-role/operator/operator"
    }
    assert counts.calls("sts", "AssumeRole") == 0
    assert plan_roles == "skipped"


async def test_self_refuses_another_accounts_source(fleet: SimulatedFleet) -> None:
    """A job for one account never acts in the account that the source happens to belong to."""
    keys = await fleet.add_identity("operator", role="operator", lifetime=3600)
    account = replace(first(fleet, "aws"), role=SELF, source=keys)
    async with pool_over(fleet) as pool:
        with pytest.raises(ConfigurationError, match=f"belongs to account {fleet.management('aws').id}"):
            await pool.session(account)


async def test_self_refuses_long_term_keys_unless_allowed(fleet: SimulatedFleet) -> None:
    """As `source_session` does."""
    account = Account(fleet.management("aws").id, role=SELF)
    async with pool_over(fleet) as pool:
        with pytest.raises(LongTermCredentialsError):
            await pool.session(account)
    async with pool_over(fleet, allow_long_term=True) as pool:
        assert f"::{account.id}:" in await who_am_i(await pool.session(account))
        assert pool.invalidate(account) is False  # keys that cannot be renewed stay


async def test_an_unavailable_account_is_skipped_with_its_reason(fleet: SimulatedFleet) -> None:
    """One target, whatever the regions, and no call; a session is refused with the reason."""
    account = replace(first(fleet, "aws"), unavailable="the account is SUSPENDED")
    async with pool_over(fleet) as pool:
        report = await pool.map(who_am_i, [account], regions=["us-east-1", "us-west-2"])
        coverage = await pool.warm([account])
        with pytest.raises(ConfigurationError, match=f"{account.id} is unavailable: the account is SUSPENDED"):
            await pool.session(account)

    assert [(outcome.status, outcome.reason) for outcome in report] == [("skipped", "the account is SUSPENDED")]
    assert not coverage.reachable
    assert (await fleet.counts()).calls() == 0


# -- roles of a portal ----------------------------------------------------------------------------------------------


def log_in(login: SsoLogin, fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the configuration and the login as the AWS CLI does; return the file of the login."""
    folder = Path("~/.aws").expanduser()
    (folder / "sso/cache").mkdir(parents=True, exist_ok=True)
    (folder / "config").write_text(
        f"[sso-session corp]\nsso_region = {login.region}\nsso_start_url = {login.start_url}\n"
    )
    file = folder / "sso/cache" / f"{sha1(b'corp', usedforsecurity=False).hexdigest()}.json"
    file.write_text(login.cache_file())
    monkeypatch.setenv("AWS_ENDPOINT_URL", fleet.endpoint_url)
    return file


def of_the_portal(accounts: list[Account], role: str = "ReadOnly") -> list[Account]:
    return [replace(each, regions=(), role=SELF, source=SsoRole("corp", each.id, role)) for each in accounts]


@both
async def test_a_role_of_the_portal(partition: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each account is reached by one GetRoleCredentials, and no AssumeRole; other accounts jump from there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with SimulatedFleet({partition: 5}, identity_center={partition: IdentityCenter()}) as fleet:
        log_in(await fleet.sso_login(partition), fleet, monkeypatch)
        accounts = of_the_portal(list(fleet.accounts))
        async with SessionPool() as pool:
            report = await pool.map(who_am_i, accounts * 2)
            assert pool.statistics().clients
            [portal] = [one for one in pool.statistics().rate_limits if one.rate_limit.service == "sso"]
        counts = await fleet.counts()

    report.raise_for_failures()
    for outcome in report:
        assert f"::{outcome.account.id}:assumed-role/AWSReservedSSO_ReadOnly_" in str(outcome.value)
    assert counts.calls("sso", "GetRoleCredentials") == 5
    assert (portal.rate, portal.admitted, portal.throttled) == (20, 5, 0)
    assert counts.calls("sts", "AssumeRole") == 0


async def test_a_role_that_the_portal_refuses_fails_its_account_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """403 "No access" is about one role; the others go on."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with SimulatedFleet(3, identity_center=IdentityCenter(roles=("ReadOnly",))) as fleet:
        log_in(await fleet.sso_login(), fleet, monkeypatch)
        accounts = [*of_the_portal(fleet.accounts[:1], "Admin"), *of_the_portal(fleet.accounts[1:])]
        async with SessionPool() as pool:
            report = await pool.map(who_am_i, accounts)

    assert [outcome.status for outcome in report] == ["failed", "succeeded", "succeeded"]
    assert "Admin" in str(report[0].error)


#: What the interpreter reports when a program, or a browser, is started ("Audit events table" of Python's library).
PROCESS_EVENTS = frozenset(
    {
        "subprocess.Popen",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "webbrowser.open",
    }
)


@pytest.fixture
def started_processes() -> Iterator[list[str]]:
    """Return the events of the processes that the test starts; a hook cannot be removed, so it is switched off."""
    events: list[str] = []
    is_on = True

    def note(event: str, _arguments: object) -> None:
        if is_on and event in PROCESS_EVENTS:
            events.append(event)

    sys.addaudithook(note)
    yield events
    is_on = False


@pytest.mark.parametrize("ended", ["by the portal", "by its date"])
async def test_a_login_that_ended_is_one_error_for_all_its_roles(
    ended: str, started_processes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """500 accounts: one message with the command that renews the login, one request, and no process."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with SimulatedFleet(500, identity_center=IdentityCenter()) as fleet:
        cache = log_in(await fleet.sso_login(), fleet, monkeypatch)
        await fleet.end_sso_logins()
        if ended == "by its date":
            past = {"expiresAt": "2024-01-01T00:00:00Z"}
            cache.write_text(json.dumps(json.loads(cache.read_text(encoding="utf-8")) | past), encoding="utf-8")
        started_processes.clear()
        async with SessionPool() as pool:
            report = await pool.map(who_am_i, of_the_portal(list(fleet.accounts)))
        processes = list(started_processes)
        counts = await fleet.counts()

    assert {type(outcome.error) for outcome in report} == {SourceExpired}
    assert {str(outcome.error) for outcome in report} == {
        "the login of the sso-session 'corp' has expired; run: aws sso login --sso-session corp"
    }
    sent = [counts.calls("sso", "GetRoleCredentials"), counts.calls("sso-oidc", "CreateToken")]
    assert sent == ([1, 0] if ended == "by the portal" else [0, 1])
    assert len(report) == 500
    assert processes == []


async def test_a_refresh_without_a_result_is_one_request_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What CreateToken answered is in the one message, and no other role requests the same within seconds."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with SimulatedFleet(50, identity_center=IdentityCenter()) as fleet:
        cache = log_in(await fleet.sso_login(), fleet, monkeypatch)
        past = {"expiresAt": "2024-01-01T00:00:00Z"}
        cache.write_text(json.dumps(json.loads(cache.read_text(encoding="utf-8")) | past), encoding="utf-8")
        await fleet.fault("error", service="sso-oidc", code="SlowDownException", status=400)
        async with SessionPool() as pool:
            report = await pool.map(who_am_i, of_the_portal(list(fleet.accounts)))
        counts = await fleet.counts()

    (message,) = {str(outcome.error) for outcome in report}
    assert message == (
        "the login of the sso-session 'corp' has expired and could not be refreshed (SlowDownException); "
        "run: aws sso login --sso-session corp"
    )
    assert counts.calls("sso-oidc", "CreateToken") == 1


async def test_a_closed_pool_keeps_no_credentials_of_accounts_sources(fleet: SimulatedFleet) -> None:
    """The session of an account with a source of its own reaches no credentials after the pool has closed."""

    async def fetch() -> Keys:
        return fleet.keys("aws")

    async with pool_over(fleet) as pool:
        session = await pool.session(replace(first(fleet, "aws"), source=fetch))
        active = next(iter(pool._check_open()._all_sources))
        before = active.source.peek()

    assert before is not None
    assert active.source.peek() is active.identity.peek() is None
    with pytest.raises(PoolClosed):
        await session.credentials()
