"""Bridge settings: the source's configuration that sessions of other libraries and subprocesses take over."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiobotocore.session import AioSession
    from botocore.loaders import Loader
    from botocore.session import Session


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """Configuration of a source and its pool, as the pool's own clients have it.

    Args:
        session: the source's session: profile, environment and variables are read where it reads them.
        loader: reads botocore's data files, for the pool's clients as well.
        options: options of botocore's Config that the session, the pool and its defaults set.
        endpoint_url: the pool's endpoint for every service; None: as configured.
        verify: a CA bundle's path, or False for no verification; None: as configured.
        refuse_bearer_tokens: makes a session sign with the account's credentials, even if the environment holds a
            bearer token, which belongs to another identity.
    """

    session: AioSession
    loader: SharedLoader
    options: Mapping[str, Any]
    endpoint_url: str | None
    verify: bool | str | None
    refuse_bearer_tokens: Callable[[Session], None]


class SharedLoader:
    """A loader of botocore's data files that sessions in any number of threads use.

    A service's model takes 20 MiB and a fifth of a second for EC2. One thread at a time reads one: without the lock, a
    hundred threads that begin together would each read it.

    Args:
        loader: keeps what was read.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._lock = Lock()

    def add_search_path(self, path: str) -> None:
        """Search another directory, once however often it is added."""
        with self._lock:
            if path not in self._loader.search_paths:
                self._loader.search_paths.append(path)

    def view(self) -> LoaderView:
        """Return a loader for one session."""
        return LoaderView(self._loader, self._lock)


class LoaderView:
    """Loader of one session. Its list of search paths is its own, since every boto3 session appends to that list."""

    def __init__(self, loader: Loader, lock: Lock) -> None:
        self._loader = loader
        self._lock = lock
        self.search_paths = [*loader.search_paths]

    def load_service_model(self, *arguments: Any, **options: Any) -> Any:
        """Return a model, as the shared loader does, which remembers it by the very form of its arguments."""
        with self._lock:
            return self._loader.load_service_model(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
