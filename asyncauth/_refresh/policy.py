"""Refresh policy: when a token is renewed and how failures are handled, as numbers without state.

The rules are those on which AWS's SDKs are converging (Go has released them; Rust, Java, Kotlin and botocore follow).
The docstring of `RefreshPolicy` lists where its defaults differ, and why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.validation import check_seconds, is_number

if TYPE_CHECKING:
    from random import Random

#: The SDKs' specification: (longest lifetime in seconds, inclusive; advisory window in seconds).
_ADVISORY: Final[tuple[tuple[float, float], ...]] = (
    (20 * 60, 5 * 60),
    (math.nextafter(90 * 60, 0), 15 * 60),
    (math.inf, 60 * 60),
)

_FLAGS: Final = (
    "serve_expired",
    "deny_with_valid_token",
    "refresher_waits",
    "cap_windows",
    "invalidate_ends_pause",
)

#: A token is fresh for at least this share of its lifetime. Without it, a 300-second token would never be fresh.
_MIN_FRESH_SHARE: Final = 0.5
#: The same limit for an explicit `advisory_window`: a token is renewed at most ten times in its lifetime.
_MIN_FRESH_SHARE_EXPLICIT: Final = 0.1
#: The mandatory window is at most this share of the lifetime, so even a two-second token is mostly served at once.
_MAX_MANDATORY_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """Rules for the renewal of tokens, and for renewals that fail.

    With the defaults a one-hour token is renewed in the background between minute 41 and 45. If that fails, the next
    attempt follows some minutes later, and from minute 59 on callers wait for the one refresh.

    `specification()` returns the choices of the SDKs' specification. The defaults differ from it in six fields, since a
    run over many accounts lasts minutes, not days:

    - `serve_expired` is False: AWS refuses a role's token past its end, and five to ten minutes until the next attempt
      would make the account unreachable for the whole run.
    - `deny_with_valid_token` is False: AWS decides at the call whether a token is revoked, not the refresh.
    - `refresher_waits` is False: no caller waits while a good token is cached.
    - `cap_windows` is True: without it a token of up to 300 seconds is refreshed at every use, and one of up to 60
      makes every caller wait.
    - `invalidate_ends_pause` is True: a rejected token is not served, so a pause would only delay its replacement.
    - `jitter` is 0.25: ten thousand tokens of one run are not renewed in the same second.

    Args:
        advisory_window: seconds before the end from which a token is renewed in the background. None depends on the
            lifetime: 5 minutes for up to 20 minutes, 15 minutes for less than 90, else one hour. An explicit number
            replaces that table; 0 disables the window.
        mandatory_window: seconds before the end from which callers wait for the renewal.
        jitter: share of the advisory window, 0 to 1, by which it may begin earlier, drawn for each token.
        load_timeout: seconds that one load may take; None for no limit.
        failure_pause: (shortest, longest) seconds without a call to the source after a failed renewal of a token that
            is still good. Unless expired tokens are served, the pause ends where the mandatory window begins.
        retry_pause: (first, longest) seconds between attempts from the mandatory window on; doubled at each failure,
            and shortened at random by up to a half.
        patience: seconds that a call waits, through failures and pauses, for the replacement of a token that has
            ended; then it raises the last failure. A load under way is waited for. None waits until the caller is
            cancelled.
        denial_memory: (shortest, longest) seconds for which a denial is raised again without a call to the source.
        serve_expired: serve an expired or rejected token while its renewal fails.
        deny_with_valid_token: raise a denial even while the cached token is good, instead of serving it to its end.
        refresher_waits: in the advisory window, the one caller that starts the renewal waits for the new token, or for
            the denial; all others get the cached token at once.
        cap_windows: limit the advisory window to half of the lifetime, an explicit one to nine tenths, and the
            mandatory window to a tenth.
        invalidate_ends_pause: a rejected token ends the pause after a failed renewal.

    Raises:
        ConfigurationError: (a ValueError) a number out of range.
    """

    advisory_window: float | None = None
    mandatory_window: float = 60.0
    jitter: float = 0.25
    load_timeout: float | None = 10.0
    failure_pause: tuple[float, float] = (300.0, 600.0)
    retry_pause: tuple[float, float] = (1.0, 30.0)
    patience: float | None = 300.0
    denial_memory: tuple[float, float] = (1.0, 5.0)
    serve_expired: bool = False
    deny_with_valid_token: bool = False
    refresher_waits: bool = False
    cap_windows: bool = True
    invalidate_ends_pause: bool = True

    def __post_init__(self) -> None:
        check_seconds("advisory_window", self.advisory_window, zero=True, optional=True)
        check_seconds("mandatory_window", self.mandatory_window, zero=True)
        check_seconds("load_timeout", self.load_timeout, optional=True)
        check_seconds("patience", self.patience, zero=True, optional=True)
        _check_range("failure_pause", self.failure_pause, zero=True)
        _check_range("retry_pause", self.retry_pause)
        _check_range("denial_memory", self.denial_memory, zero=True)
        if not is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"jitter={self.jitter!r} must be a share from 0 to 1")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name}={getattr(self, name)!r} must be True or False")

    @classmethod
    def specification(cls) -> Self:
        """Return the policy of AWS's SDKs, in the fields that the specification defines."""
        return cls(
            jitter=0.0,
            serve_expired=True,
            deny_with_valid_token=True,
            refresher_waits=True,
            cap_windows=False,
            invalidate_ends_pause=False,
        )

    def fresh_for(self, lifetime: float, random: Random) -> float:
        """Return how many seconds a token is fresh. After that it is renewed, at first in the background."""
        if math.isinf(lifetime):
            return math.inf
        if self.advisory_window is None:
            window, min_fresh = next(window for longest, window in _ADVISORY if lifetime <= longest), _MIN_FRESH_SHARE
        else:
            window, min_fresh = self.advisory_window, _MIN_FRESH_SHARE_EXPLICIT
        if self.cap_windows:
            window = min(window, lifetime * (1 - min_fresh))
        window *= 1 + random.uniform(0, self.jitter)
        shortest = lifetime * _MIN_FRESH_SHARE_EXPLICIT if self.cap_windows else 0.0
        return min(max(lifetime - window, shortest), self.served_at_once_for(lifetime))

    def served_at_once_for(self, lifetime: float) -> float:
        """Return how many seconds a token is served without waiting. After that callers wait for its renewal."""
        if math.isinf(lifetime):
            return math.inf
        longest = lifetime * _MAX_MANDATORY_SHARE if self.cap_windows else lifetime
        return lifetime - min(self.mandatory_window, longest)

    def pause_with_good_token(self, until_mandatory: float, random: Random) -> float:
        """Return how many seconds not to call the source after a failure while the cached token is good."""
        pause = random.uniform(*self.failure_pause)
        return pause if self.serve_expired else min(pause, until_mandatory)

    def pause_before_retry(self, failures: int, random: Random) -> float:
        """Return how many seconds to wait after the nth failure in a row, from the mandatory window on."""
        first, longest = self.retry_pause
        pause = min(longest, first * 2.0 ** min(failures - 1, 64))
        return random.uniform(pause / 2, pause)


def _check_range(name: str, value: object, *, zero: bool = False) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise ConfigurationError(f"{name}={value!r} must be a pair of seconds, (from, to)")
    for each in value:
        check_seconds(name, each, zero=zero)
    if value[0] > value[1]:
        raise ConfigurationError(f"{name}={value!r} must not end before it begins")
