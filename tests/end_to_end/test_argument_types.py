"""Arguments of a wrong type: every public entry point names the parameter, and raises no error of Python's own."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Account, AsyncAuthError, Keys, Profile, RateLimit, RefreshPolicy, Retry, Role, SessionPool

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "s" * 40)
WRONG = [None, 1, -1, 1.5, "x", "", b"b", [], {}, (), object(), ["x"], [1], {"x": 1}, float("nan"), True, lambda: 0]

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
            if not str(error) or len(str(error)) > 4000:
                found.append(f"{value!r}: {error!r}")
        except Exception as error:
            found.append(f"{value!r}: {error!r}")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("entry", "given", "name"), PARAMETERS)
def test_a_constructor_refuses_wrong_types(entry: Callable[..., Any], given: dict[str, Any], name: str) -> None:
    """Whatever the value, the constructor accepts it or raises an error of asyncauth."""
    assert foreign_errors(lambda value: entry(**(given | {name: value}))) == []


@pytest.mark.parametrize("name", [*inspect.signature(SessionPool.as_completed).parameters][1:])
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
