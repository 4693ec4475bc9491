"""Stores: where syncs land. SQLite is the default."""

from __future__ import annotations

from asyncauth.stores.files import CsvStore, JsonLinesStore
from asyncauth.stores.protocol import Mode, Scope, ScopeStatus, Status, Store
from asyncauth.stores.sqlite import SqliteStore

__all__ = ["CsvStore", "JsonLinesStore", "Mode", "Scope", "ScopeStatus", "SqliteStore", "Status", "Store"]
