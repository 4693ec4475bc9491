"""Sources in one process: selection, loads and renewals, and the errors of sources without credentials."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
import traceback
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
from asyncauth._credentials.sources import SourceIgnoredWarning, choose_source
from asyncauth._credentials.sources.boto_chain import INTERACTIVE_LOAD_TIMEOUT_SECONDS
from asyncauth._credentials.sources.errors import ErrorContext, explain
from asyncauth._credentials.sources.expiry import LEASE_SECONDS, seconds_left
from asyncauth._credentials.sources.not_found import no_credentials_found
from asyncauth._credentials.sources.worker_thread import WorkerThread
from asyncauth._errors import (
    ConfigurationError,
    NoSourceCredentials,
    PoolClosed,
    SourceError,
    SourceExpired,
)
from asyncauth._models import Keys, Profile
from asyncauth._refresh.slot import RefreshPolicy
from asyncauth.testing._clock import FakeClock
from tests.support.sources import open_source, write_home_file
from tests.support.wire.stubs import SECRET, Wire, key_id_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from asyncauth._credentials.sources import Source, SourceSpec

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ID = "AKIAIOSFODNN7EXAMPLE"
OTHER_ID = "AKIAI44QH8DHBEXAMPLE"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Serve STS on loopback, and set its address in the environment."""
    served = Wire().start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"{served.url}/sts")
    yield served
    served.guard.set()
    served.stop()


@pytest.fixture
def write() -> Callable[[str, str], None]:
    """Return a function that writes a file below the home directory."""

    return write_home_file


ROLE = "arn:aws:iam::222222222222:role/reader"
ROLE_PROFILE = (
    f"[profile p]\nregion = eu-west-1\nrole_arn = {ROLE}\nsource_profile = base\n"
    f"[profile base]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n"
)


# -- which source ------------------------------------------------------------------------------------------------------


def test_a_profile_wins_over_keys_with_a_warning() -> None:
    """With keys and a profile the profile is used, and a warning names both without the secret."""
    with pytest.warns(SourceIgnoredWarning, match=r"profile 'prod' and <Keys \.\.\.MPLE>.*keys are ignored") as warned:
        chosen = choose_source(keys=Keys(ID, SECRET), profile="prod")

    assert chosen == Profile("prod")
    assert SECRET not in str(warned[0].message)


def test_the_warning_names_the_line_that_makes_the_pool() -> None:
    """The warning has the file of the caller of SessionPool, not one of asyncauth's."""
    with pytest.warns(SourceIgnoredWarning) as warned:
        SessionPool(keys=Keys(ID, SECRET), profile="prod")

    assert warned[0].filename == __file__


def test_the_order_of_selection() -> None:
    """`source` is used unchanged, a profile wins over keys, keys win over boto's chain."""
    keys = Keys(ID, SECRET)

    assert choose_source() is None
    assert choose_source(keys=keys) is keys
    assert choose_source(profile="prod") == Profile("prod")
    assert choose_source(profile=Profile("prod")) == Profile("prod")
    assert choose_source(source=keys) is keys


def test_source_beside_keys_or_profile_is_refused() -> None:
    """`source` together with keys or a profile is an error that names the arguments."""
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
async def test_a_value_of_another_type_is_refused(spec: Any, hint: str) -> None:
    """A value that is no source is refused at once, with a hint at the probable intention."""
    with pytest.raises(ConfigurationError, match=hint):
        async with open_source(spec):
            pass


async def test_a_synchronous_session_is_refused() -> None:
    """A boto3 session would block the event loop; the message names the alternative."""
    with pytest.raises(ConfigurationError, match="aioboto3"):
        async with open_source(Session()):
            pass


# -- facts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "region_name", "partition"),
    [
        ({}, None, None),
        ({"region_name": "cn-north-1"}, "cn-north-1", "aws-cn"),
        ({"region_name": "us-gov-west-1"}, "us-gov-west-1", "aws-us-gov"),
        ({"partition": "aws-cn"}, None, "aws-cn"),
        ({"partition": "aws-cn", "region_name": "eu-west-1"}, "eu-west-1", "aws-cn"),
    ],
)
async def test_the_partition_is_the_requested_one_else_the_regions(
    options: dict[str, str], region_name: str | None, partition: str | None
) -> None:
    """The requested partition wins over the region's; with neither it stays unknown."""
    async with open_source(Keys(ID, SECRET), **options) as source:
        facts = await source.facts()

    assert (facts.region_name, facts.partition) == (region_name, partition)


