"""Admission: limits per group, a bounded window, an order that spreads neighbours."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._fanout.admission import Admission, Candidate, Group
from asyncauth._fanout.failure_tolerance import Tolerance


class Location(NamedTuple):
    """Target in one account and region."""

    account: str | None
    region: str | None = None


def make(
    *, per_account: int | None = None, per_region: int | None = None, window: int = 1_000, seed: int | None = None
) -> Admission[Candidate[Location]]:
    return Admission(
        groups=[
            Group(lambda location: location.account, per_account),
            Group(lambda location: location.region, per_region),
        ],
        window=window,
        random=None if seed is None else Random(seed),
    )


def offer(admission: Admission[Candidate[Location]], *targets: Location) -> list[Candidate[Location]]:
    candidates = [Candidate(index, target) for index, target in enumerate(targets)]
    for candidate in candidates:
        admission.offer(candidate)
    return candidates


def take_all(admission: Admission[Candidate[Location]]) -> list[int]:
    taken = []
    while (candidate := admission.take()) is not None:
        taken.append(candidate.index)
    return taken


def test_without_random_the_order_is_that_of_arrival() -> None:
    """With `random=None` candidates are taken in the order in which they were offered."""
    admission = make()
    offer(admission, *[Location("a")] * 5)

    assert take_all(admission) == [0, 1, 2, 3, 4]


def test_a_full_group_blocks_no_other_candidate() -> None:
    """Candidates of a busy account are parked, and taken when one of its targets ends."""
    admission = make(per_account=1)
    candidates = offer(admission, Location("a"), Location("a"), Location("a"), Location("b"))

    assert take_all(admission) == [0, 3]
    admission.release(candidates[0])
    assert take_all(admission) == [1]
    admission.release(candidates[1])
    assert take_all(admission) == [2]


def test_a_candidate_needs_every_group_of_its_target() -> None:
    """If the next candidate is blocked by its second group, the one after it is taken."""
    admission = make(per_account=1, per_region=1)
    candidates = offer(admission, Location("a", "eu"), Location("b", "us"), Location("a", "us"), Location("a", "ap"))
    assert take_all(admission) == [0, 1]

    admission.release(candidates[0])

    assert take_all(admission) == [3], "account a is free, but region us is not"


def test_a_key_of_none_is_not_limited() -> None:
    """A candidate whose key is None is not limited by that group."""
    admission = make(per_account=1)
    offer(admission, *[Location(None)] * 3)

    assert take_all(admission) == [0, 1, 2]


def test_a_group_without_a_limit_is_ignored() -> None:
    """The `key` of a group whose limit is None is never called."""
    admission: Admission[Candidate[Location]] = Admission(
        groups=[Group(lambda location: 1 / 0, None)], window=9, random=None
    )
    offer(admission, Location("a"))

    assert take_all(admission) == [0]


def test_reconsider_queues_candidates_whose_limit_has_grown() -> None:
    """A larger result of a callable limit takes effect at the next `reconsider`."""
    most = 1
    admission: Admission[Candidate[Location]] = Admission(
        groups=[Group(lambda location: location.account, lambda account: most)], window=9, random=None
    )
    offer(admission, *[Location("a")] * 5)
    assert take_all(admission) == [0]

    most = 3
    assert take_all(admission) == []
    admission.reconsider()

    assert take_all(admission) == [1, 2]


def test_parked_candidates_do_not_fill_the_window() -> None:
    """Up to `parked` candidates of a full group do not count in the window; queued again or drained, they do."""
    most = 0
    blocked: Group[Location] = Group(lambda location: location.account, lambda account: most, parked=5)
    admission: Admission[Candidate[Location]] = Admission(groups=[blocked], window=3, random=None)

    offered = 0
    while not admission.is_full:
        admission.offer(Candidate(offered, Location("a")))
        offered += 1
        assert take_all(admission) == []
    assert offered == admission.waiting == 5 + 3

    most = 4
    admission.reconsider()
    assert len(take_all(admission)) == 4
    assert not admission.is_full
    admission.drain()
    assert not admission.is_full
    assert admission.runs_low


def test_unused_semaphores_are_dropped() -> None:
    """After all its candidates were released, an account uses no memory."""
    admission = make(per_account=2)
    candidates = offer(admission, *[Location(str(index)) for index in range(100)])
    take_all(admission)

    for candidate in candidates:
        admission.release(candidate)

    assert admission._semaphores == {}


def test_drain_returns_all_waiting_candidates() -> None:
    """`drain` returns all waiting candidates, the parked ones included, in the order of the targets."""
    admission = make(per_account=1, seed=1)
    candidates = offer(admission, *[Location("a")] * 4, *[Location("b")] * 4)
    running = take_all(admission)

    drained = [candidate.index for candidate in admission.drain()]

    assert drained == sorted(set(range(8)) - set(running))
    assert (admission.waiting, admission.admitted) == (0, 2)
    for index in running:
        admission.release(candidates[index])
    assert admission._semaphores == {}


def test_a_window_is_full_or_runs_low() -> None:
    """`is_full` is True at a full window, and `runs_low` at half of it."""
    admission = make(window=4)
    offer(admission, *[Location("a")] * 4)
    assert admission.is_full

    admission.take()
    assert not admission.is_full
    assert not admission.runs_low
    admission.take()
    assert admission.runs_low


@given(seed=st.integers(0, 10_000), window=st.integers(1, 50))
def test_shuffling_moves_no_candidate_further_than_the_window(seed: int, window: int) -> None:
    """With any seed, a candidate is overtaken only by candidates less than a window behind it."""
    admission = make(window=window, seed=seed)
    offer(admission, *[Location("a")] * 200)

    order = take_all(admission)

    assert sorted(order) == list(range(200))
    for position, index in enumerate(order):
        assert all(other < index + window for other in order[:position])


def test_shuffling_spreads_the_regions_of_an_account() -> None:
    """The first hundred candidates taken belong to many accounts, though they arrive account by account."""
    admission = make(window=400, seed=7)
    offer(admission, *[Location(str(account), str(region)) for account in range(100) for region in range(17)])

    first = [admission.take().target.account for _ in range(100)]  # type: ignore[union-attr]

    assert max(first.count(account) for account in set(first)) <= 10  # 17 in the order of arrival
    assert len(set(first)) >= 20


@settings(max_examples=80, deadline=None)
@given(data=st.data(), per_account=st.integers(1, 3), per_region=st.integers(1, 3), seed=st.none() | st.integers(0, 99))
def test_limits_are_never_exceeded_and_no_candidate_is_lost(
    data: st.DataObject, per_account: int, per_region: int, seed: int | None
) -> None:
    """In any order of offers and releases: no group over its limit, and no candidate waits without need."""
    admission = make(per_account=per_account, per_region=per_region, seed=seed)
    waiting: dict[int, Candidate[Location]] = {}
    running: dict[int, Candidate[Location]] = {}
    locations = st.builds(Location, st.sampled_from("abc") | st.none(), st.sampled_from("xyz"))

    def busy(kind: int, key: str | None) -> int:
        return sum(candidate.target[kind] == key for candidate in running.values())

    for index in range(data.draw(st.integers(1, 40), "steps")):
        if not running or data.draw(st.booleans(), "offer rather than release"):
            candidate = waiting[index] = Candidate(index, data.draw(locations, "target"))
            admission.offer(candidate)
        else:
            admission.release(running.pop(data.draw(st.sampled_from(sorted(running)), "ended")))
        while (taken := admission.take()) is not None:
            running[taken.index] = waiting.pop(taken.index)

        assert all(busy(0, key) <= per_account for key in "abc")
        assert all(busy(1, key) <= per_region for key in "xyz")
        for candidate in waiting.values():
            account, region = candidate.target
            assert (account and busy(0, account) == per_account) or busy(1, region) == per_region
        assert (admission.waiting, admission.admitted) == (len(waiting), len(running))


@pytest.mark.parametrize(
    ("mode", "tolerated", "failures", "at_once", "exceeded"),
    [
        # StackSets' own example: a tolerance of 5 and at most 10 accounts begin with 6.
        ("strict", 5, 0, 6, False),
        ("strict", 5, 1, 5, False),
        ("strict", 5, 5, 1, False),
        ("strict", 5, 6, 0, True),
        ("strict", 0, 0, 1, False),
        ("strict", 0, 1, 0, True),
        ("strict", 20, 0, 10, False),
        ("soft", 5, 0, 10, False),
        ("soft", 5, 5, 10, False),
        ("soft", 5, 6, 0, True),
        ("soft", 0, 0, 10, False),
        ("strict", None, 10_000, 10, False),
        ("soft", None, 10_000, 10, False),
    ],
)
def test_tolerance_is_the_arithmetic_of_stacksets(
    mode: str, tolerated: int | None, failures: int, at_once: int, exceeded: bool
) -> None:
    """The number of targets at once, of at most ten, after this number of failures, in both modes."""
    tolerance = Tolerance(tolerated, mode)  # type: ignore[arg-type]
    tolerance.failures = failures

    running = 0
    while running < 10 and tolerance.admits(running):
        running += 1

    assert running == at_once
    assert tolerance.exceeded is exceeded
