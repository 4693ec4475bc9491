"""Store files of the command line: the store that a path and its options choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from asyncauth.stores import Store

#: Formats of stores by the suffix of their path; every other path is SQLite.
_BY_SUFFIX: Final = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
STORE_FORMATS: Final = ("sqlite", "parquet", "jsonl", "csv")
MODES: Final = ("append", "upsert", "mirror")


def store_format(path: str, chosen: str | None) -> str:
    """Return the format of a store: the chosen one, else that of the path's suffix, else `sqlite`."""
    return chosen or _BY_SUFFIX.get(Path(path).suffix.lower(), "sqlite")


def open_store(path: str, *, chosen: str | None, mode: str | None, wait: float | None) -> Store:
    """Return the store of a path, which is not open yet.

    Args:
        path: the file; for Parquet a directory, and for CSV one that must not exist.
        chosen: the format; None: by the path's suffix.
        mode: `append`, `upsert` or `mirror`, for SQLite and, but for `upsert`, Parquet; None: `upsert` for SQLite,
            `mirror` for Parquet.
        wait: seconds to wait for another run, for SQLite and Parquet; None: not at all.

    Raises:
        click.UsageError: the folder does not exist, or an option is given that the format does not have.
    """
    from asyncauth.stores import CsvStore, JsonLinesStore, ParquetStore, SqliteStore

    if not Path(path).absolute().parent.is_dir():
        raise click.UsageError(f"--store {path}: the folder {Path(path).absolute().parent} does not exist")
    name = store_format(path, chosen)
    if name == "sqlite":
        return SqliteStore(path, mode=mode or "upsert", wait=wait or 0)  # type: ignore[arg-type]  # checked by click
    if name == "parquet":
        if mode == "upsert":
            raise click.UsageError(f"--mode upsert is for SQLite stores; {path} is a store of parquet")
        return ParquetStore(path, mode=mode or "mirror", wait=wait or 0)  # type: ignore[arg-type]  # checked by click
    for option, value in (("--mode", mode), ("--wait", wait)):
        if value is not None:
            raise click.UsageError(f"{option} is for stores of SQLite and Parquet; {path} is a store of {name}")
    return JsonLinesStore(path) if name == "jsonl" else CsvStore(path)
