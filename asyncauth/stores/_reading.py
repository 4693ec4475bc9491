"""Connection to a SQLite store that reads it, also in a folder that cannot be written."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pathlib import Path


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a store for reading only; text that is not UTF-8 has replacement characters.

    Raises:
        sqlite3.DatabaseError: the file cannot be opened, or it is no database.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        connection.execute("select 1 from sqlite_master limit 1").fetchone()
    except sqlite3.OperationalError:
        # In a folder that cannot be written there is no write-ahead log, so the file cannot change.
        connection.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    except BaseException:
        connection.close()
        raise
    connection.text_factory = lambda content: content.decode("utf-8", "replace")
    return connection
