"""After a failed refresh: until when the source is left alone, and what whoever asks meanwhile is told."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

    from asyncauth._refresh.policy import RefreshPolicy

logger: Final = logging.getLogger("asyncauth.tokens")


class BackOff:
    """What has failed since the last success, and the pauses that follow from it.

    Attributes:
        not_before: the moment on the monotonic clock before which the source is not asked.
        denial, denied_until: the error that is raised until that moment, without asking.
        error: the last failure; None when all is well.
    """

    def __init__(self, policy: RefreshPolicy, random: Random, name: str) -> None:
        self.not_before = self.denied_until = -math.inf
        self.denial: Exception | None = None
        self.error: Exception | None = None
        self._policy = policy
        self._random = random
        self._name = name
        self._failures = self._retries = 0
        self._said: set[str] = set()

    def failed(self, error: Exception, now: float, *, denied: bool, left: float | None, until_mandatory: float) -> None:
        """Take note of a failure.

        Args:
            error: what the load raised.
            now: the monotonic clock.
            denied: whether asking again would bring the same answer.
            left: seconds for which the value at hand is good, 0 or less when it has ended; None: there never was one.
            until_mandatory: seconds until callers would wait for a refresh; 0 or less when they do.
        """
        self.error = error
        self._failures += 1
        usable = left is not None and (left > 0 or self._policy.serve_expired)
        if denied and (self._policy.deny_with_valid_token or not usable):
            self.denial, self.denied_until = error, now + self._random.uniform(*self._policy.denial_memory)
        elif left is not None:
            self.not_before = now + self._pause(until_mandatory)
        self._say(error, "denied" if denied else "failed", left)

    def succeeded(self) -> None:
        """Forget the failures."""
        if self.error is not None:
            logger.info("%s: refreshed again after %d failures", self._name, self._failures)
        self.error = None
        self._failures = self._retries = 0
        self._said.clear()

    def cut_short(self) -> None:
        """End the pause: what it counted on, a good value, is gone."""
        self.not_before = -math.inf

    def _pause(self, until_mandatory: float) -> float:
        if until_mandatory > 0 or self._policy.serve_expired:
            return self._policy.pause_with_good_token(until_mandatory, self._random)
        self._retries += 1
        return self._policy.pause_before_retry(self._retries, self._random)

    def _say(self, error: Exception, what: str, left: float | None) -> None:
        # Loud once each time that it begins: a source that is down for an hour is one line, not one per try. With
        # nothing ever loaded the error is raised to somebody, who will say it.
        level = logging.DEBUG if left is None or what in self._said else logging.WARNING
        self._said.add(what)
        good = left is not None and left > 0
        at_hand = f"the value at hand is kept, good for {left:.0f} s" if good else "no good value is at hand"
        # Not the error's words: what a source says in an exception may hold a secret.
        code = getattr(error, "code", None)
        kind = f"{type(error).__name__}: {code}" if isinstance(code, str) else type(error).__name__
        logger.log(level, "%s: refresh %s (%s), %s", self._name, what, kind, at_hand)
