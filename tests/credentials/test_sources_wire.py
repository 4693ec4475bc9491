"""Every source that boto knows, over real HTTP on loopback, each in a process of its own with an empty home.

Each source is resolved, its facts are compared, and it assumes a role for one call. The simulated fleet records the
caller of AssumeRole, so a source that was silently replaced by another one fails the test.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import Role, SessionPool
from asyncauth._aws.log_redaction import redact_botocore_logs
from asyncauth.testing import SimulatedFleet
from tests.support.wire.failures import FAILURES
from tests.support.wire.files import keys_in
from tests.support.wire.probe import probe
from tests.support.wire.scenarios import HAS_LOGIN, SCENARIOS
from tests.support.wire.stubs import Wire
from tests.support.wire.world import World, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.botocore


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Start the fleet and the stubs."""
    wire = Wire().start()
    with SimulatedFleet({"aws": 1, "aws-cn": 1}) as fleet:
        yield World(fleet, wire, anyio.run(fleet.web_identity_token))
    wire.stop()


class Processes:
    """The processes of the tests, by the name of their scenario or failure."""

    def __init__(self, world: World, threads: ThreadPoolExecutor, homes: pytest.TempPathFactory) -> None:
        self._world = world
        self._threads = threads
        self._homes = homes
        self._futures: dict[str, Future[list[Any]]] = {}
        self.made: dict[str, Any] = {}

    def start(self, name: str) -> None:
        """Start the process of one scenario, or of a failure that needs one."""
        home = self._homes.mktemp("home")
        sources: list[dict[str, Any]]
        if name in SCENARIOS:
            made = self.made[name] = SCENARIOS[name](self._world, home)
            account = self._world.account(made.partition)
            for number in range(len(made.sources)):
                self._world.role(target(name, number), made.partition, in_management=False)
            sources = [
                {**source, "account": account.id, "account_partition": made.partition, "role": target(name, number)}
                for number, source in enumerate(made.sources)
            ]
        else:
            failing = self.made[name] = FAILURES[name](self._world, home)
            if not failing.own_process:
                return
            made, sources = failing, [failing.source]
        self._futures[name] = self._threads.submit(self._world.run, home, made.env, made.files, sources)

    def results(self, name: str) -> list[Any]:
        """Wait for a process, and return the results that it printed."""
        if name not in self._futures:
            self.start(name)
        return self._futures[name].result()

    def has_process(self, name: str) -> bool:
        """Return whether it has a process of its own."""
        return name in self._futures


def target(name: str, number: int) -> str:
    """Return the name of the role that one source of a scenario assumes."""
    return f"{name}-{number}"


@pytest.fixture(scope="module")
def processes(
    world: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    """Start the processes of all selected tests, a few at a time."""
    with ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 1) as threads:
        started = Processes(world, threads, tmp_path_factory)
        for item in request.session.items:
            if item.path == request.path and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                started.start(item.callspec.params["name"])
        yield started


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_source_provides_its_own_keys_which_assume_a_role(name: str, processes: Processes, world: World) -> None:
    """Each source provides its own keys by its own method, and these keys sign the AssumeRole that follows."""
    results = processes.results(name)

    made = processes.made[name]
    assumed = [each for each in world.fleet.blocking.assumed() if each.code is None]
    account = world.account(made.partition)
    for number, (result, expected) in enumerate(zip(results, made.expected, strict=True)):
        (assume_role,) = [each for each in assumed if each.role_arn.endswith(f":role/{target(name, number)}")]
        if isinstance(expected, str):
            issued = {each.access_key_id[-4:] for each in assumed if each.role_arn == expected and each.access_key_id}
            long_term = False
            session_arn = expected.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
            assert assume_role.caller.startswith(f"{session_arn}/")
        else:
            issued, long_term = {expected.access_key_id[-4:]}, expected.session_token is None
            assert assume_role.caller == world.owners[expected.access_key_id]
        assert set(result["keys"]) <= issued, result
        assert (result["method"], result["long_term"]) == (made.method, long_term)
        assert (result["region_name"], result["partition"]) == (made.region_name, made.known_partition)
        assert assume_role.region == made.sts_region
        assert result["called_as"].startswith(
            f"arn:{made.partition}:sts::{account.id}:assumed-role/{target(name, number)}/"
        )


@pytest.mark.parametrize("name", FAILURES)
def test_a_failing_source_names_the_remedy(
    name: str,
    processes: Processes,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A source without credentials raises one error of asyncauth with the remedy and without a secret."""
    if processes.has_process(name):
        made = processes.made[name]
        (result,) = processes.results(name)
    else:
        home = Path(os.environ["HOME"])
        made = FAILURES[name](world, home)
        write_files(home, made.files)
        for variable, value in (world.environ() | made.env).items():
            monkeypatch.setenv(variable, value)
        caplog.set_level(logging.DEBUG)
        redact_botocore_logs()
        result = anyio.run(probe, made.source)

    assert result.get("error") == made.error, result
    for expected in made.message:
        assert expected in result["message"]
    assert world.leaks(str(result)) == []
    assert world.leaks(caplog.text) == []


def test_expired_sso_and_login_tokens_are_renewed_once(processes: Processes, world: World) -> None:
    """The SSO token and the login are refreshed before their first use, and not again for the second pool."""
    processes.results("sso_with_a_token_to_refresh")
    if HAS_LOGIN:
        processes.results("aws_login_with_a_token_to_refresh")

    assert world.wire.count("oidc", "444444444444") == 1
    assert world.wire.count("signin", "someone") == (1 if HAS_LOGIN else 0)


def test_both_versions_of_instance_metadata_are_used(processes: Processes, world: World) -> None:
    """Version 2 is used with the session token that the stub requires; version 1 is the fallback without one."""
    processes.results("instance_metadata_v2")
    processes.results("instance_metadata_v1")

    assert world.wire.count("imds token", "v2") > 0
    assert (world.wire.count("imds-v2", "v2"), world.wire.count("imds-v1", "v1")) == (2, 2)


@pytest.mark.anyio
async def test_two_hundred_sessions_at_once_resolve_a_profile_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two hundred sessions at the same moment, the profile's own role is assumed once."""
    arn = world.role("profile-of-a-pool")
    home = Path(os.environ["HOME"])
    write_files(
        home,
        {
            ".aws/config": f"[profile p]\nrole_arn = {arn}\nsource_profile = base\n",
            ".aws/credentials": keys_in("base", world.user("pool")),
        },
    )
    for variable, value in world.environ().items():
        monkeypatch.setenv(variable, value)
    account = world.account("aws")
    async with SessionPool(profile="p") as pool, anyio.create_task_group() as tasks:
        for number in range(200):
            role = Role(name="manage-role", role_session_name=f"session-{number % 10}")
            tasks.start_soon(pool.session, replace(account, role=role))

    assumed = world.fleet.blocking.assumed()
    by_the_profile = arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
    assert len([each for each in assumed if each.role_arn == arn]) == 1
    assert len([each for each in assumed if each.caller.startswith(f"{by_the_profile}/")]) == 10
