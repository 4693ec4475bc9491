"""Token caches: the places where tokens outlive a pool."""

from __future__ import annotations

from asyncauth.caches.configured_source import configured_source
from asyncauth.caches.file import FileTokenCache
from asyncauth.caches.memory import MemoryTokenCache
from asyncauth.caches.protocol import CachedToken, TokenCache, TokenKey

__all__ = ["CachedToken", "FileTokenCache", "MemoryTokenCache", "TokenCache", "TokenKey", "configured_source"]
