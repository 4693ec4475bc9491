"""Cores: what all accounts' clients of one service, region and configuration share, and how one is bound.

A core is a client that botocore built, signing as nobody. Binding an identity to it copies six small objects: client,
meta, events, signer, endpoint, endpoint rules. All else stays where it is, as attributes of classes made for the core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import proxy, ref

from botocore.regions import EndpointResolverBuiltins

from asyncauth._clients._calls import CallHook, Leases, LentClient
from asyncauth._clients._emitter import BoundEvents, Plans
from asyncauth._clients._endpoints import EndpointMemory, MemoEndpoints
from asyncauth._clients._identity import NOBODY, BoundCredentials, Identity, Life
from asyncauth._clients._reach import reached
from asyncauth._clients._requests import QuickRequests
from asyncauth._clients._retries import RetryState
from asyncauth._clients._rules import Found, examine, handlers_of
from asyncauth._clients._signing import QuickSigning
from asyncauth._clients._template import template
from asyncauth._clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncauth._clients._building import CoreSession
    from asyncauth._clients._http import Connections
    from asyncauth._clients._retries import RetryStates

#: The attributes of botocore's objects, by whose they are. One that is in no set makes clients of that kind isolated.
_CLIENT_SHARED: Final = {
    "_cache",
    "_client_config",
    "_exceptions",
    "_exceptions_factory",
    "_loader",
    "_response_parser",
    "_serializer",
    "_user_agent_creator",
}
_CLIENT_OWN: Final = {"_endpoint", "_request_signer", "_ruleset_resolver", "meta"}
_META_SHARED: Final = {
    "_client_config",
    "_endpoint_url",
    "_method_to_api_mapping",
    "_partition",
    "_service_model",
}
_SIGNER_SHARED: Final = {"_auth_token", "_region_name", "_service_id", "_signature_version", "_signing_name"}
_ENDPOINT_SHARED: Final = {"_endpoint_prefix", "_lock", "_response_parser_factory", "host", "http_session"}
_RESOLVER_SHARED: Final = {
    "_auth_scheme_preference",
    "_builtins",
    "_client_context",
    "_instance_cache",
    "_param_definitions",
    "_provider",
    "_requested_auth_scheme",
    "_service_model",
    "_use_ssl",
}


class Core:
    """A client that botocore built, taken apart so that identities can be bound to it.

    Args:
        client: straight from `CoreSession.build`; it belongs to the core from now on.
        session: the session that built it.
        place: service, region and endpoint: where an account's retries are remembered.
        connections: the factory's.
        states: the factory's.
        life: the factory's.

    Attributes:
        unshared: why clients of this kind must be isolated; None: they can be bound.
        leases: how many bound clients are inside `async with`.
    """

    def __init__(
        self,
        client: Any,
        session: CoreSession,
        place: Hashable,
        *,
        connections: Connections,
        states: RetryStates,
        life: Life,
    ) -> None:
        self.leases = Leases()
        self._life = life
        self._unsigned = client._request_signer._credentials is None
        client._exceptions = client.exceptions
        found = examine(client, handlers_of(session.get_component("event_emitter")))
        self.unshared = found.unknown
        if self.unshared is None:
            try:
                self._take_apart(client, found, place, connections, states)
            except ValueError as error:
                self.unshared = str(error)
            else:
                self.unshared = self._leak(client, found)

    def bind(self, identity: Identity, call_hook: CallHook | None = None) -> Any:
        """Return a client that signs as `identity`."""
        new = object.__new__
        events = new(self._events_class)
        events.identity = identity
        meta = new(self._meta_class)
        meta.events = events
        credentials = None if self._unsigned else BoundCredentials(identity, self._life)
        events.signer = signer = new(self._signer_class)
        signer._credentials = credentials
        # As in botocore: the events hold the signer, so the signer must not hold the events.
        signer._event_emitter = proxy(events)
        endpoint = new(self._endpoint_class)
        endpoint._event_emitter = events
        client = new(self.client_class)
        client.meta = meta
        client._request_signer = signer
        client._endpoint = endpoint
        client._identity = identity
        if self._resolver_class is None:
            client._ruleset_resolver = None
        else:
            client._ruleset_resolver = resolver = new(self._resolver_class)
            resolver._event_emitter = events
            resolver._credentials = credentials
        if call_hook is not None:
            client._call_hook = call_hook
        events._client = ref(client)
        return client

    def _take_apart(
        self, client: Any, found: Found, place: Hashable, connections: Connections, states: RetryStates
    ) -> None:
        client._endpoint.http_session = connections.adopt(client._endpoint.http_session)
        self._plans = Plans(client.meta.events, found.slots)
        self._events_class: type[Any] = type(
            "EventAliaser",
            (BoundEvents,),
            {
                "_plans": self._plans,
                "_known": self._plans.known,
                "_retry_states": states,
                "_retry_key": place,
            },
        )
        self._meta_class = template(client.meta, own={"events"}, shared=_META_SHARED)
        self._signer_class = template(
            client._request_signer, own={"_credentials", "_event_emitter"}, shared=_SIGNER_SHARED, mixin=QuickSigning
        )
        self._endpoint_class = template(
            client._endpoint, own={"_event_emitter"}, shared=_ENDPOINT_SHARED, mixin=QuickRequests
        )
        self._resolver_class = _resolver_class(client._ruleset_resolver)
        self.client_class = template(
            client,
            own=_CLIENT_OWN,
            shared=_CLIENT_SHARED,
            extra={"_life": self._life, "_leases": self.leases},
            mixin=LentClient,
        )

    def _leak(self, client: Any, found: Found) -> str | None:
        """Return how a binding would lead back to the core's own identity, if it would: the rule's second net."""
        probe = self.bind(_Nobody())
        probe.meta.events._retry_state = RetryState(SYSTEM_CLOCK)
        classes = (
            self._meta_class,
            self._signer_class,
            self._endpoint_class,
            self._resolver_class,
            self.client_class,
        )
        shared = [vars(cls) for cls in classes if cls is not None]
        made = [slot.fill(probe.meta.events) for slot in found.slots.values()]
        starts = [vars(probe), *shared, *found.shared, *made]
        targets = [client, client.meta, client._request_signer, client._endpoint, NOBODY, *found.replaced]
        target = reached(starts, targets)
        return None if target is None else f"a bound client would lead to the core's own {type(target).__qualname__}"


def _resolver_class(resolver: Any) -> type[Any] | None:
    if resolver is None:
        return None
    extra: dict[str, Any] = {"remembered": EndpointMemory(resolver)}
    own = {"_event_emitter"}
    builtins = resolver._builtins
    if builtins.get(EndpointResolverBuiltins.ACCOUNT_ID) is not None:
        own.add("_builtins")
        rest = {name: value for name, value in builtins.items() if name != EndpointResolverBuiltins.ACCOUNT_ID}

        def with_account_id(self: Any) -> dict[str, Any]:
            # Made anew at each call, where botocore copies it anyway, so that a binding needs no dictionary.
            return rest | {EndpointResolverBuiltins.ACCOUNT_ID: self._credentials.get_account_id}

        extra["_builtins"] = property(with_account_id)
    return template(resolver, own=own, shared=_RESOLVER_SHARED, extra=extra, mixin=MemoEndpoints)


class _Nobody:
    """The identity of a probe."""

    key: Hashable = "nobody"
    account_id: str | None = None

    async def get_frozen_credentials(self) -> Any:
        raise RuntimeError("nobody signs")

    def reject(self, _: str, /, *, doubtful: bool = False) -> bool:
        return False
