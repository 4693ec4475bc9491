"""Reader of a data set: SQL over the state that its manifest names, with no other file and no network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.printable import printable
from asyncauth.stores.parquet.connection import connect, load_duckdb, text
from asyncauth.stores.parquet.manifest import read_manifest
from asyncauth.stores.parquet.views import check_path, create_views

if TYPE_CHECKING:
    from asyncauth.stores.parquet.manifest import Manifest


class DataSet:
    """Parquet data set that is open for queries, in a DuckDB database in memory.

    Each kind has a view with the columns that it has in a SQLite store, `ec2_instance` for `ec2:instance`, and one with
    the rows of all syncs, `ec2_instance_history`. There are also `syncs`, `scopes`, `raw`, `series`, `metrics`,
    `metric_series` and `metric_values`. The views show the data set as it was when it was opened, even if a sync ends
    meanwhile; what a later sync has pruned cannot be read any more.

    Args:
        path: the directory.

    Raises:
        ConfigurationError: the extra `duckdb` is not installed, or there is no data set.

    Example:
        with DataSet("inventory.parquet") as data:
            print(data.query("select account, count(*) from ec2_instance group by 1").fetchall())
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        directory = Path(os.path.realpath(self.path))
        check_path(directory)
        load_duckdb()
        self._connection = _open_current(directory, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def query(self, statement: str, parameters: object = None) -> Any:
        """Run one SELECT statement, and return DuckDB's result, with `fetchall`, `description`, `df` and others.

        Args:
            statement: the statement. It reads the views; other files, settings and extensions are refused.
            parameters: values of its `?`, or of its `$names`.

        Raises:
            ConfigurationError: it is no SELECT, or more than one statement.
            duckdb.Error: DuckDB refuses it.
        """
        module = load_duckdb()
        found = self._connection.extract_statements(statement)
        if len(found) != 1 or found[0].type != module.StatementType.SELECT:
            raise ConfigurationError("a data set is read with one SELECT statement, and is not changed")
        return self._connection.execute(found[0], parameters)

    def tables(self) -> list[dict[str, Any]]:
        """Return a record for each view and table: its name, its columns, and which of both it is."""
        columns = self._connection.execute(
            """select table_name, lower(table_type) = 'view', list(column_name order by ordinal_position)
            from information_schema.tables join information_schema.columns using (table_catalog, table_schema,
                table_name) where table_name not like '\\_%' escape '\\' group by 1, 2 order by not 2, 1"""
        )
        return [
            {"name": name, "type": "view" if is_view else "table", "columns": names}
            for name, is_view, names in columns.fetchall()
        ]

    def interrupt(self) -> None:
        """End the query that runs; another thread or a signal handler may call it."""
        self._connection.interrupt()

    def close(self) -> None:
        """Release files and memory. Closing again has no effect."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"DataSet({str(self.path)!r})"


def open_views(directory: Path, manifest: Manifest) -> Any:
    """Return a connection with the views of a manifest, which reads its parts and nothing else.

    Raises:
        ConfigurationError: a part is missing or damaged.
    """
    connection = connect()
    try:
        create_views(connection, directory, manifest)
        paths = ", ".join(text(directory / part.file) for part in manifest.parts)
        # The order counts: each of these settings could be undone until the last one.
        connection.execute(f"set allowed_paths = [{paths}]")
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")
    except load_duckdb().Error as error:
        connection.close()
        raise ConfigurationError(
            f"the data set {printable(str(directory), 300)!r} cannot be read: {printable(str(error), 300)}"
        ) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _open_current(directory: Path, path: Path) -> Any:
    """Return a connection with the views of the manifest; of a newer one, if a sync has swept a part meanwhile."""
    manifest = _manifest_of(directory, path)
    while True:
        try:
            return open_views(directory, manifest)
        except ConfigurationError:
            newer = _manifest_of(directory, path)
            if newer == manifest:
                raise
            manifest = newer


def _manifest_of(directory: Path, path: Path) -> Manifest:
    manifest = read_manifest(directory)
    if manifest is None:
        raise ConfigurationError(f"there is no data set {printable(str(path), 300)!r} of which a sync has ended")
    return manifest
