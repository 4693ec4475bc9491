"""Keys in a database, as in the examples: a real Redis server, and Secrets Manager in a simulated fleet."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from asyncauth import Keys, RefreshPolicy, SourceError
from asyncauth._credentials.sources import make_source
from asyncauth.testing import FakeClock, SimulatedFleet
from tests.support.wire.stubs import SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth._credentials.sources import Source

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    """Return a running fleet of two accounts."""
    with SimulatedFleet(2) as running:
        yield running


def run_example(name: str, fleet: SimulatedFleet, **env: str) -> str:
    """Run an unchanged example in an environment of its own, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), "--store"],
        env={
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "PYTHONPATH": str(ROOT),
            "ACCOUNTS": " ".join(account.id for account in fleet.accounts),
            **fleet.environ(),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_all_succeeded(printed: str, fleet: SimulatedFleet) -> None:
    """Check that a run printed every account with its role, and failed in none."""
    for account in fleet.accounts:
        assert f"{account.id}\tarn:aws:sts::{account.id}:assumed-role/manage-role/asyncauth\n" in printed
    assert "2 succeeded" in printed


def test_keys_in_secrets_manager(fleet: SimulatedFleet) -> None:
    """The example stores keys as a secret, and its pool uses the stored keys in every account."""
    printed = run_example("keys_in_secrets_manager.py", fleet, SECRET_ID="base-keys")

    assert_all_succeeded(printed, fleet)
    assert fleet.blocking.counts().calls("secretsmanager", "GetSecretValue", code="") == 1


def find_redis_server() -> str:
    """Return the path of redis-server; without one the test is skipped, or fails in CI."""
    path = shutil.which("redis-server")
    if path is None:
        message = "THIS TEST DID NOT RUN: there is no redis-server on this machine (Debian: apt install redis-server)"
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a Redis server on a free port of loopback, in a directory of its own, and stop it."""
    path = find_redis_server()
    home = tmp_path_factory.mktemp("redis")
    for _ in range(5):
        port = free_port()
        server = subprocess.Popen(
            [path, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", "", "--appendonly", "no"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        # Another process may bind the port first; then the next port is tried.
        ready = any("Ready to accept connections" in line for line in server.stdout)
        if ready:
            break
        server.wait(10)
        server.stdout.close()
    else:
        raise AssertionError("redis-server did not start on any of five ports")
    yield f"redis://127.0.0.1:{port}/0"
    server.terminate()
    server.communicate(timeout=10)


def free_port() -> int:
    """Return a port of loopback that was free when it was probed."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_keys_in_redis(fleet: SimulatedFleet, redis_url: str) -> None:
    """The example stores keys in a real Redis, and its pool uses the stored keys in every account."""
    printed = run_example("keys_in_redis.py", fleet, REDIS_URL=redis_url)

    assert_all_succeeded(printed, fleet)


def load_example(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Any:
    """Import the example with the address of the test's Redis."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    spec = importlib.util.spec_from_file_location("keys_in_redis", ROOT / "examples" / "keys_in_redis.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def open_source(fetch: Any, clock: FakeClock) -> AsyncIterator[Source]:
    """Yield a source of the callable."""
    async with anyio.create_task_group() as flights:
        yield make_source(fetch, spawn=flights.start_soon, clock=clock, random=random.Random(1), policy=RefreshPolicy())
        flights.cancel_scope.cancel()


async def test_keys_that_rotate_in_redis_are_read_before_the_old_ones_expire(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During ten rotations, fifty readers every twelve minutes get no expired keys."""
    from redis.asyncio import Redis

    example = load_example(monkeypatch, redis_url)
    clock = FakeClock()
    served: list[tuple[str, float]] = []
    expires_at: dict[str, float] = {}

    async def rotate(number: int, redis: Redis) -> None:
        key_id = f"AKIAIOSFODNN7ROT{number:04d}"
        expires_at[key_id] = clock.time() + 3600
        expiration = datetime.fromtimestamp(expires_at[key_id], UTC)
        stored = {
            "access_key_id": key_id,
            "secret_access_key": SECRET,
            "session_token": "token",
            "expiration": expiration.isoformat(),
        }
        await redis.set(example.NAME, json.dumps(stored))

    async def read(source: Source) -> None:
        served.append(((await source.credentials()).access_key_id, clock.time()))

    async with Redis.from_url(redis_url) as redis, open_source(example.fetch_keys, clock) as source:
        for number in range(10):
            await rotate(number, redis)
            for _ in range(4):
                async with anyio.create_task_group() as readers:
                    for _ in range(50):
                        readers.start_soon(read, source)
                with anyio.fail_after(10):
                    while source.refreshing:
                        await anyio.lowlevel.checkpoint()
                clock.advance(timedelta(minutes=12).total_seconds())

    assert len(served) == 10 * 4 * 50
    assert all(at < expires_at[key_id] for key_id, at in served)
    assert len({key_id for key_id, _ in served}) == 10


async def test_a_redis_without_keys_is_a_failure_of_the_source(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the name has no value, the error names the callable, and its cause is the callable's own error."""
    example = load_example(monkeypatch, redis_url)
    monkeypatch.setattr(example, "NAME", "name-without-a-value")
    async with open_source(example.fetch_keys, FakeClock()) as source:
        with pytest.raises(SourceError, match="fetch_keys raised LookupError") as raised:
            await source.credentials()

    assert isinstance(raised.value.__cause__, LookupError)


async def test_stored_keys_are_read_back_with_their_expiration(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example reads back the keys and the expiration that it stored, and Redis deletes them by itself."""
    from redis.asyncio import Redis

    example = load_example(monkeypatch, redis_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    await example.store_keys()
    keys = await example.fetch_keys()
    async with Redis.from_url(redis_url) as redis:
        seconds = await redis.ttl(example.NAME)

    assert isinstance(keys, Keys)
    assert keys.access_key_id == "AKIAIOSFODNN7EXAMPLE"
    assert keys.expiration is not None
    assert keys.expiration > datetime.now(UTC) + timedelta(minutes=59)
    assert 3500 < seconds <= 3600


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_a_redis_server_the_test_fails_in_ci_and_is_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    """Without redis-server, a run in CI fails, and any other run prints which test did not run."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(outcome, match="THIS TEST DID NOT RUN"):
        find_redis_server()
