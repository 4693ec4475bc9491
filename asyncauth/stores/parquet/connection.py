"""DuckDB, imported at its first use: connections that load no extension and reach no network."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_NEEDS_DUCKDB: Final = "Parquet data sets need an extra: pip install 'asyncauth[duckdb]'"
_OPTIONS: Final = {
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "python_enable_replacements": "false",  # a name in SQL never reads a variable of the program
}
#: Memory of a connection that writes; rows beyond it go to a temporary directory.
_WRITER_MEMORY: Final = "128MB"


def check_duckdb() -> None:
    """Raise ConfigurationError with the extra's name if DuckDB is not installed."""
    if find_spec("duckdb") is None:
        raise ConfigurationError(_NEEDS_DUCKDB)


def load_duckdb() -> Any:
    """Return the module `duckdb`.

    Raises:
        ConfigurationError: it is not installed; the message has the extra.
    """
    check_duckdb()
    import duckdb

    return duckdb


def connect(temporary: Path | None = None) -> Any:
    """Return a connection to a new database in memory.

    Args:
        temporary: directory for what does not fit into the memory of a writer, which has one thread, so that rows keep
            their order; None: a reader, which writes nothing.
    """
    options = {**_OPTIONS, "temp_directory": "" if temporary is None else str(temporary)}
    if temporary is not None:
        options |= {"threads": "1", "memory_limit": _WRITER_MEMORY}
    return load_duckdb().connect(":memory:", config=options)


def text(value: object) -> str:
    """Return a value as a literal of SQL, a string in quotation marks."""
    return "'" + str(value).replace("'", "''") + "'"


def name(value: str) -> str:
    """Return a name in the quotation marks of SQL."""
    return '"' + value.replace('"', '""') + '"'
