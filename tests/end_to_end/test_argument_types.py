"""Arguments of a wrong type: every public entry point names the parameter, and raises no error of Python's own."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import (
    Account,
    AccountSession,
    AsyncAuthError,
    Keys,
    Profile,
    RateLimit,
    RefreshPolicy,
    Retry,
    Role,
    RunKeywords,
    SessionPool,
)
from asyncauth.testing import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

LONG = "\x1b[2J\r\n" + "x" * 100_000
MAX_MESSAGE = 2_000
KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "s" * 40)
WRONG = [None, 1, -1, 1.5, "x", "", b"b", [], {}, (), object(), ["x"], [1], {"x": 1}, float("nan"), True, lambda: 0]
WRONG += [LONG, [LONG], {LONG: LONG}, LONG.encode()]

#: What constructs each, besides the parameter that is wrong.
ENTRIES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (SessionPool, {}),
    (Account, {"id": "123456789012"}),
    (Role, {"name": "r"}),
    (Keys, {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "s"}),
    (Profile, {"name": "p"}),
    (RateLimit, {"service": "ec2", "rate": 1}),
    (Retry, {"attempts": 2}),
    (RefreshPolicy, {}),
]
PARAMETERS = [
    pytest.param(entry, given, name, id=f"{entry.__name__}-{name}")
    for entry, given in ENTRIES
    for name in inspect.signature(entry).parameters
]


def foreign_errors(call: Callable[[Any], Any]) -> list[str]:
    """Return the errors that are not asyncauth's, of all wrong values."""
    found: list[str] = []
    for value in WRONG:
        try:
            call(value)
        except AsyncAuthError as error:
            if not str(error) or len(str(error)) > MAX_MESSAGE:
                found.append(f"{value!r}: {error!r}")
        except Exception as error:
            found.append(f"{value!r}: {error!r}")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("entry", "given", "name"), PARAMETERS)
def test_a_constructor_refuses_wrong_types(entry: Callable[..., Any], given: dict[str, Any], name: str) -> None:
    """Whatever the value, the constructor accepts it or raises an error of asyncauth."""
    assert foreign_errors(lambda value: entry(**(given | {name: value}))) == []


@pytest.mark.parametrize("name", ["job", "accounts", "regions", *RunKeywords.__annotations__])
async def test_a_run_refuses_wrong_types(name: str) -> None:
    """A run checks all its arguments before anything starts."""

    async def job(_: Any) -> None: ...

    async with SessionPool(keys=KEYS) as pool:
        given: dict[str, Any] = {"job": job, "accounts": ["123456789012"]}
        assert foreign_errors(lambda value: pool.as_completed(**(given | {name: value}))) == []


async def test_a_session_and_a_warm_up_refuse_wrong_types() -> None:
    """The coroutine raises before it sends a request."""

    def step(call: Any) -> None:
        try:
            call.send(None)
        except StopIteration:
            return
        finally:
            call.close()

    async with SessionPool(keys=KEYS) as pool:
        for region in (1, object(), ["x"], {"x": 1}):
            with pytest.raises(AsyncAuthError):
                step(pool.session("123456789012", region))  # type: ignore[arg-type]
        for services in (None, 1, b"b", [1], object()):
            with pytest.raises(AsyncAuthError):
                step(pool.warm([], services=services))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(1) as running:
        yield running


@pytest.fixture
async def session(fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AccountSession]:
    for name, value in fleet.environ().items():
        monkeypatch.setenv(name, value)
    async with SessionPool() as pool:
        yield await pool.session(fleet.accounts[0])


#: How a message names an argument, if not by its name.
NAMED = {"service_name": "service name", "region_name": "region"}
CLIENT_OPTIONS = ["service_name", "region_name", "endpoint_url", "config", "verify", "use_ssl", "api_version"]
#: Values that a client can be built with, and what botocore's own errors are: a service and a version that are not
#: there.
NOT_WRONG = (None, True, False, (), {}, "x")
VALID = [("region_name", "")]


@pytest.mark.parametrize("bridge", ["own", "boto3", "aiobotocore"])
@pytest.mark.parametrize("name", [*CLIENT_OPTIONS, "isolated"])
async def test_a_client_refuses_wrong_types(bridge: str, name: str, session: Any) -> None:
    """The argument is named, in the session's own clients and in those of its bridges."""
    if bridge == "boto3":
        pytest.importorskip("boto3")
    if bridge != "own" and name == "isolated":
        pytest.skip("an option of the session's own clients")
    entry: Callable[..., Any] = {
        "own": session.client,
        "boto3": session.boto3().client,
        "aiobotocore": session.aiobotocore().create_client,
    }[bridge]
    for value in WRONG:
        if any(value is valid for valid in NOT_WRONG) or (name, value) in VALID:
            continue
        with pytest.raises(AsyncAuthError, match=NAMED.get(name, name)) as raised:
            entry(**({"service_name": "ec2"} | {name: value}))
        assert len(str(raised.value)) <= MAX_MESSAGE


async def test_the_switch_of_an_environment_refuses_wrong_types(session: Any) -> None:
    """A text would count as true, and put keys into the environment."""
    for value in (None, "false", 1, [], object()):
        with pytest.raises(AsyncAuthError, match=r"static= of environ\(\) is a"):
            session.environ(static=value)
