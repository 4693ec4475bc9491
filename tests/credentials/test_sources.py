"""Sources in one process: which one is chosen, when it is asked again, and what it says when it cannot."""

from __future__ import annotations

import functools
import os
import random
import re
import threading
import traceback
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from aiobotocore.session import AioSession
from botocore.credentials import Credentials as StaticCredentials
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ProfileNotFound, ReadTimeoutError
from botocore.session import Session

from asyncauth import SessionPool
from asyncauth._credentials.sources import SourceIgnoredWarning, choose_source, make_source
from asyncauth._credentials.sources.boto_chain import PATIENCE_SECONDS
from asyncauth._credentials.sources.errors import ErrorContext, explain
from asyncauth._credentials.sources.expiry import LEASE_SECONDS, seconds_left
from asyncauth._credentials.sources.not_found import nothing_found
from asyncauth._credentials.sources.worker_thread import Worker
from asyncauth._errors import (
    ConfigurationError,
    NoSourceCredentials,
    PoolClosed,
    SourceError,
    SourceExpired,
)
from asyncauth._models import Keys, Profile
from asyncauth._refresh.slot import RefreshPolicy
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth.testing._clock import FakeClock
from tests.support.wire.stubs import SECRET, Wire, key_id_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from asyncauth._credentials.sources import Source, SourceSpec
    from asyncauth._runtime.clock import Clock

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ID = "AKIAIOSFODNN7EXAMPLE"
OTHER_ID = "AKIAI44QH8DHBEXAMPLE"


@asynccontextmanager
async def opened(
    spec: SourceSpec, *, clock: Clock = SYSTEM_CLOCK, policy: RefreshPolicy | None = None, **said: Any
) -> AsyncIterator[Source]:
    """Give a source whose flights end with the block; what the block raises stays itself."""
    failed: Exception | None = None
    async with anyio.create_task_group() as flights:
        try:
            yield make_source(
                spec,
                spawn=flights.start_soon,
                clock=clock,
                random=random.Random(1),
                policy=policy or RefreshPolicy(),
                **said,
            )
        except Exception as error:
            failed = error
        flights.cancel_scope.cancel()
    if failed is not None:
        raise failed


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Serve STS on loopback, and let botocore find it."""
    served = Wire().start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{served.url}/sts")
    yield served
    served.guard.set()
    served.stop()


@pytest.fixture
def write() -> Callable[[str, str], None]:
    """Return what writes a file below the home directory."""

    def write(name: str, content: str) -> None:
        path = Path(os.environ["HOME"]) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    return write


ROLE = "arn:aws:iam::222222222222:role/reader"
ROLE_PROFILE = (
    f"[profile p]\nregion = eu-west-1\nrole_arn = {ROLE}\nsource_profile = base\n"
    f"[profile base]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n"
)


# -- which source ------------------------------------------------------------------------------------------------------


def test_a_profile_wins_over_keys_and_says_so() -> None:
    """With keys and a profile the profile is used, and a warning names both without the secret."""
    with pytest.warns(SourceIgnoredWarning, match=r"profile 'prod' and <Keys \.\.\.MPLE>.*keys are ignored") as warned:
        chosen = choose_source(keys=Keys(ID, SECRET), profile="prod")

    assert chosen == Profile("prod")
    assert SECRET not in str(warned[0].message)


def test_the_warning_points_at_whoever_made_the_pool() -> None:
    """The warning names the line that gave both, not one of ours."""
    with pytest.warns(SourceIgnoredWarning) as warned:
        SessionPool(keys=Keys(ID, SECRET), profile="prod")

    assert warned[0].filename == __file__


def test_the_order_of_choice() -> None:
    """`source` is itself, a profile comes before keys, keys before boto's chain."""
    keys = Keys(ID, SECRET)

    assert choose_source() is None
    assert choose_source(keys=keys) is keys
    assert choose_source(profile="prod") == Profile("prod")
    assert choose_source(profile=Profile("prod")) == Profile("prod")
    assert choose_source(source=keys) is keys