async def test_the_region_follows_botos_order(
    write: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_DEFAULT_REGION wins over the profile's region, and AWS_REGION is not read, as in botocore."""
    write(".aws/config", "[default]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    async with open_source(Keys(ID, SECRET)) as source:
        from_the_profile = (await source.facts()).region_name
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    async with open_source(Keys(ID, SECRET)) as source:
        from_the_environment = (await source.facts()).region_name

    assert (from_the_profile, from_the_environment) == ("eu-west-1", "us-east-2")


async def test_a_key_distinguishes_sources_and_holds_no_secret(write: Callable[[str, str], None]) -> None:
    """Equal keys have an equal source key, different keys a different one; it holds neither secret nor key id."""
    write(".aws/credentials", f"[p]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")

    async def key(spec: SourceSpec) -> Any:
        async with open_source(spec) as source:
            return (await source.facts()).key

    async def fetch() -> Keys:
        return Keys(ID, SECRET)

    found = [await key(spec) for spec in (Keys(ID, SECRET), Keys(OTHER_ID, SECRET), Profile("p"), fetch, fetch)]

    assert await key(Keys(ID, SECRET)) == found[0]
    assert await key(Profile("p")) == found[2]
    assert len(set(found)) == 5
    assert not any(ID in repr(each) or SECRET in repr(each) for each in found)


async def test_a_repr_shows_origin_and_state_without_secrets() -> None:
    """A source's repr shows its origin and whether it was resolved."""
    async with open_source(Keys(ID, SECRET)) as source:
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
    async with open_source(Profile("p")) as source:
        session = await source.aio_session()

    assert isinstance(session, AioSession)
    assert session.get_config_variable("retry_mode") == "adaptive"


# -- keys --------------------------------------------------------------------------------------------------------------


async def test_expired_keys_are_refused_with_their_expiration() -> None:
    """Explicit keys are used until their expiration, and then refused: they cannot be renewed."""
    clock = FakeClock()
    ends = datetime.fromtimestamp(clock.time(), UTC) + timedelta(minutes=30)
    async with open_source(Keys(ID, SECRET, "token", ends), clock=clock) as source:
        await source.credentials()
        clock.advance(29 * 60)
        await source.credentials()
        clock.advance(61)

        with pytest.raises(SourceExpired, match=rf"\.\.\.MPLE expired at {ends:%Y-%m-%dT%H:%M:%SZ}"):
            await source.credentials()


# -- callables ---------------------------------------------------------------------------------------------------------


class KeyStore:
    """Stored keys: returns them in order, the last one again and again, and counts its calls."""

    def __init__(self, *keys: Keys) -> None:
        self.keys = list(keys)
        self.calls = 0

    async def fetch(self) -> Keys:
        self.calls += 1
        return self.keys[min(self.calls, len(self.keys)) - 1]


async def test_keys_without_expiration_are_fetched_once() -> None:
    """A callable whose keys do not expire is called once, and again only after AWS rejected them."""
    clock, store = FakeClock(), KeyStore(Keys(ID, SECRET), Keys(OTHER_ID, SECRET))
    async with open_source(store.fetch, clock=clock) as source:
        first = await source.credentials()
        clock.advance(365 * 86_400)
        await source.credentials()
        calls_before = store.calls
        source.reject(first.access_key_id)
        second = await source.credentials()

    assert calls_before == 1
    assert (first.access_key_id, second.access_key_id) == (ID, OTHER_ID)


async def test_rejections_of_the_same_keys_share_one_renewal() -> None:
    """Keys that AWS rejects again while they are renewed, or after that, cause no second load."""
    store = KeyStore(Keys(ID, SECRET), Keys(OTHER_ID, SECRET))
    async with open_source(store.fetch) as source:
        await source.credentials()
        before_the_renewal = source.reject(ID), source.reject(ID)
        second = await source.credentials()
        after_the_renewal = source.reject(ID)
        third = await source.credentials()

    assert (before_the_renewal, after_the_renewal) == ((True, True), True)
    assert second == third
    assert store.calls == 2


async def test_keys_that_a_load_returned_again_are_not_loaded_at_each_rejection() -> None:
    """If a load after a rejection returns the same keys, the next load is a few seconds later."""
    clock, store = FakeClock(), KeyStore(Keys(ID, SECRET))
    async with open_source(store.fetch, clock=clock) as source:
        await source.credentials()
        source.reject(ID)
        await source.credentials()
        at_once = source.reject(ID)
        clock.advance(RefreshPolicy().denial_memory[1])
        later = source.reject(ID)
        await source.credentials()

    assert (at_once, later) == (False, True)
    assert store.calls == 3


async def test_rejected_explicit_keys_are_not_tried_again() -> None:
    """Explicit keys cannot be renewed, so another attempt after a rejection makes no sense."""
    async with open_source(Keys(ID, SECRET)) as source:
        await source.credentials()

        assert source.reject(ID) is False
        assert (await source.credentials()).access_key_id == ID


async def test_keys_with_expiration_are_fetched_again_before_they_expire() -> None:
    """At minute 50 of an hour the callable is called a second time, in the background."""
    clock = FakeClock()
    now = datetime.fromtimestamp(clock.time(), UTC)
    store = KeyStore(
        Keys(ID, SECRET, "token", now + timedelta(hours=1)), Keys(OTHER_ID, SECRET, "token", now + timedelta(hours=2))
    )
    async with open_source(store.fetch, clock=clock) as source:
        first = await source.credentials()
        clock.advance(50 * 60)
        meanwhile = await source.credentials()
        await anyio.wait_all_tasks_blocked()
        second = await source.credentials()

    assert [each.access_key_id for each in (first, meanwhile, second)] == [ID, ID, OTHER_ID]
    assert store.calls == 2


async def test_a_hundred_callers_at_once_share_one_fetch() -> None:
    """The callable runs once for a hundred callers at the same moment."""
    store = KeyStore(Keys(ID, SECRET))
    async with open_source(store.fetch) as source, anyio.create_task_group() as callers:
        for _ in range(100):
            callers.start_soon(source.credentials)

    assert store.calls == 1


async def returns_a_dict() -> Any:
    return {"access_key_id": ID, "secret_access_key": SECRET}


async def returns_expired_keys() -> Keys:
    return Keys(ID, SECRET, "token", datetime(2020, 1, 1, tzinfo=UTC))


def is_not_async() -> Keys:
    return Keys(ID, SECRET)


async def raises_an_error() -> Keys:
    password = SECRET
    raise LookupError(f"the database is away, {len(password)}")


async def raises_a_source_error() -> Keys:
    raise SourceExpired("log in to the vault")


@pytest.mark.parametrize(
    ("fetch", "error", "message"),
    [
        (returns_a_dict, SourceError, "returns_a_dict must return asyncauth.Keys, it returned dict"),
        (
            returns_expired_keys,
            SourceExpired,
            "returns_expired_keys returned keys that expired at 2020-01-01T00",
        ),
        (is_not_async, SourceError, "is_not_async must be async: it returned Keys"),
        (functools.partial(raises_an_error), SourceError, "raises_an_error raised LookupError"),
        (raises_a_source_error, SourceExpired, "^log in to the vault$"),
    ],
)
async def test_a_callable_that_fails_is_named(
    fetch: Callable[[], Awaitable[Keys]], error: type[Exception], message: str
) -> None:
    """A failing callable raises an error of the source with the callable's name and without secrets."""
    async with open_source(fetch) as source:
        with pytest.raises(error, match=message) as raised:
            await source.credentials()

    assert SECRET not in shown(raised.value)


async def test_a_callables_own_error_is_the_cause() -> None:
    """The callable's exception is the cause of the source's error, with its type, message and traceback."""
    async with open_source(raises_an_error) as source:
        with pytest.raises(SourceError) as raised:
            await source.credentials()

    cause = raised.value.__cause__
    assert isinstance(cause, LookupError)
    assert "raises_an_error" in "".join(traceback.format_exception(cause))


def shown(error: BaseException) -> str:
    """Return everything that an error tracker would show of an error, local variables included."""
    captured = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(captured.format()) + repr(error.__dict__)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_keys_and_callables_resolve_on_trio_too(anyio_backend: str) -> None:
    """Keys and a callable resolve on trio as on asyncio: neither needs aiohttp."""
    store = KeyStore(Keys(ID, SECRET))
    found = []
    for spec in (Keys(ID, SECRET), store.fetch):
        async with open_source(spec) as source:
            found.append((await source.credentials()).access_key_id)

    assert found == [ID, ID]


# -- explicit sessions -------------------------------------------------------------------------------------------------


async def test_a_session_provides_its_own_credentials() -> None:
    """An aiobotocore session provides its own credentials and configuration."""
    session = AioSession()
    session.set_credentials(ID, SECRET, "token")
    session.set_config_variable("region", "cn-north-1")
    async with open_source(session) as source:
        credentials, facts = await source.credentials(), await source.facts()
        configuration = await source.aio_session()

    assert credentials.access_key_id == ID
    assert (facts.method, facts.partition, facts.long_term) == ("session", "aws-cn", False)
    assert configuration is session


async def test_a_session_without_credentials_is_refused() -> None:
    """A session without credentials raises an error that names the session's class."""
    async with open_source(AioSession()) as source:
        with pytest.raises(NoSourceCredentials, match="the AioSession"):
            await source.credentials()


async def test_a_sessions_failure_is_an_error_of_the_source() -> None:
    """A session whose profile does not exist raises the same error as the chain."""
    async with open_source(AioSession(profile="nope")) as source:
        with pytest.raises(ConfigurationError, match="'nope'"):
            await source.credentials()


@pytest.fixture
def rotated_file(write: Callable[[str, str], None]) -> Callable[[str], None]:
    """Return a function that writes a key id to the credentials file."""

    def rotate(key_id: str) -> None:
        write(".aws/credentials", f"[p]\naws_access_key_id = {key_id}\naws_secret_access_key = {SECRET}\n")

    rotate(ID)
    return rotate


async def test_a_sessions_chain_is_resolved_again_after_a_rejection(rotated_file: Callable[[str], None]) -> None:
    """A session keeps the keys of a file that was rewritten; after a rejection the source reads the new ones."""
    third_id = "AKIAIOSFODNN7THIRD00"
    async with open_source(AioSession(profile="p")) as source:
        found = [(await source.credentials()).access_key_id]
        for key_id in (OTHER_ID, third_id):
            rotated_file(key_id)
            source.reject(found[-1])
            found.append((await source.credentials()).access_key_id)

    assert found == [ID, OTHER_ID, third_id]


async def test_a_sessions_explicit_keys_are_not_replaced_by_those_of_its_chain(
    rotated_file: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejected keys that the user set on a session stay its keys, although the session's chain has other ones."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OTHER_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    session = AioSession(profile="p")
    session.set_credentials("AKIAIOSFODNN7SETBYME", SECRET)
    async with open_source(session) as source:
        source.reject((await source.credentials()).access_key_id)

        assert (await source.credentials()).access_key_id == "AKIAIOSFODNN7SETBYME"


async def test_keys_that_the_user_sets_on_a_session_replace_those_of_its_chain(
    rotated_file: Callable[[str], None],
) -> None:
    """After a renewal through the session's chain, keys that the user sets on the session are used."""
    session = AioSession(profile="p")
    async with open_source(session) as source:
        source.reject((await source.credentials()).access_key_id)
        rotated_file(OTHER_ID)
        renewed = (await source.credentials()).access_key_id
        session.set_credentials("AKIAIOSFODNN7SETBYME", SECRET)
        source.reject(renewed)
        explicit = (await source.credentials()).access_key_id

    assert (renewed, explicit) == (OTHER_ID, "AKIAIOSFODNN7SETBYME")


class Renewing:
    """Credentials of another library's class: it renews itself, and states no expiration."""

    def __init__(self) -> None:
        self.calls = 0

    async def get_frozen_credentials(self) -> StaticCredentials:
        self.calls += 1
        return StaticCredentials(ID if self.calls == 1 else OTHER_ID, SECRET, "token")


async def test_credentials_of_unknown_expiration_are_read_again_within_a_minute() -> None:
    """A credentials object of another class is used for a minute, and then read again."""
    clock, renewing = FakeClock(), Renewing()

    class Session(AioSession):  # type: ignore[misc]  # aiobotocore has no types
        async def get_credentials(self) -> Any:
            return renewing

    async with open_source(Session(), clock=clock) as source:
        first = await source.credentials()
        await source.credentials()
        calls_at_first = renewing.calls
        clock.advance(LEASE_SECONDS)
        later = await source.credentials()

    assert calls_at_first == 1
    assert (first.access_key_id, later.access_key_id) == (ID, OTHER_ID)


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def refreshable(seconds: float) -> RefreshableCredentials:
    """Return botocore's credentials that expire in `seconds`."""
    now = datetime.now(UTC)
    return RefreshableCredentials(
        ID, SECRET, "token", now + timedelta(seconds=seconds), dict, "test", time_fetcher=lambda: now
    )


@pytest.mark.parametrize("seconds", [0.4, 2, 900, 3600, 43_200, 129_600])
def test_the_expiration_is_found_by_binary_search(seconds: float) -> None:
    """The lifetime that is found is never longer than the true one, and less than 0.1 s shorter."""
    left = seconds_left(refreshable(seconds))

    assert left is not None
    assert seconds - 0.1 < left <= seconds


def test_lifetimes_of_each_kind_of_credentials() -> None:
    """Static keys do not expire; expired keys have 0 s left; another library's class has the length of a lease."""
    assert seconds_left(StaticCredentials(ID, SECRET)) is None
    assert seconds_left(refreshable(-5)) == 0
    assert seconds_left(refreshable(100 * 365 * 86_400)) is None
    assert seconds_left(Renewing()) == LEASE_SECONDS


# -- boto's chain ------------------------------------------------------------------------------------------------------


async def test_fifty_first_uses_of_a_role_profile_assume_it_once(wire: Wire, write: Callable[[str, str], None]) -> None:
    """Fifty callers at the same moment share the result of one AssumeRole."""
    write(".aws/config", ROLE_PROFILE)
    found: list[str] = []
    async with open_source(Profile("p")) as source:

        async def call() -> None:
            found.append((await source.credentials()).access_key_id)

        async with anyio.create_task_group() as callers:
            for _ in range(50):
                callers.start_soon(call)

    assert found == [key_id_for(ROLE)] * 50
    assert wire.count("AssumeRole") == 1


async def test_the_first_callers_cancellation_does_not_end_the_load(
    wire: Wire, write: Callable[[str, str], None]
) -> None:
    """With the first of three callers cancelled while STS is slow, the others get the result of one AssumeRole."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    found: list[str] = []
    async with open_source(Profile("p")) as source:

        async def call(scope: anyio.CancelScope) -> None:
            with scope:
                found.append((await source.credentials()).access_key_id)

        scopes = [anyio.CancelScope() for _ in range(3)]
        async with anyio.create_task_group() as callers:
            for scope in scopes:
                callers.start_soon(call, scope)
            await anyio.to_thread.run_sync(wire.arrived.wait, 10)
            scopes[0].cancel()
            wire.guard.set()

    assert found == [key_id_for(ROLE)] * 2
    assert wire.count("AssumeRole") == 1


async def test_a_load_that_hangs_leaves_one_thread_which_the_next_load_joins(
    wire: Wire, write: Callable[[str, str], None]
) -> None:
    """A load after one that timed out waits for the thread that still runs, and gets its result."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    clock = FakeClock()
    before = threading.active_count()
    async with open_source(Profile("p"), clock=clock) as source:
        for _ in range(3):
            async with anyio.create_task_group() as callers:
                callers.start_soon(_expect_timeout, source)
                await anyio.to_thread.run_sync(wire.arrived.wait, 10)
                while clock.next_timer is None:
                    await anyio.lowlevel.checkpoint()
                clock.advance(INTERACTIVE_LOAD_TIMEOUT_SECONDS)
        threads = threading.active_count() - before
        wire.guard.set()
        credentials = await source.credentials()

    assert credentials.access_key_id == key_id_for(ROLE)
    assert wire.count("AssumeRole") == 1
    assert (
        threads <= 4
    )  # the stub's connection, the chain's thread, and the thread of this test that waited for the stub


class HangingProcess:
    """A command that does not end before the test: it reads from a pipe.

    Args:
        pipe: path of the pipe.
    """

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self._pipe = pipe
        self._writer: int | None = None
        self.command = f"cat {pipe}"

    def is_running(self) -> bool:
        """Return whether the command reads from the pipe, and keep it there."""
        if self._writer is None:
            with contextlib.suppress(OSError):  # it has not opened the pipe
                self._writer = os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer is not None

    def end(self) -> None:
        """End the command."""
        if self.is_running():
            assert self._writer is not None
            os.close(self._writer)


@pytest.fixture
def hanging_process(tmp_path: Path) -> Iterator[HangingProcess]:
    process = HangingProcess(tmp_path / "pipe")
    yield process
    process.end()


@pytest.mark.parametrize(
    ("config", "profile"),
    [
        pytest.param("[profile p]\ncredential_process = {command}\n", "p", id="its own"),
        (f"[profile p]\nrole_arn = {ROLE}\nsource_profile = q\n[profile q]\ncredential_process = {{command}}\n", "q"),
    ],
)
async def test_the_error_of_a_load_that_takes_too_long_names_the_credential_process(
    write: Callable[[str, str], None], hanging_process: HangingProcess, config: str, profile: str
) -> None:
    """A `credential_process` that does not end is named when the load times out, also that of a source profile."""
    write(".aws/config", config.format(command=hanging_process.command))
    clock = FakeClock()
    async with open_source(Profile("p"), clock=clock) as source, anyio.create_task_group() as callers:

        async def call() -> None:
            with pytest.raises(SourceError, match=rf"within 60 s; the credential_process of profile '{profile}'"):
                await source.credentials()

        callers.start_soon(call)
        while clock.next_timer is None or not hanging_process.is_running():
            await anyio.lowlevel.checkpoint()
        clock.advance(INTERACTIVE_LOAD_TIMEOUT_SECONDS)


def test_a_credential_process_that_does_not_end_does_not_keep_the_interpreter(
    write: Callable[[str, str], None], hanging_process: HangingProcess
) -> None:
    """After its run has ended, a program exits although its `credential_process` still runs."""
    write(".aws/config", f"[profile p]\nregion = us-east-1\ncredential_process = {hanging_process.command}\n")
    program = (
        "import asyncio\n"
        "from asyncauth import SessionPool\n"
        "async def job(session): pass\n"
        "async def main():\n"
        "    async with SessionPool(profile='p') as pool:\n"
        "        print((await pool.map(job, ['111111111111'], timeout=0.5))[0].status)\n"
        "asyncio.run(main())\n"
    )
    # If the interpreter waits for the thread, it waits forever, and this is the end of the test.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, "timed_out\n"), done.stderr


async def _expect_timeout(source: Source) -> None:
    with pytest.raises(SourceError, match=r"profile 'p': no answer within 60 s"):
        await source.credentials()


async def test_the_loop_is_not_blocked_while_the_chain_resolves(wire: Wire, write: Callable[[str, str], None]) -> None:
    """While the chain waits for STS, the event loop runs other tasks."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    async with open_source(Profile("p")) as source, anyio.create_task_group() as callers:
        callers.start_soon(source.credentials)
        await anyio.to_thread.run_sync(wire.arrived.wait, 10)
        ran = False
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
            ran = True
        wire.guard.set()

    assert ran


async def test_a_file_is_read_once_until_aws_rejects_its_keys(write: Callable[[str, str], None]) -> None:
    """A key rotated on disk is not read while the old one works, and read once AWS rejects the old one."""
    clock = FakeClock()
    write(".aws/credentials", f"[p]\naws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n")
    async with open_source(Profile("p"), clock=clock) as source:
        first = await source.credentials()
        write(".aws/credentials", f"[p]\naws_access_key_id = {OTHER_ID}\naws_secret_access_key = {SECRET}\n")
        clock.advance(86_400)
        same = await source.credentials()
        source.reject(first.access_key_id)
        second = await source.credentials()

    assert [each.access_key_id for each in (first, same, second)] == [ID, ID, OTHER_ID]


async def test_a_chain_that_found_nothing_is_resolved_again(write: Callable[[str, str], None]) -> None:
    """Keys written after a first failure are found when the memory of that failure has ended."""
    clock = FakeClock()
    async with open_source(None, clock=clock) as source:
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
    async with open_source(Profile("p"), clock=clock) as source:
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
    """When AWS rejects a role profile's token, the role is assumed again, although botocore has it as valid."""
    write(".aws/config", ROLE_PROFILE)
    async with open_source(Profile("p")) as source:
        source.reject((await source.credentials()).access_key_id)
        await source.credentials()

    assert wire.count("AssumeRole") == 2


async def test_a_rejection_during_a_renewal_is_kept(wire: Wire, write: Callable[[str, str], None]) -> None:
    """A rejection during a renewal still holds after the renewal has ended."""
    write(".aws/config", ROLE_PROFILE)
    wire.lifetime = 600
    clock = FakeClock()
    async with open_source(Profile("p"), clock=clock) as source:
        first = await source.credentials()
        wire.guard.clear()
        wire.arrived.clear()
        clock.advance(420)
        await source.credentials()
        await anyio.to_thread.run_sync(wire.arrived.wait, 10)
        source.reject(first.access_key_id)
        wire.guard.set()
        await source.credentials()
        source.reject((await source.credentials()).access_key_id)
        await source.credentials()

    assert {request.name for request in wire.requests} == {ROLE}
    assert wire.count("AssumeRole") >= 3


@pytest.mark.parametrize(
    ("arn", "region_name"),
    [("arn:aws-cn:iam::222222222222:role/r", "cn-north-1"), ("arn:aws:iam::222222222222:role/r", "us-east-1")],
)
async def test_a_role_profile_without_region_uses_the_sts_of_its_partition(
    wire: Wire, write: Callable[[str, str], None], arn: str, region_name: str
) -> None:
    """A role of `aws-cn` is assumed in Beijing, where botocore alone would use the global endpoint of `aws`."""
    write(".aws/config", ROLE_PROFILE.replace(ROLE, arn).replace("region = eu-west-1\n", ""))
    async with open_source(Profile("p")) as source:
        facts = await source.facts()

    (request,) = wire.of("AssumeRole", arn)
    assert (request.region_name, request.key_id) == (region_name, ID)
    assert (facts.region_name, facts.partition) == (None, arn.split(":")[1])


async def test_an_error_of_an_invalid_role_arn_names_its_profile(write: Callable[[str, str], None]) -> None:
    """An invalid role_arn has no partition, and the error names the profile and the settings to check."""
    write(".aws/config", ROLE_PROFILE.replace(ROLE, "junk"))
    async with open_source(Profile("p")) as source:
        with pytest.raises(SourceError, match=r"profile 'p': boto refuses .* check its role_arn"):
            await source.credentials()


async def test_expired_credentials_of_the_chain_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that have expired when the chain returns them are not used."""

    class Stuck:
        method = "somewhere"
        refresh_needed = refreshable(-5).refresh_needed

        def get_frozen_credentials(self) -> StaticCredentials:
            return StaticCredentials(ID, SECRET, "token")

    monkeypatch.setattr(Session, "get_credentials", lambda session: Stuck())
    async with open_source(None) as source:
        with pytest.raises(SourceExpired, match=r"that boto found \(somewhere\) have expired"):
            await source.credentials()


async def test_an_error_of_the_chain_shows_no_secret_to_an_error_tracker(
    write: Callable[[str, str], None], tmp_path: Path
) -> None:
    """The output of a credential process is not in the error, nor in the local variables of its traceback."""
    (tmp_path / "p.py").write_text(f"import sys; print('{SECRET}'); sys.exit('{SECRET}')")
    write(".aws/config", f"[profile p]\ncredential_process = python3 {tmp_path / 'p.py'}\n")
    async with open_source(Profile("p")) as source:
        with pytest.raises(SourceError) as raised:
            await source.credentials()

    assert SECRET not in shown(raised.value)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


async def test_a_load_raises_pool_closed_when_its_pool_closes(wire: Wire, write: Callable[[str, str], None]) -> None:
    """A caller that waits for a load while the pool closes gets PoolClosed, not a cancellation."""
    write(".aws/config", ROLE_PROFILE)
    wire.guard.clear()
    raised: list[BaseException] = []

    async def call(source: Source) -> None:
        try:
            await source.credentials()
        except PoolClosed as error:
            raised.append(error)

    async with anyio.create_task_group() as callers:
        async with open_source(Profile("p")) as source:
            callers.start_soon(call, source)
            await anyio.to_thread.run_sync(wire.arrived.wait, 10)
        wire.guard.set()

    assert [str(error) for error in raised] == ["the pool was closed while profile 'p' was being resolved"]


# -- errors ------------------------------------------------------------------------------------------------------------


def named(name: str, message: str = SECRET) -> Exception:
    """Return an exception with the name of one of botocore's, which the installed version may not have."""
    return type(name, (Exception,), {})(message)


CONTEXT = ErrorContext("profile 'p'", "p")


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
        (RuntimeError("Credentials were refreshed, but they are still expired."), SourceExpired, "have expired"),
        (RuntimeError(SECRET), SourceError, "boto failed with RuntimeError"),
        (ZeroDivisionError(SECRET), SourceError, "boto failed with ZeroDivisionError"),
        (PermissionError(13, "Permission denied", "/token"), SourceError, "Permission denied: '/token'"),
        (ProfileNotFound(profile="q"), ConfigurationError, "the profile 'q' is neither .* there are no profiles"),
        (ReadTimeoutError(endpoint_url="https://sts"), SourceError, "no answer from https://sts"),
    ],
)
def test_each_error_of_botocore_has_a_type_and_a_remedy(error: Exception, kind: type[Exception], message: str) -> None:
    """The error for each of botocore's names the source and the remedy, and does not quote botocore's message."""
    explained = explain(error, CONTEXT)

    assert type(explained) is kind
    assert re.search(message, str(explained))
    assert str(explained).startswith("profile 'p'")
    assert SECRET not in str(explained)
    assert explained.code == type(error).__name__


def test_an_unreadable_file_does_not_hide_the_missing_profile(write: Callable[[str, str], None]) -> None:
    """The error of a missing profile is raised also when the config file cannot be read."""
    write(".aws/config", "no section\n")

    assert "there are no profiles" in str(explain(ProfileNotFound(profile="q"), CONTEXT))


def test_an_added_provider_is_listed() -> None:
    """A provider that was added to boto's chain is listed by its own name."""
    session = Session()
    session.get_component("credential_provider").insert_before("env", type("Own", (), {"METHOD": "vault"})())

    assert "\n  - vault\n  - the environment" in str(no_credentials_found(session, "boto's default chain"))


async def test_an_unknown_region_is_refused_for_keys() -> None:
    """A mistyped region is refused before any request."""
    async with open_source(Keys(ID, SECRET), region_name="eu-wset-1") as source:
        with pytest.raises(ConfigurationError, match=r"keys \.\.\.MPLE: unknown region 'eu-wset-1'"):
            await source.credentials()


class Broken:
    """Credentials of a session that raise an error."""

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
async def test_the_error_of_a_session_does_not_quote_its_message(
    error: Exception, kind: type[Exception], message: str
) -> None:
    """An error of the session's credentials becomes an error of the source; an AsyncAuthError is raised unchanged."""
    session = AioSession()
    session._credentials = Broken(error)
    async with open_source(session) as source:
        with pytest.raises(kind, match=message) as raised:
            await source.credentials()

    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


async def test_an_expired_token_of_a_session_is_refused() -> None:
    """A session that still returns a token after its expiration raises SourceExpired."""
    session = AioSession()
    expired = refreshable(-5)

    class Stuck:
        refresh_needed = expired.refresh_needed

        async def get_frozen_credentials(self) -> StaticCredentials:
            return StaticCredentials(ID, SECRET, "token")

    session._credentials = Stuck()
    async with open_source(session) as source:
        with pytest.raises(SourceExpired, match="the credentials of the AioSession"):
            await source.credentials()


async def test_a_load_timeout_of_a_minute_or_more_is_not_changed(wire: Wire, write: Callable[[str, str], None]) -> None:
    """A policy whose load timeout is a minute or more, or none, is used unchanged."""
    write(".aws/config", ROLE_PROFILE)
    for seconds in (None, 3600.0):
        async with open_source(Profile("p"), policy=RefreshPolicy(load_timeout=seconds)) as source:
            await source.credentials()

    assert wire.count("AssumeRole") == 2


async def test_a_worker_thread_raises_pool_closed_when_its_task_group_ends() -> None:
    """A caller that waits for an abandoned thread gets PoolClosed."""
    held, arrived = threading.Event(), threading.Event()

    def call() -> str:
        arrived.set()
        held.wait(10)
        return "too late"

    raised: list[PoolClosed] = []

    async def wait(worker: WorkerThread[str]) -> None:
        try:
            await worker.run()
        except PoolClosed as error:
            raised.append(error)

    async with anyio.create_task_group() as callers:
        async with anyio.create_task_group() as flights:
            callers.start_soon(wait, WorkerThread("test", call, flights.start_soon))
            await anyio.to_thread.run_sync(arrived.wait, 10)
            flights.cancel_scope.cancel()
        held.set()

    assert len(raised) == 1
