"""Types of clients: the overloads are those of the stubs, and have the docstrings and options of the methods."""

from __future__ import annotations

import ast
import inspect

import pytest

from asyncauth import AccountSession, SessionPool
from asyncauth._session import _OPTIONS

client_types = pytest.importorskip("tests.support.client_types")
pytest.importorskip("types_aiobotocore_ec2", reason="the stubs are part of the group `check`")

TEXT = client_types.TARGET.read_text(encoding="utf-8")
CLASSES = {node.name: node for node in ast.walk(ast.parse(TEXT)) if isinstance(node, ast.ClassDef)}


def test_the_overloads_are_those_of_the_stubs() -> None:
    """The module is what the generator makes of the stubs it names; with others, each service has the same type."""
    if f"types-aiobotocore {client_types.stubs_version()} " in TEXT:
        assert client_types.generated() == TEXT
    for service in client_types.services():
        lines = [line for line in TEXT.splitlines() if f'Literal["{service.name}"]' in line]
        assert all(line.endswith(f"-> AbstractAsyncContextManager[{service.type_name}]: ...") for line in lines)


@pytest.mark.parametrize(("name", "owner"), [("SessionClients", AccountSession), ("PoolClients", SessionPool)])
def test_editors_show_our_docstring(name: str, owner: type) -> None:
    """The method after the overloads, whose docstring editors show, has the docstring of the method that runs."""
    implementation = [node for node in CLASSES[name].body if isinstance(node, ast.FunctionDef)][-1]

    assert ast.get_docstring(implementation) == inspect.getdoc(owner.__dict__["client"])


def test_the_options_are_those_that_a_session_accepts() -> None:
    """`ClientOptions` has the options that `AccountSession.client` does not refuse."""
    options = {node.target.id for node in CLASSES["ClientOptions"].body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]

    assert options == _OPTIONS


def test_the_overloads_cost_nothing_at_run_time() -> None:
    """The classes have no such base, and the module is not imported."""
    assert AccountSession.__bases__ == SessionPool.__bases__ == (object,)