def test_two_ways_to_say_it_are_refused() -> None:
    """`source` beside keys or a profile is a mistake, and the message names what was given."""
    with pytest.raises(ConfigurationError, match="keys= and profile="):
        choose_source(source=Profile("a"), keys=Keys(ID, SECRET), profile="b")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("prod", r"Profile\(name\)"),
        (Keys, "the class Keys"),
        (7, "async callable"),
    ],
)
async def test_what_is_no_source_is_refused(spec: Any, hint: str) -> None:
    """What no source can be made of is refused at once, with what was probably meant."""
    with pytest.raises(ConfigurationError, match=hint):
        async with opened(spec):
            pass


async def test_a_synchronous_session_is_refused() -> None:
    """A boto3 session would block the event loop; the message says what to give instead."""
    with pytest.raises(ConfigurationError, match="aioboto3"):
        async with opened(Session()):
            pass


# -- facts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "region_name", "partition"),
    [
        ({}, None, None),
        ({"region_name": "cn-north-1"}, "cn-north-1", "aws-cn"),
        ({"region_name": "us-gov-west-1"}, "us-gov-west-1", "aws-us-gov"),
        ({"partition": "aws-cn"}, None, "aws-cn"),
        ({"partition": "aws-cn", "region_name": "eu-west-1"}, "eu-west-1", "aws-cn"),
    ],
)
async def test_the_partition_is_the_one_said_else_the_regions(
    said: dict[str, str], region_name: str | None, partition: str | None
) -> None:
    """The partition that was said goes before the region's; with neither it stays unknown."""
    async with opened(Keys(ID, SECRET), **said) as source:
        facts = await source.facts()

    assert (facts.region_name, facts.partition) == (region_name, partition)


