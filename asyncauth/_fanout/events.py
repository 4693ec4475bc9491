"""Events of a run, one frozen value at a time: for progress displays, logs and metrics.

An event holds the state of the run, and never a result or credentials.
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
    """First event of a run. `total` is the number of targets, None if it is not known yet."""

    total: int | None


@dataclass(frozen=True, slots=True)
class TargetStarted(Generic[K]):
    """A target was admitted. `index` is its position among the targets, from 0 on."""

    index: int
    target: K


@dataclass(frozen=True, slots=True)
class TargetRetried(Generic[K]):
    """Attempt `attempt` (from 1) ended in `error`. The next one begins in `wait_seconds`."""

    index: int
    target: K
    attempt: int
    error: Exception
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class TargetSettled(Generic[K]):
    """A target has its result. Every target gets exactly one; one that never began has `attempts` 0.

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
    """Last event of a run: how many targets ended with which status, and after how many seconds.

    `complete` is False if targets were left unread: the run was left, or its deadline passed, before the producer of
    targets ended.
    """

    counts: Mapping[Status, int]
    elapsed: float
    complete: bool


Event: TypeAlias = RunStarted | TargetStarted[K] | TargetRetried[K] | TargetSettled[K] | RunFinished
