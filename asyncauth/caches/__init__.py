"""Token caches: the places where tokens outlive a pool."""

from __future__ import annotations

from asyncauth.caches.memory import MemoryTokenCache
from asyncauth.caches.protocol import CachedToken, TokenCache, TokenKey

__all__ = ["CachedToken", "MemoryTokenCache", "TokenCache", "TokenKey"]