async def test_the_region_is_botos(write: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_DEFAULT_REGION goes before the profile's region, and AWS_REGION is not looked at, as in botocore."""
    write(".aws/config", "[default]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    async with opened(Keys(ID, SECRET)) as source:
        from_the_profile = (await source.facts()).region_name
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    async with opened(Keys(ID, SECRET)) as source:
        from_the_environment = (await source.facts()).region_name

    assert (from_the_profile, from_the_environment) == ("eu-west-1", "us-east-2")


async def test_a_key_tells_sources_apart_and_holds_no_secret(write: Callable[[str, str], None]) -> None:
    """Equal keys have an equal source key, other ones another; neither the secret nor the key id is in it."""
    write(".aws/credentials", f"[p]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")

    async def key(spec: SourceSpec) -> Any:
        async with opened(spec) as source:
            return (await source.facts()).key

    async def fetch() -> Keys:
        return Keys(ID, SECRET)

    found = [await key(spec) for spec in (Keys(ID, SECRET), Keys(OTHER_ID, SECRET), Profile("p"), fetch, fetch)]

    assert await key(Keys(ID, SECRET)) == found[0]
    assert await key(Profile("p")) == found[2]
    assert len(set(found)) == 5
    assert not any(ID in repr(each) or SECRET in repr(each) for each in found)


async def test_a_repr_is_a_dashboard_without_secrets() -> None:
    """A source's repr says where it comes from and whether it was resolved."""
    async with opened(Keys(ID, SECRET)) as source:
        before = repr(source)
        await source.credentials()

        assert (before, repr(source)) == ("<Source keys ...MPLE [not resolved yet]>", "<Source keys ...MPLE [keys]>")


async def test_the_session_has_the_profiles_configuration(write: Callable[[str, str], None]) -> None:
    """`aio_session` reads the configuration that the source reads."""
    write(
        ".aws/config",
        f"[profile p]\nregion = eu-west-1\nretry_mode = adaptive\naws_access_key_id = {ID}\n"
        f"aws_secret_access_key = {SECRET}\n",
    )
    async with opened(Profile("p")) as source:
        session = await source.aio_session()

    assert isinstance(session, AioSession)
    assert session.get_config_variable("retry_mode") == "adaptive"


# -- keys --------------------------------------------------------------------------------------------------------------


async def test_keys_that_ended_are_refused_with_their_end() -> None:
    """Keys that were handed over are used up to their expiration, and then refused: nobody can renew them."""
    clock = FakeClock()
    ends = datetime.fromtimestamp(clock.time(), UTC) + timedelta(minutes=30)
    async with opened(Keys(ID, SECRET, "token", ends), clock=clock) as source:
        await source.credentials()
        clock.advance(29 * 60)
        await source.credentials()
        clock.advance(61)

        with pytest.raises(SourceExpired, match=rf"\.\.\.MPLE ended at {ends:%Y-%m-%dT%H:%M:%SZ}"):
            await source.credentials()


# -- callables ---------------------------------------------------------------------------------------------------------


class Kept:
    """Keys kept somewhere: counts how often it was asked."""

    def __init__(self, *keys: Keys) -> None:
        self.keys = list(keys)
        self.asked = 0

    async def fetch(self) -> Keys:
        self.asked += 1
        return self.keys[min(self.asked, len(self.keys)) - 1]


async def test_keys_without_expiration_are_asked_for_once() -> None:
    """A callable whose keys do not end is asked once, and again only after AWS rejected them."""
    clock, kept = FakeClock(), Kept(Keys(ID, SECRET), Keys(OTHER_ID, SECRET))
    async with opened(kept.fetch, clock=clock) as source:
        first = await source.credentials()
        clock.advance(365 * 86_400)
        await source.credentials()
        asked_before = kept.asked
        dropped = source.invalidate(first), source.invalidate(first)
        second = await source.credentials()

    assert asked_before == 1
    assert dropped == (True, False)
    assert (first.access_key_id, second.access_key_id) == (ID, OTHER_ID)


async def test_keys_with_expiration_are_asked_for_again_before_they_end() -> None:
    """At minute 50 of an hour the callable has been asked a second time, and nobody has waited for it."""
    clock = FakeClock()
    now = datetime.fromtimestamp(clock.time(), UTC)
    kept = Kept(
        Keys(ID, SECRET, "token", now + timedelta(hours=1)), Keys(OTHER_ID, SECRET, "token", now + timedelta(hours=2))
    )
    async with opened(kept.fetch, clock=clock) as source:
        first = await source.credentials()
        clock.advance(50 * 60)
        meanwhile = await source.credentials()
        await anyio.wait_all_tasks_blocked()
        second = await source.credentials()

    assert [each.access_key_id for each in (first, meanwhile, second)] == [ID, ID, OTHER_ID]
    assert kept.asked == 2


async def test_a_hundred_who_ask_at_once_ask_the_callable_once() -> None:
    """The callable runs once, however many want its keys at the same moment."""
    kept = Kept(Keys(ID, SECRET))
    async with opened(kept.fetch) as source, anyio.create_task_group() as askers:
        for _ in range(100):
            askers.start_soon(source.credentials)

    assert kept.asked == 1


async def returns_a_dict() -> Any:
    return {"access_key_id": ID, "secret_access_key": SECRET}


async def returns_ended_keys() -> Keys:
    return Keys(ID, SECRET, "token", datetime(2020, 1, 1, tzinfo=UTC))


def is_not_async() -> Keys:
    return Keys(ID, SECRET)


async def raises_an_error() -> Keys:
    password = SECRET
    raise LookupError(f"the database is away, {len(password)}")


async def raises_one_of_ours() -> Keys:
    raise SourceExpired("log in to the vault")


@pytest.mark.parametrize(
    ("fetch", "error", "message"),
    [
        (returns_a_dict, SourceError, "returns_a_dict must return asyncauth.Keys, it returned dict"),
        (returns_ended_keys, SourceExpired, "returns_ended_keys returned keys that ended at 2020-01-01T00:00:00Z"),
        (is_not_async, SourceError, "is_not_async must be async: it returned Keys"),
        (functools.partial(raises_an_error), SourceError, "raises_an_error raised LookupError"),
        (raises_one_of_ours, SourceExpired, "^log in to the vault$"),
    ],
)
async def test_a_callable_that_fails_is_named(
    fetch: Callable[[], Awaitable[Keys]], error: type[Exception], message: str
) -> None:
    """What a callable does wrong is told with its name, as an error of the source, and without secrets."""
    async with opened(fetch) as source:
        with pytest.raises(error, match=message) as raised:
            await source.credentials()

    assert SECRET not in shown(raised.value)


async def test_a_callables_own_error_is_the_cause() -> None:
    """The exception of a callable is the cause of the source's error: same type, same words, where it was raised."""
    async with opened(raises_an_error) as source:
        with pytest.raises(SourceError) as raised:
            await source.credentials()

    cause = raised.value.__cause__
    assert isinstance(cause, LookupError)
    assert "raises_an_error" in "".join(traceback.format_exception(cause))


def shown(error: BaseException) -> str:
    """Return all that an error tracker would show of an error, local variables included."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format()) + repr(error.__dict__)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_sources_resolve_on_trio_too(wire: Wire, write: Callable[[str, str], None], anyio_backend: str) -> None:
    """Keys, a callable and a role profile are resolved on trio as on asyncio: none of them needs aiohttp."""
    write(".aws/config", ROLE_PROFILE)
    kept = Kept(Keys(ID, SECRET))
    found = []
    for spec in (Keys(ID, SECRET), kept.fetch, Profile("p")):
        async with opened(spec) as source:
            found.append((await source.credentials()).access_key_id)

    assert found == [ID, ID, key_id_for(ROLE)]


# -- given sessions ----------------------------------------------------------------------------------------------------


async def test_a_given_session_is_asked_for_its_credentials() -> None:
    """An aiobotocore session gives its own credentials and configuration."""
    session = AioSession()
    session.set_credentials(ID, SECRET, "token")
    session.set_config_variable("region", "cn-north-1")
    async with opened(session) as source:
        credentials, facts = await source.credentials(), await source.facts()
        configuration = await source.aio_session()

    assert credentials.access_key_id == ID
    assert (facts.method, facts.partition, facts.long_term) == ("session", "aws-cn", False)
    assert configuration is session


async def test_a_given_session_without_credentials_is_told_so() -> None:
    """A session that has no credentials ends in one clear error."""
    async with opened(AioSession()) as source:
        with pytest.raises(NoSourceCredentials, match="the AioSession"):
            await source.credentials()


async def test_a_given_sessions_failure_is_an_error_of_the_source() -> None:
    """A session whose profile does not exist is told as the chain's own failure would be."""
    async with opened(AioSession(profile="nope")) as source:
        with pytest.raises(ConfigurationError, match="'nope'"):
            await source.credentials()


class Renewing:
    """Credentials of somebody else's class: it renews itself, and does not say when."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_frozen_credentials(self) -> StaticCredentials:
        self.asked += 1
        return StaticCredentials(ID if self.asked == 1 else OTHER_ID, SECRET, "token")


async def test_credentials_that_do_not_tell_their_end_are_asked_again_within_the_minute() -> None:
    """A credentials object of another class is believed for a minute, and then asked again."""
    clock, renewing = FakeClock(), Renewing()

    class Session(AioSession):  # type: ignore[misc]  # aiobotocore has no types
        async def get_credentials(self) -> Any:
            return renewing

    async with opened(Session(), clock=clock) as source:
        first = await source.credentials()
        await source.credentials()
        asked_at_once = renewing.asked
        clock.advance(LEASE_SECONDS)
        later = await source.credentials()

    assert asked_at_once == 1
    assert (first.access_key_id, later.access_key_id) == (ID, OTHER_ID)


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def refreshable(seconds: float) -> RefreshableCredentials:
    """Return botocore's credentials that end in `seconds`."""
    now = datetime.now(UTC)
    return RefreshableCredentials(
        ID, SECRET, "token", now + timedelta(seconds=seconds), dict, "test", time_fetcher=lambda: now
    )


@pytest.mark.parametrize("seconds", [0.4, 2, 900, 3600, 43_200, 129_600])
def test_the_end_is_found_by_asking(seconds: float) -> None:
    """What botocore does not tell is found from what it does: never later, and less than 0.1 s earlier."""
    left = seconds_left(refreshable(seconds))

    assert left is not None
    assert seconds - 0.1 < left <= seconds


def test_credentials_that_do_not_end_have_no_lifetime() -> None:
    """Static keys have no end; keys that ended have none left; a foreign class is believed for a while."""
    assert seconds_left(StaticCredentials(ID, SECRET)) is None
    assert seconds_left(refreshable(-5)) == 0
    assert seconds_left(refreshable(100 * 365 * 86_400)) is None
    assert seconds_left(Renewing()) == LEASE_SECONDS


# -- boto's chain ------------------------------------------------------------------------------------------------------


async def test_fifty_first_uses_of_a_role_profile_assume_it_once(wire: Wire, write: Callable[[str, str], None]) -> None:
    """Fifty who start at the same moment get one answer from one AssumeRole."""
    write(".aws/config", ROLE_PROFILE)
    found: list[str] = []
    async with opened(Profile("p")) as source:

        async def ask() -> None:
            found.append((await source.credentials()).access_key_id)

        async with anyio.create_task_group() as askers:
            for _ in range(50):
                askers.start_soon(ask)

    assert found == [key_id_for(ROLE)] * 50
    assert wire.count("AssumeRole") == 1


async def test_the_leaders_cancellation_sinks_nobody(wire: Wire, write: Callable[[str, str], None]) -> None:
    """With the first of three cancelled while STS is slow, the others get the answer of the one AssumeRole."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    found: list[str] = []
    async with opened(Profile("p")) as source:

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                found.append((await source.credentials()).access_key_id)

        scopes = [anyio.CancelScope() for _ in range(3)]
        async with anyio.create_task_group() as askers:
            for scope in scopes:
                askers.start_soon(ask, scope)
            await anyio.to_thread.run_sync(wire.arrived.wait, 10)
            scopes[0].cancel()
            wire.guard.set()

    assert found == [key_id_for(ROLE)] * 2
    assert wire.count("AssumeRole") == 1


async def test_a_load_that_hangs_leaves_one_thread_and_is_taken_up_again(
    wire: Wire, write: Callable[[str, str], None]
) -> None:
    """Who asks after a load that took too long joins the thread that still runs, and gets its answer."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    clock = FakeClock()
    before = threading.active_count()
    async with opened(Profile("p"), clock=clock) as source:
        for _ in range(3):
            async with anyio.create_task_group() as askers:
                askers.start_soon(_expect_timeout, source)
                await anyio.to_thread.run_sync(wire.arrived.wait, 10)
                while clock.next_timer is None:
                    await anyio.lowlevel.checkpoint()
                clock.advance(PATIENCE_SECONDS)
        threads = threading.active_count() - before
        wire.guard.set()
        credentials = await source.credentials()

    assert credentials.access_key_id == key_id_for(ROLE)
    assert wire.count("AssumeRole") == 1
    assert threads <= 4  # the stub's connection, the chain's thread, and the one that waited for the stub here


async def _expect_timeout(source: Source) -> None:
    with pytest.raises(SourceError, match=r"profile 'p': no answer within 60 s"):
        await source.credentials()


async def test_the_loop_runs_on_while_the_chain_is_resolved(wire: Wire, write: Callable[[str, str], None]) -> None:
    """While STS keeps the chain waiting, the event loop does other things."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    async with opened(Profile("p")) as source, anyio.create_task_group() as askers:
        askers.start_soon(source.credentials)
        await anyio.to_thread.run_sync(wire.arrived.wait, 10)
        ran = False
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
            ran = True
        wire.guard.set()

    assert ran


async def test_a_file_is_read_once_until_aws_rejects_its_keys(write: Callable[[str, str], None]) -> None:
    """A key rotated on disk is not looked for while the old one works, and found once AWS refuses that."""
    clock = FakeClock()
    write(".aws/credentials", f"[p]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
    async with opened(Profile("p"), clock=clock) as source:
        first = await source.credentials()
        write(".aws/credentials", f"[p]\naws_access_key_id = {OTHER_ID}\naws_secret_access_key = {SECRET}\n")
        clock.advance(86_400)
        same = await source.credentials()
        source.invalidate(first)
        second = await source.credentials()

    assert [each.access_key_id for each in (first, same, second)] == [ID, ID, OTHER_ID]


async def test_a_chain_that_found_nothing_looks_again(write: Callable[[str, str], None]) -> None:
    """Keys written after a first failure are found, once the seconds are over for which it is remembered."""
    clock = FakeClock()
    async with opened(None, clock=clock) as source:
        with pytest.raises(NoSourceCredentials):
            await source.credentials()
        write(".aws/credentials", f"[default]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
        with pytest.raises(NoSourceCredentials):
            await source.credentials()
        clock.advance(5)

        assert (await source.credentials()).access_key_id == ID


async def test_a_roles_token_is_renewed_by_botocore_before_it_ends(
    wire: Wire, write: Callable[[str, str], None]
) -> None:
    """A ten-minute token of a role profile is renewed in its second half, in the background."""
    write(".aws/config", ROLE_PROFILE)
    wire.lifetime = 600
    clock = FakeClock()
    async with opened(Profile("p"), clock=clock) as source:
        await source.credentials()
        clock.advance(120)
        await source.credentials()
        early = wire.count("AssumeRole")
        clock.advance(300)
        await source.credentials()
        await _until(lambda: wire.count("AssumeRole") > early)

    assert early == 1
    assert wire.count("AssumeRole") == 2


async def _until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_rejected_role_token_is_assumed_anew(wire: Wire, write: Callable[[str, str], None]) -> None:
    """When AWS rejects a role profile's token, the role is assumed again, though botocore thinks it good."""
    write(".aws/config", ROLE_PROFILE)
    async with opened(Profile("p")) as source:
        source.invalidate(await source.credentials())
        await source.credentials()

    assert wire.count("AssumeRole") == 2


async def test_what_was_rejected_while_it_was_renewed_is_not_kept(
    wire: Wire, write: Callable[[str, str], None]
) -> None:
    """A rejection that comes while a renewal is under way is not undone when the renewal lands."""
    write(".aws/config", ROLE_PROFILE)
    wire.lifetime = 600
    clock = FakeClock()
    async with opened(Profile("p"), clock=clock) as source:
        first = await source.credentials()
        wire.guard.clear()
        wire.arrived.clear()
        clock.advance(420)
        await source.credentials()
        await anyio.to_thread.run_sync(wire.arrived.wait, 10)
        source.invalidate(first)
        wire.guard.set()
        await source.credentials()
        source.invalidate(await source.credentials())
        await source.credentials()

    sessions = {asked.name for asked in wire.asked}
    assert sessions == {ROLE}
    assert wire.count("AssumeRole") >= 3


@pytest.mark.parametrize(
    ("arn", "region_name"),
    [("arn:aws-cn:iam::222222222222:role/r", "cn-north-1"), ("arn:aws:iam::222222222222:role/r", "us-east-1")],
)
async def test_a_role_profile_without_region_asks_its_own_partition(
    wire: Wire, write: Callable[[str, str], None], arn: str, region_name: str
) -> None:
    """A role of `aws-cn` is asked for in Beijing, where botocore alone would ask the global endpoint of `aws`."""
    write(".aws/config", ROLE_PROFILE.replace(ROLE, arn).replace("region = eu-west-1\n", ""))
    async with opened(Profile("p")) as source:
        facts = await source.facts()

    (asked,) = wire.of("AssumeRole", arn)
    assert (asked.region_name, asked.key_id) == (region_name, ID)
    assert (facts.region_name, facts.partition) == (None, arn.split(":")[1])


async def test_a_junk_role_arn_is_told_by_the_profile_that_has_it(write: Callable[[str, str], None]) -> None:
    """A role_arn that is none tells no partition, and boto's refusal names the profile and what to check."""
    write(".aws/config", ROLE_PROFILE.replace(ROLE, "junk"))
    async with opened(Profile("p")) as source:
        with pytest.raises(SourceError, match=r"profile 'p': boto refuses .* check its role_arn"):
            await source.credentials()


async def test_a_chain_that_gives_ended_credentials_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that end in the moment they are given are not used."""

    class Stuck:
        method = "somewhere"
        refresh_needed = refreshable(-5).refresh_needed

        def get_frozen_credentials(self) -> StaticCredentials:
            return StaticCredentials(ID, SECRET, "token")

    monkeypatch.setattr(Session, "get_credentials", lambda session: Stuck())
    async with opened(None) as source:
        with pytest.raises(SourceExpired, match=r"that boto found \(somewhere\) have ended"):
            await source.credentials()


async def test_an_error_of_the_chain_shows_no_secret_to_an_error_tracker(
    write: Callable[[str, str], None], tmp_path: Path
) -> None:
    """With all local variables shown, nothing that a credential process printed comes out with the error."""
    (tmp_path / "p.py").write_text(f"import sys; print('{SECRET}'); sys.exit('{SECRET}')")
    write(".aws/config", f"[profile p]\ncredential_process = python3 {tmp_path / 'p.py'}\n")
    async with opened(Profile("p")) as source:
        with pytest.raises(SourceError) as raised:
            await source.credentials()

    assert SECRET not in shown(raised.value)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


async def test_a_source_whose_pool_closed_says_so(wire: Wire, write: Callable[[str, str], None]) -> None:
    """A source that is asked while its pool closes raises PoolClosed, not a cancellation."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    raised: list[BaseException] = []

    async def ask(source: Source) -> None:
        try:
            await source.credentials()
        except PoolClosed as error:
            raised.append(error)

    async with anyio.create_task_group() as askers:
        async with opened(Profile("p")) as source:
            askers.start_soon(ask, source)
            await anyio.to_thread.run_sync(wire.arrived.wait, 10)
        wire.guard.set()

    assert [str(error) for error in raised] == ["the pool was closed while profile 'p' was being resolved"]


# -- words -------------------------------------------------------------------------------------------------------------


def named(name: str, words: str = SECRET) -> Exception:
    """Return an exception of botocore's by its name, also of a botocore that is newer than the one installed."""
    return type(name, (Exception,), {})(words)


PLACE = ErrorContext("profile 'p'", "p")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (named("LoginInsufficientPermissions"), SourceError, "signin:CreateOAuth2Token is not permitted"),
        (named("LoginError"), SourceError, "try: aws login --profile p"),
        (named("LoginRefreshRequired"), SourceExpired, "run: aws login --profile p"),
        (named("TokenRetrievalError"), SourceExpired, "run: aws sso login --profile p"),
        (named("MissingDependencyException"), SourceError, r"pip install 'botocore\[crt\]'"),
        (named("RefreshWithMFAUnsupportedError"), SourceExpired, "one MFA code"),
        (named("CredentialRetrievalError"), SourceError, "boto's provider 'a provider' failed"),
        (RuntimeError("Credentials were refreshed, but they are still expired."), SourceExpired, "have ended"),
        (RuntimeError(SECRET), SourceError, "boto failed with RuntimeError"),
        (ZeroDivisionError(SECRET), SourceError, "boto failed with ZeroDivisionError"),
        (PermissionError(13, "Permission denied", "/token"), SourceError, "Permission denied: '/token'"),
        (ProfileNotFound(profile="q"), ConfigurationError, "the profile 'q' is neither .* there are no profiles"),
        (ReadTimeoutError(endpoint_url="https://sts"), SourceError, "no answer from https://sts"),
    ],
)
def test_what_botocore_raises_is_told_in_our_words(error: Exception, kind: type[Exception], message: str) -> None:
    """Each of botocore's errors has its type and its way out, names the source, and quotes none of botocore's words."""
    told = explain(error, PLACE)

    assert type(told) is kind
    assert re.search(message, str(told))
    assert str(told).startswith("profile 'p'")
    assert SECRET not in str(told)
    assert told.code == type(error).__name__


