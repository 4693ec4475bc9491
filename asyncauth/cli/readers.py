"""Readers of stores: the one that a path chooses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncauth.cli.data_set_reader import DataSetReader
    from asyncauth.cli.store_reader import StoreReader


def open_reader(path: str) -> StoreReader | DataSetReader:
    """Return the reader of a store: of a Parquet data set if the path is a directory, else of a SQLite file.

    Raises:
        ConfigurationError: there is no such store.
    """
    if Path(path).is_dir():
        from asyncauth.cli.data_set_reader import DataSetReader

        return DataSetReader(path)
    from asyncauth.cli.store_reader import StoreReader

    return StoreReader(path)
