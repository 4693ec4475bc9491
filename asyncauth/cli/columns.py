"""Columns of a run's records, in a module without imports: the help of a command needs them, too."""

from __future__ import annotations

from typing import Final

RUN_COLUMNS: Final = (
    "account",
    "account_name",
    "partition",
    "region",
    "status",
    "value",
    "error_code",
    "error",
    "reason",
    "phase",
    "attempts",
    "elapsed",
)
