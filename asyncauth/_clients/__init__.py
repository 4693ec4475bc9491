"""Service clients bound to an identity. Only this package uses botocore's internals."""

from __future__ import annotations

from asyncauth._clients.builder import refuse_bearer_tokens
from asyncauth._clients.config import settings_key
from asyncauth._clients.factory import ClientFactory, ClientStatistics
from asyncauth._clients.open_files import CONNECTIONS_EACH, check_open_files
from asyncauth._clients.parsing.factory import fast_parser_factory

__all__ = [
    "CONNECTIONS_EACH",
    "ClientFactory",
    "ClientStatistics",
    "check_open_files",
    "fast_parser_factory",
    "refuse_bearer_tokens",
    "settings_key",
]
