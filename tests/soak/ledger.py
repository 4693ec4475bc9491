"""Ledger of the soak: every target with its outcome, every fault, the resources of this process, and the violations."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.soak.world import Answer, expected_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncauth import Account, Outcome
    from asyncauth.testing import Counts

#: MiB a minute by which the resident memory may grow in the second half of a long soak.
MAX_RSS_SLOPE_MIB_PER_MINUTE: Final = 0.5
#: Growth that is no leak. Idle worker threads of anyio stay for some seconds; closed sockets can wait for the loop.
_ALLOWED_GROWTH: Final = {"files": 2, "threads": 4, "tasks": 0}


@dataclass(frozen=True, slots=True)
class Sample:
    """Resources of this process between two pools.

    Args:
        at: seconds since the start.
        files: open file descriptors.
        threads: running threads.
        tasks: tasks of the event loop.
        rss_mib: resident memory in MiB.
    """

    at: float
    files: int
    threads: int
    tasks: int
    rss_mib: float

    @classmethod
    def now(cls, at: float) -> Sample:
        """Return a sample of this process, after a garbage collection."""
        gc.collect()
        # What was freed and is still held by the allocator, in the arenas of threads that ended, is no leak.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        status = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        assert status is not None
        return cls(
            at,
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            len(asyncio.all_tasks()),
            int(status[1]) / 1024,
        )


@dataclass
class Ledger:
    """Everything that a soak observes.

    Attributes:
        statuses: outcomes by status.
        codes: failed outcomes by error class and code.
        faults: number of times that each kind of fault had an effect.
        pools: number of pools that were opened and closed.
        problems: violations that were found during the run, in words.
        samples: resources after each pool was closed.
        unrecovered: accounts that did not succeed after all faults ended.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    pools: int = 0
    problems: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    unrecovered: set[str] = field(default_factory=set)

    def settle(self, given: Sequence[Account], outcomes: Sequence[Outcome[Answer]], *, is_complete: bool) -> None:
        """Compare the outcomes of a run with its accounts; with `is_complete` every target must have an outcome."""
        expected = Counter((account.id, region) for account in given for region in account.regions)
        received = Counter((outcome.account.id, outcome.region_name) for outcome in outcomes)
        for target, count in (received - expected).items():
            self.problems.append(f"doubled: {count} outcomes too many of {target}")
        for target, count in (expected - received).items() if is_complete else ():
            self.problems.append(f"lost: {count} outcomes missing of {target}")
        for outcome in outcomes:
            self._settle_one(outcome)

    def _settle_one(self, outcome: Outcome[Answer]) -> None:
        self.statuses[outcome.status] += 1
        if outcome.status == "succeeded" and outcome.value != expected_answer(outcome.account):
            self.problems.append(f"crossed: {outcome.account.id} got the answer {outcome.value}")
        elif outcome.status == "failed":
            self.codes[f"{type(outcome.error).__name__} {outcome.error_code or ''}".strip()] += 1

    def violations(self, counts: Counts, *, kinds: Sequence[str], minimum: int, is_long: bool) -> list[str]:
        """Return every violated promise, in words.

        Args:
            counts: the fleet's counts at the end.
            kinds: the kinds of faults.
            minimum: number of times that each kind must have had an effect.
            is_long: whether the run was long enough for a slope of memory.
        """
        found = list(self.problems)
        if expired := _expired_when_signed(counts):
            found.append(f"expired: {expired} calls were signed with a token past its end")
        found += [
            f"faults: {kind} had an effect {self.faults[kind]} times, not {minimum}"
            for kind in kinds
            if self.faults[kind] < minimum
        ]
        if self.unrecovered:
            found.append(f"unrecovered: {', '.join(sorted(self.unrecovered))} fail without faults")
        found += self._growth()
        slope = slope_mib_per_minute(self.samples)
        if is_long and slope >= MAX_RSS_SLOPE_MIB_PER_MINUTE:
            found.append(f"memory: the second half grew by {slope:.2f} MiB a minute")
        return found

    def _growth(self) -> list[str]:
        # The last third has no sample as low as the highest of the first third: growth, and not noise.
        third = max(1, len(self.samples) // 3)
        return [
            f"{name}: between {before} and {after} after each pool"
            for name, allowed in _ALLOWED_GROWTH.items()
            if (before := max(getattr(one, name) for one in self.samples[:third])) + allowed
            < (after := min(getattr(one, name) for one in self.samples[-third:]))
        ]

    def lines(self, counts: Counts) -> list[str]:
        """Return the figures of the soak as text."""
        last = self.samples[-1]
        return [
            f"outcomes: {self.statuses.total():,} ({_listed(self.statuses)})",
            f"errors: {_listed(self.codes) or 'none'}",
            f"faults: {_listed(self.faults)}",
            f"fleet: {counts.calls():,} calls, {counts.calls('sts', 'AssumeRole', code=''):,} tokens",
            f"calls with expired tokens: {counts.expired_early} ended early, "  # noqa: ISC004 - one line of text
            f"{counts.expired_in_transit} ended in transit, {_expired_when_signed(counts)} others",
            f"pools: {self.pools}; then {last.files} files, {last.threads} threads, {last.tasks} tasks",
            f"memory: {last.rss_mib:.0f} MiB, second half {slope_mib_per_minute(self.samples):+.2f} MiB a minute",
        ]


def _expired_when_signed(counts: Counts) -> int:
    # A stall between the signature and the socket is beyond the pool: the token was good when it signed.
    return counts.expired - counts.expired_early - counts.expired_in_transit


def slope_mib_per_minute(samples: Sequence[Sample]) -> float:
    """Return the slope of resident memory over the second half of the samples, by least squares; 0 if there are two."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return 0.0
    mean_at = sum(one.at for one in half) / len(half)
    mean_rss = sum(one.rss_mib for one in half) / len(half)
    spread = sum((one.at - mean_at) ** 2 for one in half)
    slope = sum((one.at - mean_at) * (one.rss_mib - mean_rss) for one in half) / spread if spread else 0.0
    return slope * 60


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))
