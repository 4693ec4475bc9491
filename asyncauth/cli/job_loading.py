"""Job loading: the function that `module:function` or `file.py:function` names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click


def load_job(reference: str, *, by_value: bool = False) -> Callable[[Any], Any]:
    """Return the function of a reference.

    The working folder is searched for modules first, as with `python -m`.

    Args:
        reference: `module:function` or `file.py:function`.
        by_value: the job is for other processes, which cannot import a file; a pickle of it contains the file's
            functions and classes.

    Raises:
        click.UsageError: the module cannot be imported, or has no such function.
    """
    where, separator, name = reference.rpartition(":")
    if not separator or not where or not name:
        raise click.UsageError(f"JOB {reference!r} must be MODULE:FUNCTION or FILE.py:FUNCTION")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = _load_file(Path(where), by_value=by_value) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        raise click.UsageError(f"JOB {reference!r} cannot be imported: {type(error).__name__}: {error}") from error
    except SystemExit as error:
        raise click.UsageError(f"JOB {reference!r} cannot be imported: it ends the program (SystemExit)") from error
    job = getattr(module, name, None)
    if not callable(job):
        raise click.UsageError(f"JOB {reference!r}: {where} has no function {name!r}")
    return job  # type: ignore[no-any-return]


def _load_file(path: Path, *, by_value: bool) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Under its name, so that a job can be pickled and dataclasses of the file find their module.
    sys.modules[path.stem] = module
    if by_value:
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    spec.loader.exec_module(module)
    return module
