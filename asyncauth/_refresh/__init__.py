"""Cache of one expiring value: loaded once for any number of callers, renewed before it ends. Knows no AWS."""

from __future__ import annotations

from asyncauth._refresh.policy import RefreshPolicy
from asyncauth._refresh.slot import Expiring, ExpiringSlot, RefreshAbandoned, RefreshError

__all__ = ["Expiring", "ExpiringSlot", "RefreshAbandoned", "RefreshError", "RefreshPolicy"]
