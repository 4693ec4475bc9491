"""Engines: run a job past one process. `DaskEngine` needs the extra `dask`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncauth.engines.dask import DaskEngine as DaskEngine

__all__ = ["DaskEngine"]


def __getattr__(name: str) -> object:
    # Imported at first use: Dask is an optional package, and takes a third of a second to import.
    if name != "DaskEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from asyncauth.engines.dask import DaskEngine
    except ModuleNotFoundError as error:
        if error.name in ("distributed", "dask", "cloudpickle"):
            raise ModuleNotFoundError(
                "DaskEngine needs Dask distributed: pip install 'asyncauth[dask]'", name=error.name
            ) from error
        raise
    globals()[name] = DaskEngine
    return DaskEngine
