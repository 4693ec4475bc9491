"""The means of the rule: what leads to what, cheap copies, and keys of configs."""

from __future__ import annotations

import types
import weakref
from collections import deque
from functools import partial
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from botocore.config import Config

from asyncauth._clients.class_copy import copy_class
from asyncauth._clients.config import config_key, freeze, options_of
from asyncauth._clients.hooks.reachability import _MAX_OBJECTS, find_reachable

pytestmark = pytest.mark.botocore


class Thing:
    """Something with attributes."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def method(self, **_: Any) -> None:
        return None


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def in_closure(held: Any) -> Any:
    return lambda **_: held


def in_default(held: Any) -> Any:
    def handler(given: Any = held, **_: Any) -> Any:
        return given

    return handler


def in_keyword_default(held: Any) -> Any:
    def handler(*, given: Any = held, **_: Any) -> Any:
        return given

    return handler


@pytest.mark.parametrize(
    "wrap",
    [
        lambda held: held,
        lambda held: [held],
        lambda held: {"key": (held,)},
        lambda held: {held: 1},
        lambda held: deque([frozenset([held])]),
        lambda held: types.MappingProxyType({"key": held}),
        lambda held: Thing(held=held),
        lambda held: Thing(held=held).method,
        lambda held: held.method,
        lambda held: [held].append,
        lambda held: staticmethod(in_closure(held)),
        lambda held: partial(print, held),
        lambda held: partial(print, sep=held),
        lambda held: weakref.proxy(held),
        lambda held: Thing(held=weakref.ref(held)),
        Slotted,
        in_closure,
        in_default,
        in_keyword_default,
    ],
)
def test_what_holds_a_thing_leads_to_it(wrap: Any) -> None:
    """Attributes, containers, methods, closures, defaults, partials and weak references are all followed."""
    target, other = Thing(), Thing()

    assert find_reachable([wrap(target)], [target]) is target
    assert find_reachable([wrap(other)], [target]) is None


def test_a_dead_weak_reference_leads_nowhere() -> None:
    """What is gone cannot be reached."""
    gone = Thing()
    starts = [weakref.proxy(gone), weakref.ref(gone)]
    del gone

    assert find_reachable(starts, [Thing()]) is None


def test_circles_end() -> None:
    """Things that hold each other are looked at once."""
    one, other = Thing(), Thing()
    one.other, other.one = other, one  # type: ignore[attr-defined]

    assert find_reachable([one], [Thing()]) is None


def test_too_much_to_look_at_counts_as_reached() -> None:
    """Who cannot be shown to be free of a target is not."""
    target = Thing()

    assert find_reachable([[Thing() for _ in range(_MAX_OBJECTS)]], [target]) is target


def test_a_template_shares_all_but_what_is_own() -> None:
    """A copy sees the original's attributes, functions included, has its class's methods, and lacks its own ones."""
    original = Thing(shared=[1], call=len, own="secret")
    copies = copy_class(original, own={"own"}, shared={"shared", "call"}, extra={"more": 2})
    made: Any = object.__new__(copies)

    assert isinstance(made, Thing)
    assert copies.__name__ == "Thing"
    assert made.shared is original.shared  # type: ignore[attr-defined]
    assert made.call("abc") == 3
    assert made.more == 2
    assert not hasattr(made, "own")
    assert vars(made) == {}


def test_a_template_refuses_what_it_does_not_know() -> None:
    """An attribute that is neither own nor shared is named."""
    with pytest.raises(ValueError, match=r"Thing has unknown state: new, newer"):
        copy_class(Thing(a=1, newer=3, new=2), own={"a"}, shared=set())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (AioConfig(), Config(), True),
        (AioConfig(read_timeout=1), Config(read_timeout=1), True),
        (AioConfig(read_timeout=1), Config(read_timeout=2), False),
        (AioConfig(s3={"addressing_style": "path"}), AioConfig(s3={"addressing_style": "path"}), True),
        (AioConfig(s3={"addressing_style": "path"}), AioConfig(s3={"addressing_style": "virtual"}), False),
        (AioConfig(connector_args={"force_close": True}), AioConfig(connector_args={"force_close": True}), True),
        (AioConfig(connector_args={"force_close": True}), AioConfig(), False),
        (
            AioConfig(warm_up_loader_caches=True) if hasattr(AioConfig(), "warm_up_loader_caches") else Config(),
            Config(),
            True,
        ),
    ],
)
def test_configs_are_compared_by_what_they_say(one: Config, other: Config, same: bool) -> None:
    """Equal options give equal keys, whichever class and order they came in."""
    assert (config_key(one) == config_key(other)) is same


def test_what_has_no_hash_is_compared_by_identity() -> None:
    """A value that cannot be hashed tells configs apart by which object it is."""

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

    one, other = Unhashable(), Unhashable()

    assert freeze([one]) == freeze([one])
    assert freeze([one]) != freeze([other])
    assert hash(freeze({"a": {1, 2}, "b": one})) == hash(freeze({"b": one, "a": {2, 1}}))


def test_options_are_those_that_were_given() -> None:
    """What a config leaves at its default is not an option, so another config's can come through."""
    assert options_of(None) == {}
    assert options_of(AioConfig(read_timeout=5)) == {"read_timeout": 5}
