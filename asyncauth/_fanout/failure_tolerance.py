"""Failure tolerance: how many targets may fail, and how many may run meanwhile, as in StackSets' concurrency modes.

The rules are those of `ConcurrencyMode`, `FailureToleranceCount` and `FailureTolerancePercentage` in
https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_StackSetOperationPreferences.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncauth._fanout.limits import FailureMode


class Tolerance:
    """Counter of failures, and the limit for them.

    Args:
        tolerated: how many targets may fail; None for any number.
        mode: "strict" keeps running + failures <= tolerated + 1, so that even if all running targets fail, failures
            never exceed the tolerance by more than one. "soft" only prevents further targets from starting.
    """

    def __init__(self, tolerated: int | None, mode: FailureMode) -> None:
        self.tolerated = tolerated
        self.mode = mode
        self.failures = 0

    @property
    def exceeded(self) -> bool:
        """Whether more targets failed than are tolerated, so that no further target starts."""
        return self.tolerated is not None and self.failures > self.tolerated

    def admits(self, running: int) -> bool:
        """Whether one more target may start beside the `running` ones."""
        if self.tolerated is None:
            return True
        if self.mode == "soft":
            return not self.exceeded
        return running + self.failures <= self.tolerated