def test_profiles_are_listed_even_when_the_file_is_broken(write: Callable[[str, str], None]) -> None:
    """A config file that cannot be read does not hide which profile was missing."""
    write(".aws/config", "no section\n")

    assert "there are no profiles" in str(explain(ProfileNotFound(profile="q"), PLACE))


def test_a_provider_of_ones_own_is_listed_too() -> None:
    """Where somebody added a provider to boto's chain, the list of what was tried has it by its own name."""
    session = Session()
    session.get_component("credential_provider").insert_before("env", type("Own", (), {"METHOD": "vault"})())

    assert "\n  - vault\n  - the environment" in str(nothing_found(session, "boto's default chain"))


async def test_a_region_that_does_not_exist_is_refused_with_keys_too() -> None:
    """A mistyped region is told before anything is asked of it."""
    async with opened(Keys(ID, SECRET), region_name="eu-wset-1") as source:
        with pytest.raises(ConfigurationError, match=r"keys \.\.\.MPLE: unknown region 'eu-wset-1'"):
            await source.credentials()


class Broken:
    """A session's credentials that cannot be had."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def get_frozen_credentials(self) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (SourceExpired("as it is"), SourceExpired, "^as it is$"),
        (OSError(2, "No such file or directory", "/token"), SourceError, "the AioSession: No such file"),
        (LookupError(SECRET), SourceError, "boto failed with LookupError"),
    ],
)
async def test_a_given_session_that_fails_is_told_without_its_words(
    error: Exception, kind: type[Exception], message: str
) -> None:
    """Whatever a given session's credentials raise becomes one error of the source, and an error of ours stays."""
    session = AioSession()
    session._credentials = Broken(error)
    async with opened(session) as source:
        with pytest.raises(kind, match=message) as raised:
            await source.credentials()

    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


