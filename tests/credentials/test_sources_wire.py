"""Every source that boto knows, over real HTTP on loopback, each in a process of its own with a clean home.

Each is resolved, told what it is, and then used as the base of one real assumed call. The simulated fleet says who
assumed the role, so a source that silently gave way to another one is seen.
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


class Ran:
    """The processes, by the name of their scenario or failure."""

    def __init__(self, world: World, threads: ThreadPoolExecutor, homes: pytest.TempPathFactory) -> None:
        self._world = world
        self._threads = threads
        self._homes = homes
        self._futures: dict[str, Future[list[Any]]] = {}
        self.made: dict[str, Any] = {}

    def start(self, name: str) -> None:
        """Start the process of one scenario, or of a failure that needs one."""
        home = self._homes.mktemp("home")
        asked: list[dict[str, Any]]
        if name in SCENARIOS:
            made = self.made[name] = SCENARIOS[name](self._world, home)
            account = self._world.account(made.partition)
            for number in range(len(made.sources)):
                self._world.role(target(name, number), made.partition, in_management=False)
            asked = [
                {**source, "account": account.id, "account_partition": made.partition, "role": target(name, number)}
                for number, source in enumerate(made.sources)
            ]
        else:
            failing = self.made[name] = FAILURES[name](self._world, home)
            if not failing.own_process:
                return
            made, asked = failing, [failing.source]
        self._futures[name] = self._threads.submit(self._world.run, home, made.env, made.files, asked)

    def answers(self, name: str) -> list[Any]:
        """Wait for a process, and return what it printed."""
        if name not in self._futures:
            self.start(name)
        return self._futures[name].result()

    def has_process(self, name: str) -> bool:
        """Tell whether it has a process of its own."""
        return name in self._futures


def target(name: str, number: int) -> str:
    """Return the name of the role that one source of a scenario assumes."""
    return f"{name}-{number}"


@pytest.fixture(scope="module")
def ran(world: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Start the processes of all the tests that were selected, a few at a time, and hand out what each gave."""
    with ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 1) as threads:
        runs = Ran(world, threads, tmp_path_factory)
        for item in request.session.items:
            if item.path == request.path and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                runs.start(item.callspec.params["name"])
        yield runs


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_source_gives_its_own_keys_and_they_assume_a_role(name: str, ran: Ran, world: World) -> None:
    """Each source yields its own keys by its own method, and it is they that assume the role of the call after."""
    answers = ran.answers(name)

    made = ran.made[name]
    assumed = [each for each in world.fleet.blocking.assumed() if each.code is None]
    account = world.account(made.partition)
    for number, (answer, gives) in enumerate(zip(answers, made.gives, strict=True)):
        (entered,) = [each for each in assumed if each.role_arn.endswith(f":role/{target(name, number)}")]
        if isinstance(gives, str):
            given = {each.access_key_id[-4:] for each in assumed if each.role_arn == gives and each.access_key_id}
            long_term = False
            assert entered.caller.startswith(f"{gives.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/")
        else:
            given, long_term = {gives.access_key_id[-4:]}, gives.session_token is None
            assert entered.caller == world.owners[gives.access_key_id]
        assert set(answer["keys"]) <= given, answer
        assert (answer["method"], answer["long_term"]) == (made.method, long_term)
        assert (answer["region_name"], answer["partition"]) == (made.region_name, made.known_partition)
        assert entered.region == made.sts_region
        assert answer["called_as"].startswith(
            f"arn:{made.partition}:sts::{account.id}:assumed-role/{target(name, number)}/"
        )


@pytest.mark.parametrize("name", FAILURES)
def test_a_source_that_fails_says_what_to_do(
    name: str,
    ran: Ran,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A source that cannot give credentials ends in one error of the tree that names the way out, and no secret."""
    if ran.has_process(name):
        made = ran.made[name]
        (answer,) = ran.answers(name)
    else:
        home = Path(os.environ["HOME"])
        made = FAILURES[name](world, home)
        write_files(home, made.files)
        for variable, value in (world.environ() | made.env).items():
            monkeypatch.setenv(variable, value)
        caplog.set_level(logging.DEBUG)
        redact_botocore_logs()
        answer = anyio.run(probe, made.source)

    assert answer.get("error") == made.error, answer
    for expected in made.says:
        assert expected in answer["message"]
    assert world.leaks(str(answer)) == []
    assert world.leaks(caplog.text) == []


def test_the_tokens_that_had_ended_were_renewed(ran: Ran, world: World) -> None:
    """The SSO token and the login were refreshed before they were used, once, and found renewed after that."""
    ran.answers("sso_with_a_token_to_refresh")
    if HAS_LOGIN:
        ran.answers("aws_login_with_a_token_to_refresh")

    assert world.wire.count("oidc", "444444444444") == 1
    assert world.wire.count("signin", "someone") == (1 if HAS_LOGIN else 0)


def test_instance_metadata_was_asked_in_its_own_version(ran: Ran, world: World) -> None:
    """Version 2 was asked with a session token that the stub insists on; version 1 was fallen back to without one."""
    ran.answers("instance_metadata_v2")
    ran.answers("instance_metadata_v1")

    assert world.wire.count("imds token", "v2") > 0
    assert (world.wire.count("imds-v2", "v2"), world.wire.count("imds-v1", "v1")) == (2, 2)


@pytest.mark.anyio
async def test_two_hundred_sessions_at_once_resolve_a_profile_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sessions a pool is asked for at the same moment, the profile's own role is assumed once."""
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
    entered = world.account("aws")
    async with SessionPool(profile="p") as pool, anyio.create_task_group() as tasks:
        for number in range(200):
            role = Role(name="manage-role", role_session_name=f"session-{number % 10}")
            tasks.start_soon(pool.session, replace(entered, role=role))

    assumed = world.fleet.blocking.assumed()
    by_the_profile = arn.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/")
    assert len([each for each in assumed if each.role_arn == arn]) == 1
    assert len([each for each in assumed if each.caller.startswith(f"{by_the_profile}/")]) == 10
