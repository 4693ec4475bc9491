"""Layout: imports point down, the public names are complete, every module has a docstring of one idea."""

from __future__ import annotations

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "asyncauth").rglob("*.py"))


def test_imports_point_down() -> None:
    """Each package imports only from those below it; pyproject.toml lists the layers."""
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None, "import-linter is part of the test group"

    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_every_module_has_a_docstring(path: Path) -> None:
    """A module's first line is a sentence with its one idea, and begins with a noun."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))

    assert docstring, f"{path} has no docstring"
    first = docstring.splitlines()[0]
    assert first.endswith((".", ":", ","))
    assert first.split()[0] not in {"What", "Who", "Where", "How", "Which", "Why", "When"}, first


def test_there_is_no_import_circle() -> None:
    """No modules import each other in a circle, type-only imports and those inside functions included."""
    imports = {_name(path): _imported(path) for path in MODULES if path.name != "__init__.py"}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in imports[module] & imports.keys():
                visit(other, (*path, module))
            done.add(module)

    for module in imports:
        visit(module, ())


def test_the_tree_of_tests_mirrors_the_package() -> None:
    """The tests of a package are in the folder of the same name, without the underscore."""
    packages = {path.name.lstrip("_") for path in (ROOT / "asyncauth").iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert packages <= folders
    assert folders - packages == {"benchmarks", "data", "end_to_end", "soak", "support"}


def test_the_exports_equal_the_imports_for_type_checkers() -> None:
    """The table of exports and the imports for type checkers have the same names of the same modules."""
    tree = ast.parse((ROOT / "asyncauth" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported: dict[str, list[str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name
            imported.setdefault(node.module.removeprefix("asyncauth."), []).append(alias.name)

    exports = importlib.import_module("asyncauth")._EXPORTS

    assert {module: tuple(names) for module, names in imported.items()} == exports


def test_every_export_exists_and_is_documented() -> None:
    """Each public name can be imported; each class and function has a docstring."""
    package = importlib.import_module("asyncauth")

    for name in package.__all__:
        exported = getattr(package, name)
        if inspect.isclass(exported) or inspect.isfunction(exported):  # not the aliases of types
            assert exported.__doc__, f"{name} has no docstring"
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'Limit'"):
        _ = package.Limit


def test_values_do_not_import_botocore() -> None:
    """`import asyncauth`, `Account`, `Role` and the caches do not import botocore, which takes a third of a second."""
    code = (
        "import sys, asyncauth, asyncauth.caches\n"
        "asyncauth.Account('123456789012', partition='aws-cn', role=asyncauth.Role('deploy'))\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in {'botocore', 'aiobotocore', 'boto3'}))"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_pools_class_imports_no_parts_of_an_open_pool() -> None:
    """`from asyncauth import SessionPool` imports aiobotocore, and of asyncauth what the class itself needs."""
    code = (
        "import sys\n"
        "from asyncauth import SessionPool\n"
        "print(sorted({'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('asyncauth.')}))\n"
        "print('aiobotocore.session' in sys.modules, 'asyncauth._models.fleet_file' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    packages, modules = done.stdout.splitlines()
    parts = {"_bridges", "_clients", "_credentials", "_observability", "_resilience"}
    assert not parts & {name.removeprefix("asyncauth.") for name in ast.literal_eval(packages)}
    assert modules == "True False"


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found - {_name(path)}