async def test_a_given_session_whose_token_ended_is_told_so() -> None:
    """A session that goes on returning a token past its end has ended as a source."""
    session = AioSession()
    ended = refreshable(-5)

    class Stuck:
        refresh_needed = ended.refresh_needed

        async def get_frozen_credentials(self) -> StaticCredentials:
            return StaticCredentials(ID, SECRET, "token")

    session._credentials = Stuck()
    async with opened(session) as source:
        with pytest.raises(SourceExpired, match="the credentials of the AioSession"):
            await source.credentials()


async def test_a_patient_policy_stays_as_it_is(wire: Wire, write: Callable[[str, str], None]) -> None:
    """A policy that allows a load a minute or more, or any time, is taken as it is."""
    write(".aws/config", ROLE_PROFILE)
    for seconds in (None, 3600.0):
        async with opened(Profile("p"), policy=RefreshPolicy(load_timeout=seconds)) as source:
            await source.credentials()

    assert wire.count("AssumeRole") == 2


async def test_a_worker_whose_task_group_ends_says_that_the_pool_closed() -> None:
    """Who waits for a thread that was left behind is told that the pool closed."""
    held, arrived = threading.Event(), threading.Event()

    def call() -> str:
        arrived.set()
        held.wait(10)
        return "too late"

    raised: list[PoolClosed] = []

    async def ask(worker: Worker[str]) -> None:
        try:
            await worker.run()
        except PoolClosed as error:
            raised.append(error)

    async with anyio.create_task_group() as askers:
        async with anyio.create_task_group() as flights:
            askers.start_soon(ask, Worker(call, flights.start_soon))
            await anyio.to_thread.run_sync(arrived.wait, 10)
            flights.cancel_scope.cancel()
        held.set()

    assert len(raised) == 1
