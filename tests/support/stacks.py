"""Stacks: which tests run on every supported stack of aiobotocore, and which on the newest alone.

A test runs on every stack, and has the marker `botocore`, unless its directory or its file is listed here: so a new
test is left out only on purpose. `WITHOUT_AWS` has what does not depend on the stack at all, `ABOVE` what meets it only
through packages whose own tests run on every stack.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parent.parent.parent
TESTS: Final = ROOT / "tests"

#: Directories, and files of the top, whose tests reach no package that differs between the stacks.
WITHOUT_AWS: Final = frozenset(
    {
        "fanout",
        "refresh",
        "resilience",
        "runtime",
        "test_errors.py",
        "test_layout.py",
        "test_stacks.py",
        "test_words.py",
    }
)
#: Directories whose tests, and the packages that they are about, import no package that differs; and such files.
ABOVE: Final = frozenset(
    {
        "caches",
        "cli",
        "discovery/test_docs.py",
        "discovery/test_files.py",
        "end_to_end/test_examples.py",
        "end_to_end/test_inventory_page.py",
        "end_to_end/test_readme.py",
        "end_to_end/test_runs_scale.py",
        "end_to_end/test_scale_page.py",
        "engines",
        "jobs/test_inventory_complete.py",
        "stores",
    }
)
#: The benchmark has an environment of its own for what it measures on the older stack.
BENCHMARKS: Final = frozenset({"benchmarks"})
#: Files in the directories of either list that run on every stack all the same: they depend on it, or they show that
#: the layers above work on it at all.
EXCEPTIONS: Final = frozenset(
    {"resilience/test_request_guard.py", "cli/test_odd_input.py", "engines/test_pickling.py", "engines/test_values.py"}
)

#: Packages that differ between the stacks.
_STACK: Final = frozenset({"aioboto3", "aiobotocore", "aiohttp", "awscrt", "boto3", "botocore", "moto"})
#: Fixtures of the plugin that start a fleet without an import in the test's file.
_FLEET_FIXTURES: Final = frozenset({"simulated_fleet", "start_simulated_fleet"})
#: Our own packages, whose imports are followed.
_OURS: Final = frozenset({"asyncauth", "benchmarks", "tests"})


def runs_on_every_stack(path: Path) -> bool:
    """Return whether the tests of a file run on every stack, and not on the newest alone."""
    if not path.is_relative_to(TESTS):
        return True
    relative = path.relative_to(TESTS)
    name = relative.as_posix()
    return {relative.parts[0], name}.isdisjoint(WITHOUT_AWS | ABOVE | BENCHMARKS) or name in EXCEPTIONS


@cache
def reaches_the_stack(path: Path) -> bool:
    """Return whether a file's imports, and theirs, reach a package that differs between the stacks.

    Imports inside functions count, those for type checkers do not; so do the fixtures that start a fleet.
    """
    seen: set[str] = set()
    waiting = list(_imports(path))
    while waiting:
        module = waiting.pop()
        package = module.partition(".")[0]
        if package in _STACK:
            return True
        if package in _OURS and module not in seen and (source := _file(module)) is not None:
            waiting += _imports(source)
        seen.add(module)
    return False


def imports_the_stack(path: Path) -> bool:
    """Return whether a file itself imports a package that differs between the stacks."""
    return any(module.partition(".")[0] in _STACK for module in _imports(path))


@cache
def _imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports at run time, by full name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(module for node in _running(tree) for module in _names(node))


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run: no bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _running(child)


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            yield _exports().get(alias.name, "") if node.module == "asyncauth" else node.module
            yield f"{node.module}.{alias.name}"
    elif isinstance(node, ast.arg) and node.arg in _FLEET_FIXTURES:
        yield "moto"


@cache
def _exports() -> dict[str, str]:
    """Return the module of each name that `asyncauth` imports at first use."""
    import asyncauth

    return {name: f"asyncauth.{module}" for module, names in asyncauth._EXPORTS.items() for name in names}


def _file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
