"""Token caches: the places where a pool keeps its tokens between calls."""

from __future__ import annotations

from asyncauth.caches.memory import MemoryTokenCache
from asyncauth.caches.protocol import TokenCache

__all__ = ["MemoryTokenCache", "TokenCache"]
