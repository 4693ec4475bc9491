"""Token bucket that finds its rate from which answers were throttled."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from asyncauth._resilience.token_bucket import TokenBucket


@dataclass(frozen=True, slots=True)
class AdaptiveRateConfig:
    """How a bucket finds its rate.

    The defaults were chosen for STS by simulating services that allow 5 to 600 requests a second, with bursts of 5 of
    them to seconds' worth, sliding and calendar windows, at 5 to 200 ms; `tests/resilience/test_adaptive_bucket.py`
    holds the outcome.

    Args:
        start: tokens a second before anything is known.
        start_burst: how many can be taken at once before throttling was met; None: a tenth of a second of the rate, as
            after that.
        min_rate: never fewer tokens a second than this.
        growth: in slow start, what a granted answer adds to the rate, as a share of `start`. Answers are counted, not
            seconds, so a service is approached the more slowly the longer it takes to answer: whatever is in flight
            when throttling begins is lost.
        back_off: after throttling, the share of what was granted to go on with (RFC 9438 has 0.7 too).
        recovery: seconds until the rate is back at what was granted; from there on it probes upwards.
        tolerance: the share of throttled answers that is no signal yet.
        window: how many answers are judged together, and at least `window_seconds` of them.
        urgent: so many throttled answers, and half of those seen, are judged at once.
        throttle_burst: so many throttled among the last ten answers are judged at once, too, whatever came before.
        patience: seconds of nothing but throttled answers, and at least `patience_answers` of them, after which the
            rate counts as saturated: more requests would not help.
    """

    start: float = 100.0
    start_burst: float | None = None
    min_rate: float = 1.0
    growth: float = 0.025
    back_off: float = 0.7
    recovery: float = 2.0
    tolerance: float = 0.05
    window: int = 30
    window_seconds: float = 0.25
    urgent: int = 4
    throttle_burst: int = 8
    patience: float = 5.0
    patience_answers: int = 10


@dataclass(frozen=True, slots=True)
class Acquisition:
    """What a token is remembered by until its answer comes.

    Args:
        window: the window of answers it belongs to; an answer to a request sent at an older rate shows nothing new.
        was_short: the rate was what held it back. Only then does its success show that more might be granted.
    """

    window: int
    was_short: bool


@dataclass(slots=True)
class _Window:
    """The answers to what was sent since the last judgement; the last ten of them as bits, throttled is 1."""

    number: int
    granted: int = 0
    throttled: int = 0
    since: float = 0.0
    last_ten: int = 0

    def add(self, *, throttled: bool) -> None:
        self.throttled += throttled
        self.granted += not throttled
        self.last_ten = (self.last_ten << 1 | throttled) & 0b11_1111_1111

    @property
    def answers(self) -> int:
        return self.granted + self.throttled

    @property
    def share(self) -> float:
        return self.throttled / self.answers if self.answers else 0.0

    @property
    def recent_share(self) -> float:
        return self.last_ten.bit_count() / min(10, self.answers) if self.answers else 0.0


@dataclass(frozen=True, slots=True)
class _RateState:
    """Where a bucket is: its rate, where it is heading (None in slow start), and how far it came.

    Args:
        rate: tokens a second.
        goal: the rate that was granted when throttling was last met.
        bottom: the rate that the climb to the goal began at.
        climbed: seconds of that climb.
    """

    rate: float
    goal: float | None = None
    bottom: float = 0.0
    climbed: float = 0.0


@dataclass(frozen=True, slots=True)
class _UnconfirmedBackOff:
    """A back-off that has yet to show that it helps: the state before it, and what was throttled and granted then."""

    state: _RateState
    share: float
    granted: float

    def is_as_before(self, window: _Window) -> bool:
        """Whether as much is throttled as before: a share that grew has another reason, such as a burst used up."""
        chance = 3 * math.sqrt(self.share * (1 - self.share) / max(1, window.answers))  # three standard deviations
        return self.share / 3 <= window.share <= self.share + chance


class _LastSecond:
    """How many were granted in the last second, to a tenth of it."""

    __slots__ = ("_slots", "_tick")

    def __init__(self) -> None:
        self._slots = [0] * 10
        self._tick = 0

    def add(self, now: float) -> None:
        self._forget(now)
        self._slots[self._tick % 10] += 1

    def count(self, now: float) -> int:
        self._forget(now)
        return sum(self._slots)

    def _forget(self, now: float) -> None:
        tick = int(now * 10)
        for past in range(max(self._tick + 1, tick - 9), tick + 1):
            self._slots[past % 10] = 0
        self._tick = max(self._tick, tick)


class AdaptiveBucket(TokenBucket):
    """A bucket that finds the rate of a service by itself: additive increase, multiplicative decrease.

    *Slow start*, until throttling is met: each granted answer raises the rate by a little, so it doubles within some
    tenths of a second, and a service that has no limit in reach never is the slower for it. *Back-off*: when too many
    of a window's answers are throttled, the rate falls to 0.7 of what was granted. Only answers to what was sent since
    the last judgement count, so that one burst of throttling lowers the rate once. *Recovery*: within two seconds the
    rate is back at what was granted, stays near it for a while, and then climbs ever faster (the cubic curve of RFC
    9438): a limit that stays is rarely hit, and one that was raised is found.

    Some throttling has nothing to do with the rate: an account that is throttled by itself, a service in trouble. It
    shows by staying as it is when the rate falls. Then the back-off is undone, and that share is taken as normal from
    there on. Without that rule one account in twenty that is throttled brings the rate for all to its minimum.

    After nothing but throttling for `AdaptiveRateConfig.patience` seconds the bucket is saturated: more requests would
    not help.

    Args:
        config: how.
        now: seconds on a monotonic clock.
        ceiling: never more tokens a second than this.
    """

    __slots__ = (
        "_ceiling",
        "_config",
        "_falling",
        "_granted",
        "_last_answer_at",
        "_normal_share",
        "_state",
        "_throttled_in_a_row",
        "_throttled_since",
        "_unconfirmed",
        "_window",
    )

    def __init__(self, adaptive: AdaptiveRateConfig, now: float, *, ceiling: float = math.inf) -> None:
        start = min(adaptive.start, ceiling)
        super().__init__(start, max(_burst_of(start), adaptive.start_burst or 0.0), now)
        self._config = adaptive
        self._ceiling = ceiling
        self._state = _RateState(start)
        self._window = _Window(0)
        self._unconfirmed: _UnconfirmedBackOff | None = None
        self._normal_share = 0.0
        self._falling = False
        self._granted = _LastSecond()
        self._last_answer_at = now
        self._throttled_in_a_row = 0
        self._throttled_since = now
        self._set_state(self._state)

    @property
    def is_settled(self) -> bool:
        """Whether throttling was met, so that the rate is a finding and no longer a guess."""
        return self._state.goal is not None

    def acquire(self, now: float, units: int = 1, *, waited: bool) -> Acquisition:
        """Take a token, and return what its answer is to be reported with."""
        self.take(now, units)
        return Acquisition(self._window.number, waited or self._level < self.burst / 2)

    def answered(self, acquisition: Acquisition, now: float, *, throttled: bool) -> None:
        """Learn from the answer to the request that was sent on `acquisition`."""
        if throttled:
            self._throttled_since = now if self._throttled_in_a_row == 0 else self._throttled_since
            self._throttled_in_a_row += 1
        else:
            self._end_saturation()
            self._granted.add(now)
            if acquisition.was_short:
                self._grow(now)
        self._last_answer_at = now
        if acquisition.window == self._window.number:
            self._count(self._window, now, throttled=throttled)

    def is_saturated(self, now: float) -> bool:
        """Whether there was nothing but throttling for so long that more requests would not help."""
        return (
            self._throttled_in_a_row >= self._config.patience_answers
            and now - self._throttled_since >= self._config.patience
        )

    def set_ceiling(self, ceiling: float) -> None:
        """Never have more tokens a second than this from now on; what was learned below it is kept."""
        self._ceiling = ceiling
        self._set_state(self._state)

    def _end_saturation(self) -> None:
        if self._throttled_in_a_row >= self._config.patience_answers and self.rate <= self._config.min_rate:
            # What was granted while the service was in trouble is no measure of what it grants now.
            self._set_state(_RateState(self._config.start / 4))
        self._throttled_in_a_row = 0

    def _grow(self, now: float) -> None:
        state, adaptive = self._state, self._config
        if state.goal is None:
            self._set_state(_RateState(state.rate + adaptive.start * adaptive.growth))
            return
        # A pause does not prove that more would be granted, so time counts only while answers keep coming.
        climbed = state.climbed + min(max(0.0, now - self._last_answer_at), 0.5)
        beyond = climbed / adaptive.recovery - 1
        depth = state.goal - state.bottom if beyond < 0 else state.goal * (1 - adaptive.back_off)
        self._set_state(_RateState(max(state.rate, state.goal + depth * beyond**3), state.goal, state.bottom, climbed))

    def _count(self, window: _Window, now: float, *, throttled: bool) -> None:
        if window.answers == 0:
            window.since = now
        window.add(throttled=throttled)
        is_full = window.answers >= self._config.window and now - window.since >= self._config.window_seconds
        is_urgent = window.throttled >= self._config.urgent and window.share >= 0.5
        if is_full or is_urgent or window.last_ten.bit_count() >= self._config.throttle_burst:
            self._judge(window, now, is_full=is_full)
            self._window = _Window(window.number + 1)

    def _judge(self, window: _Window, now: float, *, is_full: bool) -> None:
        unconfirmed, self._unconfirmed = self._unconfirmed, None
        if unconfirmed and is_full and self.rate <= unconfirmed.granted and unconfirmed.is_as_before(window):
            self._normal_share = min(window.share, unconfirmed.share)
            self._set_state(unconfirmed.state)
        elif window.share <= self._normal_share + self._config.tolerance:
            self._falling = False
            self._normal_share = min(self._normal_share, 0.95 * self._normal_share + 0.05 * window.share)
        elif is_full:
            granted = min(self.rate * max(1 - window.share, 0.5), window.granted / (now - window.since))
            if window.share < 0.3:
                self._unconfirmed = _UnconfirmedBackOff(self._state, window.share, granted)
            self._back_off(granted, goal=granted)
        else:
            granted = self.rate * max(1 - window.recent_share, 0.5)
            self._back_off(granted, goal=self._goal_when_urgent(window, granted, now))

    def _goal_when_urgent(self, window: _Window, granted: float, now: float) -> float:
        """Return the goal after few answers: they show that the rate is too high, the last second by how much."""
        if self._falling and self._state.goal is not None and window.granted < window.throttled:
            return self._state.goal
        return max(granted, min(self.rate, 0.8 * self._granted.count(now)))

    def _back_off(self, granted: float, *, goal: float) -> None:
        self._falling = True
        bottom = max(self._config.min_rate, granted * self._config.back_off)
        self._set_state(_RateState(bottom, goal, bottom))
        self._level = min(self._level, 0.0)

    def _set_state(self, state: _RateState) -> None:
        self.rate = min(max(self._config.min_rate, state.rate), self._ceiling)
        self._state = replace(state, rate=self.rate)
        self.burst = _burst_of(self.rate)
        if state.goal is None:
            self.burst = max(self.burst, self._config.start_burst or 0.0)
        self._level = min(self._level, self.burst)


def _burst_of(rate: float) -> float:
    # A tenth of a second of saved-up tokens makes up for late timers; more would break in on a service all at once.
    return max(1.0, rate / 10)
