"""Who starts next: places per group, a bounded look-ahead, an order that spreads neighbours."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._fanout.admission import Admission, Group, Ticket
from asyncauth._fanout.failure_tolerance import Tolerance


class Where(NamedTuple):
    account: str | None
    region: str | None = None


def make(
    *, per_account: int | None = None, per_region: int | None = None, window: int = 1_000, seed: int | None = None
) -> Admission[Ticket[Where]]:
    return Admission(
        groups=[
            Group("account", lambda where: where.account, per_account),
            Group("region", lambda where: where.region, per_region),
        ],
        window=window,
        random=None if seed is None else Random(seed),
    )


def offer(admission: Admission[Ticket[Where]], *targets: Where) -> list[Ticket[Where]]:
    tickets = [Ticket(index, target) for index, target in enumerate(targets)]
    for ticket in tickets:
        admission.offer(ticket)
    return tickets


def take_all(admission: Admission[Ticket[Where]]) -> list[int]:
    taken = []
    while (ticket := admission.take()) is not None:
        taken.append(ticket.index)
    return taken


def test_without_chance_the_order_is_that_of_arrival() -> None:
    """Unless told to shuffle, tickets are taken as they came."""
    admission = make()
    offer(admission, *[Where("a")] * 5)

    assert take_all(admission) == [0, 1, 2, 3, 4]


def test_a_full_group_holds_up_nobody_behind_it() -> None:
    """Targets of an account that is busy are passed over, and taken when it is free again."""
    admission = make(per_account=1)
    tickets = offer(admission, Where("a"), Where("a"), Where("a"), Where("b"))

    assert take_all(admission) == [0, 3]
    admission.release(tickets[0])
    assert take_all(admission) == [1]
    admission.release(tickets[1])
    assert take_all(admission) == [2]


def test_a_target_needs_a_place_in_each_of_its_groups() -> None:
    """A place that one target cannot use, its other group being full, goes to the next in line."""
    admission = make(per_account=1, per_region=1)
    tickets = offer(admission, Where("a", "eu"), Where("b", "us"), Where("a", "us"), Where("a", "ap"))
    assert take_all(admission) == [0, 1]

    admission.release(tickets[0])

    assert take_all(admission) == [3], "account a is free, but region us is not"


def test_a_key_of_none_is_not_limited() -> None:
    """A target that belongs to no group of a kind is not held up by that kind."""
    admission = make(per_account=1)
    offer(admission, *[Where(None)] * 3)

    assert take_all(admission) == [0, 1, 2]


def test_a_group_without_a_limit_costs_nothing() -> None:
    """A group whose limit is None is not even asked for its key."""
    admission: Admission[Ticket[Where]] = Admission(
        groups=[Group("account", lambda where: 1 / 0, None)], window=9, random=None
    )
    offer(admission, Where("a"))

    assert take_all(admission) == [0]


def test_reconsidering_wakes_those_whose_limit_has_grown() -> None:
    """Where a callable says how many, a larger answer takes effect when somebody says that it has changed."""
    most = 1
    admission: Admission[Ticket[Where]] = Admission(
        groups=[Group("account", lambda where: where.account, lambda account: most)], window=9, random=None
    )
    offer(admission, *[Where("a")] * 5)
    assert take_all(admission) == [0]

    most = 3
    assert take_all(admission) == []
    admission.reconsider()

    assert take_all(admission) == [1, 2]


def test_those_who_wait_for_the_one_thing_that_is_stuck_leave_room_for_others() -> None:
    """Set aside, they do not fill the window, up to a number; once they may start, or are drained, they count again."""
    most = 0
    stuck: Group[Where] = Group("account", lambda where: where.account, lambda account: most, parked=5)
    admission: Admission[Ticket[Where]] = Admission(groups=[stuck], window=3, random=None)

    offered = 0
    while admission.has_room:
        admission.offer(Ticket(offered, Where("a")))
        offered += 1
        assert take_all(admission) == []
    assert offered == admission.waiting == 5 + 3

    most = 4
    admission.reconsider()
    assert len(take_all(admission)) == 4
    assert admission.has_room
    admission.drain()
    assert admission.has_room
    assert admission.runs_low


def test_groups_that_nobody_leans_on_are_forgotten() -> None:
    """Ten thousand accounts leave nothing behind when they are done."""
    admission = make(per_account=2)
    tickets = offer(admission, *[Where(str(index)) for index in range(100)])
    take_all(admission)

    for ticket in tickets:
        admission.release(ticket)

    assert admission._places == {}


def test_draining_leaves_nobody_waiting() -> None:
    """All who wait come out, also those parked with a full group, in the order of the targets."""
    admission = make(per_account=1, seed=1)
    tickets = offer(admission, *[Where("a")] * 4, *[Where("b")] * 4)
    running = take_all(admission)

    drained = [ticket.index for ticket in admission.drain()]

    assert drained == sorted(set(range(8)) - set(running))
    assert (admission.waiting, admission.admitted) == (0, 2)
    for index in running:
        admission.release(tickets[index])
    assert admission._places == {}


def test_a_window_says_when_it_is_full_and_when_it_runs_low() -> None:
    """Reading stops at a full window and is due again at half of it."""
    admission = make(window=4)
    offer(admission, *[Where("a")] * 4)
    assert not admission.has_room

    admission.take()
    assert admission.has_room
    assert not admission.runs_low
    admission.take()
    assert admission.runs_low


@given(seed=st.integers(0, 10_000), window=st.integers(1, 50))
def test_shuffling_moves_nobody_further_than_the_window(seed: int, window: int) -> None:
    """However unlucky, a ticket is overtaken only by those less than a window behind it."""
    admission = make(window=window, seed=seed)
    offer(admission, *[Where("a")] * 200)

    order = take_all(admission)

    assert sorted(order) == list(range(200))
    for place, index in enumerate(order):
        assert all(other < index + window for other in order[:place])


def test_shuffling_spreads_the_regions_of_an_account() -> None:
    """The first hundred to start belong to many accounts, though targets arrive account by account."""
    admission = make(window=400, seed=7)
    offer(admission, *[Where(str(account), str(region)) for account in range(100) for region in range(17)])

    first = [admission.take().target.account for _ in range(100)]  # type: ignore[union-attr]

    assert max(first.count(account) for account in set(first)) <= 10  # 17 in the order of arrival
    assert len(set(first)) >= 20


@settings(max_examples=80, deadline=None)
@given(data=st.data(), per_account=st.integers(1, 3), per_region=st.integers(1, 3), seed=st.none() | st.integers(0, 99))
def test_places_are_never_exceeded_and_nobody_is_forgotten(
    data: st.DataObject, per_account: int, per_region: int, seed: int | None
) -> None:
    """Whatever comes and goes in whatever order: no group over its limit, no place idle that somebody could use."""
    admission = make(per_account=per_account, per_region=per_region, seed=seed)
    waiting: dict[int, Ticket[Where]] = {}
    running: dict[int, Ticket[Where]] = {}
    where = st.builds(Where, st.sampled_from("abc") | st.none(), st.sampled_from("xyz"))

    def busy(kind: int, key: str | None) -> int:
        return sum(ticket.target[kind] == key for ticket in running.values())

    for index in range(data.draw(st.integers(1, 40), "steps")):
        if not running or data.draw(st.booleans(), "offer rather than release"):
            ticket = waiting[index] = Ticket(index, data.draw(where, "target"))
            admission.offer(ticket)
        else:
            admission.release(running.pop(data.draw(st.sampled_from(sorted(running)), "ended")))
        while (taken := admission.take()) is not None:
            running[taken.index] = waiting.pop(taken.index)

        assert all(busy(0, key) <= per_account for key in "abc")
        assert all(busy(1, key) <= per_region for key in "xyz")
        for ticket in waiting.values():
            account, region = ticket.target
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
    """With at most ten at once, so many run beside so many failures, in STRICT and in SOFT mode."""
    tolerance = Tolerance(tolerated, mode)  # type: ignore[arg-type]
    tolerance.failures = failures

    running = 0
    while running < 10 and tolerance.admits(running):
        running += 1

    assert running == at_once
    assert tolerance.exceeded is exceeded
