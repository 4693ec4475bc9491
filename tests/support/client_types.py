"""Generator of `asyncauth/_client_types.py` from the installed stubs of types-aiobotocore.

python -m tests.support.client_types
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import aiobotocore

from asyncauth import AccountSession, SessionPool

TARGET: Final = Path(__file__).parent.parent.parent / "asyncauth" / "_client_types.py"
_OPTIONS: Final = "**options: Unpack[ClientOptions]"
_METHODS: Final = {
    "SessionClients": (AccountSession, "region_name: str | None = None"),
    "PoolClients": (SessionPool, "account: AccountLike, region_name: str | None = None"),
}


class Service(NamedTuple):
    """A service, and the type of its clients."""

    name: str
    module: str
    type_name: str


def stubs_version() -> str:
    """Return the version of the installed stubs."""
    return version("types-aiobotocore")


def services() -> list[Service]:
    """Return the services of the stubs, by the overloads of `create_client`."""
    path = Path(aiobotocore.__file__).parent.parent / "aiobotocore-stubs" / "session.pyi"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("types_aiobotocore_")
        for alias in node.names
    }
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef)
            and node.name == "create_client"
            and isinstance(node.returns, ast.Subscript)
        ):
            literal, returned = node.args.args[1].annotation, ast.unparse(node.returns.slice)
            if isinstance(literal, ast.Subscript) and isinstance(literal.slice, ast.Constant):
                found.append(Service(str(literal.slice.value), modules[returned], returned))
    return sorted(found)


def generated() -> str:
    """Return the text of the module."""
    known = services()
    imports = "\n".join(
        f"    from {module} import {name}" for _, module, name in sorted(known, key=lambda each: each.module)
    )
    classes = "\n\n".join(_class(name, owner, arguments, known) for name, (owner, arguments) in _METHODS.items())
    return f'''\
"""Types of clients by the name of their service: overloads for type checkers and editors, never imported at run time.

Generated from types-aiobotocore {stubs_version()} by `python -m tests.support.client_types`. A service whose stubs are
not installed (`types-aiobotocore[ec2]`) has clients of unknown type.
"""
# mypy: disable-error-code="import-not-found"
# fmt: off
# ruff: noqa: E501, I001

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from typing import Any, Literal, TypedDict, Unpack, overload

    from botocore.config import Config

    from asyncauth._models import AccountLike
{imports}

    class ClientOptions(TypedDict, total=False):
        """Options of a client besides service and region."""

        api_version: str | None
        config: Config | None
        endpoint_url: str | None
        isolated: bool
        use_ssl: bool
        verify: bool | str | None

{classes}
'''


def _class(name: str, owner: type, arguments: str, known: list[Service]) -> str:
    rest = f"{arguments}, {_OPTIONS}"
    overloads = "\n".join(
        "    @overload\n"
        f'    def client(self, service_name: Literal["{each.name}"], {rest})'
        f" -> AbstractAsyncContextManager[{each.type_name}]: ..."
        for each in known
    )
    anything = f"service_name: str, {rest}) -> AbstractAsyncContextManager[Any]:"
    doc = textwrap.indent(inspect.getdoc(owner.__dict__["client"]) or "", "        ").strip()
    text = f'''\
class {name}:
    """Base of `{owner.__name__}` for type checkers."""

{overloads}
    @overload
    def client(self, {anything} ...
    def client(self, {anything}
        """{doc}
        """
        raise NotImplementedError
'''
    return textwrap.indent(text, "    ").rstrip()


if __name__ == "__main__":
    TARGET.write_text(generated(), encoding="utf-8")
