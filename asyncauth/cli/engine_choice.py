"""Engine choice: where a command's targets run, in this process or on a cluster of Dask distributed."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from asyncauth._errors import ConfigurationError, EngineLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth.engines import DaskEngine

ENGINES: Final = ("dask",)
_PACKAGES: Final = ("distributed", "cryptography")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Options of the engine.

    Args:
        name: `dask`; None: the targets run in this process.
        scheduler: address of the scheduler; None: a cluster on this machine, with a worker for each core.
    """

    name: str | None
    scheduler: str | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> EngineChoice:
        """Return the options, and remove them from `options`.

        Raises:
            click.UsageError: a scheduler is given without the engine that it belongs to.
            ConfigurationError: the extra is not installed.
        """
        choice = cls(options.pop("engine"), options.pop("scheduler"))
        if choice.scheduler is not None and choice.name is None:
            raise click.UsageError("--scheduler needs --engine dask")
        if choice.name is not None and any(find_spec(name) is None for name in _PACKAGES):
            raise ConfigurationError("--engine dask needs Dask distributed: run pip install 'asyncauth[dask]'")
        return choice

    @asynccontextmanager
    async def open(self) -> AsyncIterator[DaskEngine | None]:
        """Connect to the scheduler, or start a cluster on this machine and end it afterwards.

        Raises:
            ConfigurationError: there is no scheduler at the address, or its certificates are missing.
        """
        if self.name is None:
            yield None
            return
        from asyncauth.engines import DaskEngine

        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            # Dask logs each of its steps, and lost workers with tracebacks; the run's outcomes and errors show them.
            logger = logging.getLogger("distributed")
            logger.addHandler(logging.NullHandler())
            logger.propagate = False
        engine = DaskEngine(self.scheduler)
        try:
            await engine.__aenter__()
        except EngineLost as error:
            raise ConfigurationError(str(error)) from error
        try:
            yield engine
        finally:
            await engine.__aexit__(None, None, None)
