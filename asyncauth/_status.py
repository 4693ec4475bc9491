"""The ways in which a target can end."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Status"]

Status: TypeAlias = Literal["succeeded", "failed", "timed_out", "skipped", "cancelled"]
