"""The session pool: sources, tokens and clients, assembled and owned while the pool is open."""

from __future__ import annotations

from asyncauth._pool.pool import SessionPool
from asyncauth._pool.statistics import Statistics

__all__ = ["SessionPool", "Statistics"]
