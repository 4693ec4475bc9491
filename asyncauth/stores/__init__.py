"""Stores: where syncs land. SQLite is the default."""

from __future__ import annotations

from asyncauth.stores.files import CsvStore, JsonLinesStore
from asyncauth.stores.html_report import report
from asyncauth.stores.parquet import DataSet, ParquetStore, export
from asyncauth.stores.protocol import (
    METRICS_PREFIX,
    ExpectedTarget,
    ExpectsTargets,
    Interruptible,
    LimitsSpace,
    MetricStore,
    Mode,
    Scope,
    ScopeStatus,
    Shareable,
    SharedPlace,
    SharedWriter,
    Status,
    Store,
    Written,
)
from asyncauth.stores.sqlite import SqliteStore

__all__ = [
    "METRICS_PREFIX",
    "CsvStore",
    "DataSet",
    "ExpectedTarget",
    "ExpectsTargets",
    "Interruptible",
    "JsonLinesStore",
    "LimitsSpace",
    "MetricStore",
    "Mode",
    "ParquetStore",
    "Scope",
    "ScopeStatus",
    "Shareable",
    "SharedPlace",
    "SharedWriter",
    "SqliteStore",
    "Status",
    "Store",
    "Written",
    "export",
    "report",
]
