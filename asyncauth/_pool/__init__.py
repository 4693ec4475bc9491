"""Session pool: assembles sources, tokens and clients, and owns them while it is open."""

from __future__ import annotations

from asyncauth._pool.pool import SessionPool
from asyncauth._pool.statistics import Statistics
from asyncauth._pool.worker_pool import WorkerPool

__all__ = ["SessionPool", "Statistics", "WorkerPool"]
