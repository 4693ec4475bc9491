"""Service clients bound to an identity. All that leans on botocore's insides is in this package."""

from __future__ import annotations

from asyncauth._clients._calls import CallHook
from asyncauth._clients._config import settings_key
from asyncauth._clients._factory import ClientFactory, ClientStatistics
from asyncauth._clients._files import CONNECTIONS_EACH, check_open_files, files_needed
from asyncauth._clients._identity import Identity

__all__ = [
    "CONNECTIONS_EACH",
    "CallHook",
    "ClientFactory",
    "ClientStatistics",
    "Identity",
    "check_open_files",
    "files_needed",
    "settings_key",
]
