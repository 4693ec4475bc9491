"""Parquet data sets: a store in which every sync leaves files that other engines read."""

from __future__ import annotations

from asyncauth.stores.parquet.export import export
from asyncauth.stores.parquet.parts import Reservation, StagedLines, WrittenScope, write_points, write_resources
from asyncauth.stores.parquet.reader import DataSet
from asyncauth.stores.parquet.store import ParquetStore

__all__ = [
    "DataSet",
    "ParquetStore",
    "Reservation",
    "StagedLines",
    "WrittenScope",
    "export",
    "write_points",
    "write_resources",
]
