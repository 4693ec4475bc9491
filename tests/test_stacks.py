"""Stacks: each test file runs on every stack or on the newest alone, and what runs on one reaches no AWS library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.stacks import (
    ABOVE,
    BENCHMARKS,
    EXCEPTIONS,
    ROOT,
    TESTS,
    WITHOUT_AWS,
    imports_the_stack,
    reaches_the_stack,
    runs_on_every_stack,
)

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(TESTS.rglob("test_*.py"))
ON_THE_NEWEST = [
    path for path in FILES if not runs_on_every_stack(path) and path.relative_to(TESTS).parts[0] not in BENCHMARKS
]


def _name(path: Path) -> str:
    return path.relative_to(TESTS).as_posix()


@pytest.mark.parametrize("path", ON_THE_NEWEST, ids=_name)
def test_a_file_that_runs_on_the_newest_stack_alone_does_not_depend_on_it(path: Path) -> None:
    """Its imports do not reach botocore, and it starts no fleet; above it, the file itself does not import it."""
    if ABOVE.isdisjoint({_name(path), path.relative_to(TESTS).parts[0]}):
        assert not reaches_the_stack(path)
    else:
        assert not imports_the_stack(path)


@pytest.mark.parametrize("name", sorted(name for name in ABOVE if "/" not in name))
def test_a_package_above_the_stack_does_not_import_it(name: str) -> None:
    """All that it knows of botocore comes through packages whose tests run on every stack."""
    assert not [path for path in (ROOT / "asyncauth" / name).rglob("*.py") if imports_the_stack(path)]


def test_each_entry_of_the_lists_names_tests() -> None:
    """A directory or file that was moved or renamed leaves the lists, and an exception is necessary."""
    names = {path.relative_to(TESTS).parts[0] for path in FILES} | {_name(path) for path in FILES}

    assert names >= WITHOUT_AWS | ABOVE | BENCHMARKS
    assert not WITHOUT_AWS & ABOVE
    assert {_name(path) for path in FILES} >= EXCEPTIONS
    for name in EXCEPTIONS:
        assert name.partition("/")[0] in WITHOUT_AWS | ABOVE
        assert reaches_the_stack(TESTS / name)


def test_each_test_has_the_marker_of_its_file(request: pytest.FixtureRequest) -> None:
    """The collection marks a test `botocore` if its file runs on every stack, and only then."""
    for item in request.session.items:
        has_marker = item.get_closest_marker("botocore") is not None
        assert has_marker == runs_on_every_stack(item.path), item.nodeid


def test_a_new_file_runs_on_every_stack() -> None:
    """A file that no list names is not left out."""
    assert runs_on_every_stack(TESTS / "new" / "test_module.py")
    assert runs_on_every_stack(TESTS / "test_new.py")
    assert not runs_on_every_stack(TESTS / "fanout" / "test_new.py")


def test_imports_inside_functions_and_fleets_count(tmp_path: Path) -> None:
    """Imports for type checkers do not: they do not run."""
    (tmp_path / "lazy.py").write_text("def job():\n    from botocore.session import Session\n    return Session\n")
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import botocore\n"
    (tmp_path / "typed.py").write_text(typed)
    (tmp_path / "fleet.py").write_text("async def test_a_job(simulated_fleet): ...\n")
    (tmp_path / "indirect.py").write_text("from asyncauth import SessionPool\n")

    assert reaches_the_stack(tmp_path / "lazy.py")
    assert not reaches_the_stack(tmp_path / "typed.py")
    assert reaches_the_stack(tmp_path / "indirect.py")
    assert reaches_the_stack(tmp_path / "fleet.py")
