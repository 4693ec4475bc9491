"""Fan-out engine: one async callable over any number of targets, with exactly one result each. Knows no AWS."""

from __future__ import annotations

from asyncauth._fanout.admission import Group
from asyncauth._fanout.attempt import current_attempt
from asyncauth._fanout.engine import Attempt, FanOut, SkipTarget, TargetResult, fan_out
from asyncauth._fanout.events import Event, RunFinished, RunStarted, Status, TargetRetried, TargetSettled, TargetStarted
from asyncauth._fanout.failure_tolerance import Tolerance
from asyncauth._fanout.limits import FailureMode, Limits, Retry
from asyncauth._fanout.producer import Producer
from asyncauth._fanout.reader import ResultReader
from asyncauth._fanout.results import ResultBuffer

__all__ = [
    "Attempt",
    "Event",
    "FailureMode",
    "FanOut",
    "Group",
    "Limits",
    "Producer",
    "ResultBuffer",
    "ResultReader",
    "Retry",
    "RunFinished",
    "RunStarted",
    "SkipTarget",
    "Status",
    "TargetResult",
    "TargetRetried",
    "TargetSettled",
    "TargetStarted",
    "Tolerance",
    "current_attempt",
    "fan_out",
]
