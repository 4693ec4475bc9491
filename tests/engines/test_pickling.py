"""Pickling for workers: what holds credentials is refused, with the name under which the job uses it."""

from __future__ import annotations

import pickle
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pytest
from aiobotocore.session import get_session

from asyncauth import ConfigurationError, Keys, Profile, RefreshPolicy, Role, SessionPool, SsoRole
from asyncauth.caches import FileTokenCache, MemoryTokenCache
from asyncauth.engines._pickling import dump
from asyncauth.engines._settings import CacheSettings, PoolSettings
from tests.support import engine_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncauth import AccountSession

KEYS = Keys("AKIAEXAMPLEEXAMPLE01", "marked-secret-access-key")


def session_of_boto() -> Any:
    return boto3.Session(KEYS.access_key_id, KEYS.secret_access_key, region_name="us-east-1")


def aio_session() -> Any:
    session = get_session()
    session.set_credentials(KEYS.access_key_id, KEYS.secret_access_key)
    return session


def credentials() -> Any:
    return session_of_boto().get_credentials()


def frozen_credentials() -> Any:
    return credentials().get_frozen_credentials()


def client() -> Any:
    return session_of_boto().client("sts")


SECRETS: list[Callable[[], Any]] = [
    lambda: KEYS,
    session_of_boto,
    aio_session,
    botocore.session.get_session,
    credentials,
    frozen_credentials,
    client,
]


def closure_over(value: Any) -> Any:
    async def job(session: AccountSession) -> Any:
        return value

    return job


def default_of(value: Any) -> Any:
    async def job(session: AccountSession, used: Any = value) -> Any:
        return used

    return job


class Holder:
    """A job with an attribute."""

    def __init__(self, value: Any) -> None:
        self.value = value

    async def __call__(self, session: AccountSession) -> Any:
        return self.value


async def with_argument(session: AccountSession, *, given: Any = None) -> Any:
    return given


@pytest.mark.parametrize("make", SECRETS)
@pytest.mark.parametrize(
    ("job_of", "named"),
    [
        (closure_over, r"the variable 'value', which is"),
        (default_of, r"the default of 'used', which is"),
        (Holder, r"its attribute 'value', which is"),
        (lambda value: partial(with_argument, given=value), r"its argument given=, which is"),
        (lambda value: closure_over({"deep": [value]}), r"the variable 'value', which is"),
        (lambda value: closure_over(closure_over(value)), r"the variable 'value', which is"),
    ],
)
def test_a_job_that_holds_credentials_is_refused_by_name(make: Any, job_of: Any, named: str) -> None:
    """Keys, sessions of every library, credentials and clients are found wherever a job references them."""
    with pytest.raises(ConfigurationError, match=rf"the job audit uses {named}.*credentials do not travel") as raised:
        dump(job_of(make()), "the job audit")

    assert "marked-secret" not in str(raised.value)


def test_what_cannot_be_pickled_is_named() -> None:
    """A lock, or an open pool, is no credential, and gets an error with its name, too."""
    with pytest.raises(ConfigurationError, match=r"the job audit uses the variable 'value', which cannot be pickled"):
        dump(closure_over(threading.Lock()), "the job audit")
    with pytest.raises(ConfigurationError, match=r"hand over its arguments"):
        dump(closure_over(SessionPool()), "the job audit")


def test_jobs_without_secrets_are_pickled() -> None:
    """Functions, closures, partials and callable objects over plain values."""
    for job in (engine_jobs.worker_of, closure_over(3), Holder("x"), partial(with_argument, given=[1])):
        assert pickle.loads(dump(job, "the job"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (KEYS, r"the pool's source= is Keys: credentials do not travel"),
        (
            aio_session,
            r"the pool's source= is an instance of aiobotocore\.session\.AioSession, which holds credentials",
        ),
        (
            lambda: closure_over(KEYS),
            r"the pool's source= uses the variable 'value', which is Keys: credentials do not travel",
        ),
    ],
)
def test_a_source_that_holds_credentials_is_refused(source: Any, message: str) -> None:
    """The same for the source of the pool, in one partition and in several."""
    made = source() if callable(source) else source
    pool = SessionPool(source=made)
    with pytest.raises(ConfigurationError, match=message):
        PoolSettings.of(pool._settings, pool.role)

    pool = SessionPool(sources={"aws": None, "aws-cn": made})
    with pytest.raises(ConfigurationError, match=message.replace("source=", r"sources\['aws-cn'\]")):
        PoolSettings.of(pool._settings, pool.role)


@pytest.mark.parametrize(
    "source", [None, Profile("ops"), SsoRole("corp", "123456789012", "ReadOnly"), engine_jobs.keys_of_this_worker]
)
def test_settings_make_an_equal_pool(source: Any) -> None:
    """A worker's pool has the role, the source and the settings of the client's."""
    role = Role("audit", external_id="of-the-audit")
    refresh = RefreshPolicy()
    pool = SessionPool(role, source=source, region_name="eu-west-1", max_at_once=7, refresh=refresh, verify=False)

    travelled: PoolSettings = pickle.loads(dump(PoolSettings.of(pool._settings, pool.role), "the settings"))
    other = travelled.pool()

    assert other.role == role
    for name in ("sources", "region_name", "max_at_once", "policy", "verify"):
        assert getattr(other._settings, name) == getattr(pool._settings, name)


def test_the_settings_of_a_file_cache_travel(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Workers share the files; a cache in memory or with a key stays, and so does one whose folder a worker refuses."""

    def travelled(cache: Any) -> Any:
        pool = SessionPool(token_cache=cache)
        settings: PoolSettings = pickle.loads(dump(PoolSettings.of(pool._settings, pool.role), "the settings"))
        return settings.pool()._settings.cache

    folder = tmp_path / "tokens"
    shared = travelled(FileTokenCache(folder, configured={"aws": "digest"}, max_entries=7))
    stays = [travelled(MemoryTokenCache()), travelled(FileTokenCache(folder, encryption_key=b"k" * 32))]
    folder.chmod(0o755)

    assert (shared.directory, shared.configured, shared.max_entries) == (folder, {"aws": "digest"}, 7)
    assert stays == [None, None]
    assert CacheSettings(str(folder), None, 7).open() is None
    assert [record.message.partition(",")[0].partition(": ")[0] for record in caplog.records] == [
        "the pool's token_cache= is a MemoryTokenCache",
        "the pool's token_cache= is encrypted",
        "this worker goes on without the pool's token_cache=",
    ]


def test_shipped_keys_arrive() -> None:
    """With ship_tokens=True the worker's pool has the keys, and no repr shows them."""
    pool = SessionPool(keys=KEYS)

    settings = PoolSettings.of(pool._settings, pool.role, ship_tokens=True)

    assert "marked-secret" not in repr(settings)
    assert settings.pool()._settings.sources[None] == KEYS
