"""Resources that the scopes of a batch had before: they keep the time at which they were first seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncauth.stores.parquet.connection import name

if TYPE_CHECKING:
    from asyncauth.stores.parquet.manifest import Manifest
    from asyncauth.stores.parquet.running import Batch
    from asyncauth.stores.protocol import Mode

_KNOWN: Final = """create or replace temp table known as select "partition", account, region, id, first_seen
    from {view} where ("partition", account, region) in (
        select (unnest(?::varchar[]), unnest(?::varchar[]), unnest(?::varchar[])))"""
_NO_KNOWN: Final = """create or replace temp table known (
    "partition" varchar, account varchar, region varchar, id varchar, first_seen double)"""


def find_known(connection: Any, mode: Mode, manifest: Manifest, table: str, batch: Batch) -> None:
    """Create the table `known`, with what a view has of a batch's scopes.

    Args:
        connection: a DuckDB connection with the manifest's views.
        mode: the mode of the data set; with `append` nothing is known.
        manifest: the manifest.
        table: the view.
        batch: the scopes.
    """
    if mode == "append" or not manifest.of(table):
        connection.execute(_NO_KNOWN)
        return
    scopes = sorted({each[0][:3] for each in batch.segments})
    columns = [list(each) for each in zip(*scopes, strict=True)]
    connection.execute(_KNOWN.format(view=name(table)), columns)
