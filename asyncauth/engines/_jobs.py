"""Job on its way to a worker: by the name of its module, and by value where its module is a file of the client."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from asyncauth._errors import ConfigurationError
from asyncauth._runs.thread_job import unwrap
from asyncauth.engines._pickling import dump

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

#: Where installed modules are; workers have their own.
_INSTALLED: Final = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))


@dataclass(frozen=True, slots=True, repr=False)
class SentJob:
    """A job as workers get it.

    A worker that has the same file imports it, so that what belongs to one process (a lock, a client) can be global
    there. Another worker gets the function with everything of its file that it uses.

    Args:
        name: the job's name, for messages.
        by_name: the job, pickled by the name of its module.
        module: the name of its module.
        digest: the digest of the module's file; None if it is not a single file, or an installed one.
        by_value: the job, pickled without its module; None if it cannot be.
        problem: why it cannot be.
    """

    name: str
    by_name: bytes
    module: str
    digest: str | None = None
    by_value: bytes | None = None
    problem: str | None = None

    @classmethod
    def of(cls, job: Callable[[Any], Any]) -> SentJob:
        """Return a job as it can be sent.

        Raises:
            ConfigurationError: the job holds credentials or cannot be pickled.
        """
        name = getattr(job, "__qualname__", None) or repr(job)
        by_name = dump(job, f"the job {name}")
        function = unwrap(job)
        module = getattr(function, "__module__", None) or type(function).__module__
        file = _single_file(sys.modules.get(module))
        if file is None:
            return cls(name, by_name, module)
        by_value, problem = _dump_by_value(job, name, sys.modules[module])
        return cls(name, by_name, module, _digest(file), by_value, problem)

    def load(self) -> Callable[[Any], Any]:
        """Return the job at a worker.

        Raises:
            ConfigurationError: a module is missing here.
        """
        if self.digest is not None and self.digest != _digest_here(self.module):
            if self.by_value is None:
                raise ConfigurationError(
                    f"the module {self.module!r} of the job {self.name} is not the client's here, and cannot be sent: "
                    f"{self.problem}; install it at the workers"
                )
            return self._load(self.by_value)
        return self._load(self.by_name)

    def _load(self, pickled: bytes) -> Callable[[Any], Any]:
        try:
            job: Callable[[Any], Any] = pickle.loads(pickled)  # noqa: S301 - of the client, whose code runs here
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the job {self.name} needs the module {error.name!r}, which is missing here; install it at the "
                "workers, or put the job and its helpers into one file"
            ) from error
        return job


def _single_file(module: ModuleType | None) -> Path | None:
    """Return the file of a module that is one file of the client's; None for a package, a script, what is installed."""
    path = getattr(module, "__file__", None)
    if module is None or path is None or "." in module.__name__ or module.__name__ == "__main__":
        return None
    file = Path(path)
    is_installed = any(file.is_relative_to(folder) for folder in _INSTALLED)
    return None if file.suffix != ".py" or file.name == "__init__.py" or is_installed else file


def _dump_by_value(job: Callable[[Any], Any], name: str, module: ModuleType) -> tuple[bytes | None, str | None]:
    is_registered = module.__name__ in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.register_pickle_by_value(module)
    try:
        return dump(job, f"the job {name}"), None
    except ConfigurationError as error:
        return None, str(error)
    finally:
        if not is_registered:
            cloudpickle.unregister_pickle_by_value(module)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest_here(module: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module)
        return None if spec is None or spec.origin is None else _digest(Path(spec.origin))
    except (ImportError, OSError, ValueError):
        return None
