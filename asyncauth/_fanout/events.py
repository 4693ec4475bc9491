"""What a run tells while it goes, one frozen event at a time: for progress displays, logs and metrics.

An event carries no result and no credentials, only where the run stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

K = TypeVar("K")

#: The ways in which a target can end.
Status: TypeAlias = Literal["succeeded", "failed", "timed_out", "skipped", "cancelled"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The first event of a run. `total` is the number of targets, None where nobody knows it yet."""

    total: int | None


@dataclass(frozen=True, slots=True)
class TargetStarted(Generic[K]):
    """A target was admitted; `index` is its position among the targets asked for, from 0 on."""

    index: int
    target: K


@dataclass(frozen=True, slots=True)
class TargetRetried(Generic[K]):
    """Attempt `attempt` (from 1) ended in `error`; the next one begins in `wait_seconds`."""

    index: int
    target: K
    attempt: int
    error: Exception
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class TargetSettled(Generic[K]):
    """A target was answered. Every target gets exactly one; one that was never begun has `attempts` 0.

    `elapsed` is in seconds from admission.
    """

    index: int
    target: K
    status: Status
    phase: str | None
    error: Exception | None
    reason: str | None
    attempts: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last event of a run: how many targets ended how, and after how many seconds.

    `complete` is False when targets were left unread: the caller left, or the deadline passed, before the producer of
    targets came to its end.
    """

    counts: Mapping[Status, int]
    elapsed: float
    complete: bool


Event: TypeAlias = RunStarted | TargetStarted[K] | TargetRetried[K] | TargetSettled[K] | RunFinished
