"""How many targets may fail, and how many may run while some have: the arithmetic of StackSets' concurrency modes.

The rules are those of `ConcurrencyMode`, `FailureToleranceCount` and `FailureTolerancePercentage` in
https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_StackSetOperationPreferences.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncauth._fanout.limits import FailureMode


class Tolerance:
    """Count failures against what is tolerated.

    Args:
        tolerated: how many targets may fail; None: however many.
        mode: "strict" keeps running + failures <= tolerated + 1, so that even if all that runs fails, failures never
            exceed the tolerance by more than one. "soft" only stops what has not begun.
    """

    def __init__(self, tolerated: int | None, mode: FailureMode) -> None:
        self.tolerated = tolerated
        self.mode = mode
        self.failures = 0

    @property
    def exceeded(self) -> bool:
        """Whether more targets failed than are tolerated: nothing more begins."""
        return self.tolerated is not None and self.failures > self.tolerated

    def admits(self, running: int) -> bool:
        """Whether one more target may start beside the `running` ones."""
        if self.tolerated is None:
            return True
        if self.mode == "soft":
            return not self.exceeded
        return running + self.failures <= self.tolerated
