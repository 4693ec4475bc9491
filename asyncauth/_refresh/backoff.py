"""Back-off after failed refreshes: when the source may be called again, and which denial is raised until then."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

    from asyncauth._refresh.policy import RefreshPolicy

logger: Final = logging.getLogger("asyncauth.tokens")


class BackOff:
    """The failures since the last success, and the pauses that follow from them.

    Attributes:
        not_before: the moment on the monotonic clock before which the source is not called.
        denial, denied_until: the error that is raised until that moment, without a call to the source.
        error: the last failure; None after a success.
    """

    def __init__(self, policy: RefreshPolicy, random: Random, name: str) -> None:
        self.not_before = self.denied_until = -math.inf
        self.denial: Exception | None = None
        self.error: Exception | None = None
        self._policy = policy
        self._random = random
        self._name = name
        self._failures = self._retries = 0
        self._logged: set[str] = set()

    def failed(self, error: Exception, now: float, *, denied: bool, left: float | None, until_mandatory: float) -> None:
        """Record a failure, and set the pause that follows from it.

        Args:
            error: what the load raised.
            now: the monotonic clock.
            denied: whether another call would have the same result.
            left: seconds until the cached value ends, 0 or less if it has ended; None if none was ever loaded.
            until_mandatory: seconds until callers would wait for a refresh; 0 or less if they already do.
        """
        self.error = error
        self._failures += 1
        usable = left is not None and (left > 0 or self._policy.serve_expired)
        if denied and (self._policy.deny_with_valid_token or not usable):
            self.denial, self.denied_until = error, now + self._random.uniform(*self._policy.denial_memory)
        elif left is not None:
            self.not_before = now + self._pause(until_mandatory)
        self._log(error, "denied" if denied else "failed", left)

    def succeeded(self) -> None:
        """Forget the failures."""
        if self.error is not None:
            logger.info("%s: refreshed again after %d failures", self._name, self._failures)
        self.error = None
        self._failures = self._retries = 0
        self._logged.clear()

    def end_pause(self) -> None:
        """Allow the next call at once: the good value that the pause relied on is gone."""
        self.not_before = -math.inf

    def _pause(self, until_mandatory: float) -> float:
        if until_mandatory > 0 or self._policy.serve_expired:
            return self._policy.pause_with_good_token(until_mandatory, self._random)
        self._retries += 1
        return self._policy.pause_before_retry(self._retries, self._random)

    def _log(self, error: Exception, what: str, left: float | None) -> None:
        # One warning per outage and kind of failure, not one per attempt: a source can be down for an hour. As long as
        # nothing was ever loaded the error is raised to the caller, so it is logged at DEBUG only.
        level = logging.DEBUG if left is None or what in self._logged else logging.WARNING
        self._logged.add(what)
        good = left is not None and left > 0
        cached = f"the cached value is kept, good for {left:.0f} s" if good else "no good value is cached"
        # The type and code only: the message of a source's exception may hold a secret.
        code = getattr(error, "code", None)
        kind = f"{type(error).__name__}: {code}" if isinstance(code, str) else type(error).__name__
        logger.log(level, "%s: refresh %s (%s), %s", self._name, what, kind, cached)
