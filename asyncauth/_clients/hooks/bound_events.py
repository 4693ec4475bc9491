"""Events of a bound client: the template's handlers until the user registers one, then a private copy.

A template determines once per event name which handlers are called, and all its clients emit by that plan. Handlers
that depend on the identity (the signer, the retry quota) are slots in the plan; a client fills a slot when it calls it.
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


class HandlerProvider(Protocol):
    """Provides, for one binding, the object that replaces a template's object whose methods are handlers."""

    def provide(self, binding: Binding) -> Any:
        """Return the object of this binding."""
        ...


class Binding(Protocol):
    """The client for which a provider makes an object."""

    made: dict[HandlerProvider, Any] | None

    @property
    def signer(self) -> Any:
        """The client's signer."""
        ...

    @property
    def client(self) -> Any:
        """The client itself."""
        ...

    def retry_state(self) -> RetryState:
        """Return the retry state that the account's clients of this service and region share."""
        ...

    def known_retry_state(self) -> RetryState | None:
        """Return that state if it exists already, else None."""
        ...


class HandlerSlot:
    """Place in a plan that each binding fills with a handler of its own.

    Args:
        provider: provides the object.
        method: name of the handler on that object; None if the object is the handler.
        idle: returns whether the handler can be skipped because it would change nothing; None if it never can.
    """

    __slots__ = ("_idle", "_method", "_provider")

    def __init__(
        self, provider: HandlerProvider, method: str | None, idle: Callable[[Binding], bool] | None = None
    ) -> None:
        self._provider = provider
        self._method = method
        self._idle = idle

    def fill(self, binding: Binding) -> Any:
        """Return the binding's handler."""
        made = self._provider.provide(binding)
        return made if self._method is None else getattr(made, self._method)

    def fill_if_needed(self, binding: Binding) -> Any:
        """Return the binding's handler, or None if calling it would have no effect."""
        if self._idle is not None and self._idle(binding):
            return None
        return self.fill(binding)


class EventPlans:
    """Handlers of a template per event name, in botocore's order of calls.

    Args:
        events: events of the template's client; the plans own them from now on and do not change them.
        slots: the slots, by the id of the handler that each replaces.
    """

    def __init__(self, events: EventAliaser, slots: Mapping[int, HandlerSlot]) -> None:
        self.events = events
        self._slots = slots
        #: By event name as emitted: the name with aliases resolved, and the handlers to call.
        self.known: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def find(self, event_name: str) -> tuple[str, tuple[Any, ...]]:
        """Make the plan of an event."""
        name = self.events._alias_event_name(event_name)
        handlers = self.events._emitter._handlers.prefix_search(name)
        plan = self.known[event_name] = (name, tuple(self._slots.get(id(handler), handler) for handler in handlers))
        return plan

    def private_copy(self, binding: Binding) -> EventAliaser:
        """Return events of botocore's own class, with the binding's handlers in the places of the template's."""
        events = copy.copy(self.events)

        def filled(handler: Any) -> Any:
            slot = self._slots.get(id(handler))
            return handler if slot is None else slot.fill(binding)

        replace_handlers(events._emitter, filled)
        return events


def replace_handlers(emitter: Any, replacement: Callable[[Any], Any]) -> None:
    """Replace each handler of an emitter, which must not be shared, by `replacement(handler)`."""
    for values in node_lists(emitter):
        for section in values:
            section[:] = map(replacement, section)
    # A copied emitter still shares its entries, which are also counters, and its cache with the original.
    emitter._unique_id_handlers = {
        name: entry | {"handler": replacement(entry["handler"])} for name, entry in emitter._unique_id_handlers.items()
    }
    emitter._lookup_cache = {}


def node_lists(emitter: Any) -> Iterator[NodeList]:
    """Yield every list of handlers in an emitter."""
    stack = [emitter._handlers._root]
    while stack:
        node = stack.pop()
        stack.extend(node["children"].values())
        if node["values"]:
            yield node["values"]


class BoundEvents(EventAliaser):
    """The `client.meta.events` of a bound client.

    Each template has a subclass with its `EventPlans` and its retry scope as class attributes.
    """

    _plans: EventPlans
    _known: dict[str, tuple[str, tuple[Any, ...]]]
    _retry_states: RetryStates
    _retry_key: Hashable
    identity: Any
    signer: Any
    made: dict[HandlerProvider, Any] | None = None
    _client: ref[Any]
    _private: EventAliaser | None = None
    _retry_state: RetryState | None = None

    def __init__(self, *_: Any) -> None:
        raise TypeError("a client template makes bound events; copy.copy returns plain ones")

    # -- emitting ------------------------------------------------------------------------------------------------

    def emit(self, event_name: str, **kwargs: Any) -> Any:
        """Call the handlers of an event; awaiting the result returns a list of (handler, response)."""
        if self._private is not None:
            return self._private.emit(event_name, **kwargs)
        return self._call(event_name, kwargs)

    async def emit_until_response(self, event_name: str, **kwargs: Any) -> Any:
        """Call the handlers of an event until one responds; return that handler and its response, or (None, None)."""
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
            handler = planned.fill_if_needed(self) if type(planned) is HandlerSlot else planned
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
        # Every change of the handlers goes through this attribute, also in the four methods inherited from
        # EventAliaser.
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

    # -- interface for handler providers ----------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """The client that has these events."""
        return self._client()

    def retry_state(self) -> RetryState:
        """Return the retry state that the account's clients of this service and region share."""
        state = self._retry_state
        if state is None:
            state = self._retry_state = self._retry_states.get((self.identity.key, self._retry_key))
        return state

    def known_retry_state(self) -> RetryState | None:
        """Return that state if it exists already, else None."""
        return self._retry_state or self._retry_states.peek((self.identity.key, self._retry_key))
