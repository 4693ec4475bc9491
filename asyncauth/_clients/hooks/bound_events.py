"""Events of a bound client: the core's handlers until somebody registers one, then a private copy.

A core works out once, per event name, which handlers are called; all its clients emit along that plan. In it, handlers
that carry an identity (the signer, the retry quota ...) are slots, filled with the client's own when they are called.
"""

from __future__ import annotations

import copy
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from botocore.hooks import EventAliaser, NodeList
from botocore.hooks import logger as _hooks_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from asyncauth._clients.retry_state import RetryState, RetryStates

_DEBUG: Final = 10


class Owner(Protocol):
    """Makes, for one binding, the object that stands for a core's object whose methods are handlers."""

    def of(self, binding: Binding) -> Any:
        """Return this binding's object."""
        ...


class Binding(Protocol):
    """What an owner needs to know of the client that it makes something for."""

    made: dict[Owner, Any] | None

    @property
    def signer(self) -> Any:
        """The client's signer."""
        ...

    @property
    def client(self) -> Any:
        """The client itself."""
        ...

    def retry_state(self) -> RetryState:
        """Return what the account's clients of this service and region remember of its retries."""
        ...

    def known_retry_state(self) -> RetryState | None:
        """Return the same if there is something to remember yet."""
        ...


class HandlerSlot:
    """A place in a plan that each binding fills with a handler of its own.

    Args:
        owner: makes the object.
        method: the name of the handler on it; None: the object is the handler.
        idle: whether the handler can be left out, because there is nothing yet that it could change.
    """

    __slots__ = ("_idle", "_method", "_owner")

    def __init__(self, owner: Owner, method: str | None, idle: Callable[[Binding], bool] | None = None) -> None:
        self._owner = owner
        self._method = method
        self._idle = idle

    def fill(self, binding: Binding) -> Any:
        """Return the binding's handler."""
        made = self._owner.of(binding)
        return made if self._method is None else getattr(made, self._method)

    def due(self, binding: Binding) -> Any:
        """Return the binding's handler, or None when calling it could not matter."""
        if self._idle is not None and self._idle(binding):
            return None
        return self.fill(binding)


class EventPlans:
    """The handlers of a core, per event name, in the order in which botocore calls them.

    Args:
        events: the core client's own events; not changed, and not used by anyone else from now on.
        slots: the slots, by the id of the handler that each stands for.
    """

    def __init__(self, events: EventAliaser, slots: Mapping[int, HandlerSlot]) -> None:
        self.events = events
        self._slots = slots
        #: By the event's name as emitted: its name without aliases, and what is called.
        self.known: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def find(self, event_name: str) -> tuple[str, tuple[Any, ...]]:
        """Work out the plan of an event."""
        name = self.events._alias_event_name(event_name)
        handlers = self.events._emitter._handlers.prefix_search(name)
        plan = self.known[event_name] = (name, tuple(self._slots.get(id(handler), handler) for handler in handlers))
        return plan

    def private_copy(self, binding: Binding) -> EventAliaser:
        """Return events of botocore's own kind, with the binding's handlers in the places of the core's."""
        events = copy.copy(self.events)

        def filled(handler: Any) -> Any:
            slot = self._slots.get(id(handler))
            return handler if slot is None else slot.fill(binding)

        replace_handlers(events._emitter, filled)
        return events


def replace_handlers(emitter: Any, replacement: Callable[[Any], Any]) -> None:
    """Put `replacement(handler)` in the place of each handler of an emitter that nobody else uses."""
    for values in node_lists(emitter):
        for section in values:
            section[:] = map(replacement, section)
    # A copied emitter still shares its entries, which are counters too, and its cache with the original.
    emitter._unique_id_handlers = {
        name: entry | {"handler": replacement(entry["handler"])} for name, entry in emitter._unique_id_handlers.items()
    }
    emitter._lookup_cache = {}


def node_lists(emitter: Any) -> Iterator[NodeList]:
    """Give every list of handlers in an emitter."""
    stack = [emitter._handlers._root]
    while stack:
        node = stack.pop()
        stack.extend(node["children"].values())
        if node["values"]:
            yield node["values"]


class BoundEvents(EventAliaser):
    """The `client.meta.events` of a bound client.

    A subclass per core has the core's `EventPlans` and the key of its retries as class attributes.
    """

    _plans: EventPlans
    _known: dict[str, tuple[str, tuple[Any, ...]]]
    _retry_states: RetryStates
    _retry_key: Hashable
    identity: Any
    signer: Any
    made: dict[Owner, Any] | None = None
    _client: ref[Any]
    _private: EventAliaser | None = None
    _retry_state: RetryState | None = None

    def __init__(self, *_: Any) -> None:
        raise TypeError("a core binds events; copy.copy gives plain ones")

    # -- emitting ------------------------------------------------------------------------------------------------

    def emit(self, event_name: str, **kwargs: Any) -> Any:
        """Call the handlers of an event; the awaited result is a list of (handler, its response)."""
        if self._private is not None:
            return self._private.emit(event_name, **kwargs)
        return self._call(event_name, kwargs)

    async def emit_until_response(self, event_name: str, **kwargs: Any) -> Any:
        """Call the handlers of an event up to the first that responds; return it and its response, or two Nones."""
        if self._private is not None:
            return await self._private.emit_until_response(event_name, **kwargs)
        responses = await self._call(event_name, kwargs, stop_on_response=True)
        return responses[-1] if responses else (None, None)

    async def _call(
        self, event_name: str, kwargs: dict[str, Any], stop_on_response: bool = False
    ) -> list[tuple[Any, Any]]:
        name, handlers = self._known.get(event_name) or self._plans.find(event_name)
        responses: list[tuple[Any, Any]] = []
        if not handlers:
            return responses
        kwargs["event_name"] = name
        debug = _hooks_logger.isEnabledFor(_DEBUG)
        for planned in handlers:
            handler = planned.due(self) if type(planned) is HandlerSlot else planned
            if handler is None:
                continue
            if debug:
                _hooks_logger.debug("Event %s: calling handler %s", event_name, handler)
            response = handler(**kwargs)
            if response is not None and isawaitable(response):
                response = await response
            responses.append((handler, response))
            if stop_on_response and response is not None:
                break
        return responses

    # -- registering ---------------------------------------------------------------------------------------------

    @property
    def _emitter(self) -> Any:
        # Every way to change the handlers goes through this, the four that EventAliaser inherits to us included.
        if self._private is None:
            self._private = self._plans.private_copy(self)
        return self._private._emitter

    @property
    def _event_aliases(self) -> Any:
        return self._plans.events._event_aliases

    @property
    def _alias_name_cache(self) -> Any:
        return self._plans.events._alias_name_cache

    def __copy__(self) -> EventAliaser:
        if self._private is not None:
            return copy.copy(self._private)
        return self._plans.private_copy(self)

    # -- what the owners of slots ask ----------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """The client whose events these are."""
        return self._client()

    def retry_state(self) -> RetryState:
        """Return what the account's clients of this service and region remember of its retries."""
        state = self._retry_state
        if state is None:
            state = self._retry_state = self._retry_states.get((self.identity.key, self._retry_key))
        return state

    def known_retry_state(self) -> RetryState | None:
        """Return the same if there is something to remember yet."""
        return self._retry_state or self._retry_states.peek((self.identity.key, self._retry_key))
