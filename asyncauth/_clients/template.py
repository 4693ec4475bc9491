"""Client templates: the parts that all accounts' clients of one service, region and configuration share.

A template holds a client that botocore built with placeholder credentials. Binding an identity to it copies six small
objects: client, meta, events, signer, endpoint, endpoint rules. All other state stays in the template, as attributes of
classes made for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import proxy, ref

from botocore.regions import EndpointResolverBuiltins

from asyncauth._clients.bound_client import BoundClient, CallHook, LeaseCount
from asyncauth._clients.class_copy import copy_class
from asyncauth._clients.hooks.bound_events import BoundEvents, EventPlans
from asyncauth._clients.hooks.handler_rules import HandlerAudit, classify_handlers, handlers_of
from asyncauth._clients.hooks.reachability import find_reachable
from asyncauth._clients.identity import BoundCredentials, FactoryState
from asyncauth._clients.retry_state import RetryState
from asyncauth._clients.speedups.sigv4 import FastSigning
from asyncauth._clients.switches import SWITCHES
from asyncauth._models import Identity
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Hashable

    from asyncauth._clients.builder import TemplateSession
    from asyncauth._clients.http import Connections
    from asyncauth._clients.retry_state import RetryStates

#: The attributes of botocore's objects, shared or per client. An attribute in no set makes such clients isolated.
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


class ClientTemplate:
    """A client that botocore built, split so that identities can be bound to it.

    Args:
        client: the result of `TemplateSession.build`; the template owns it from now on.
        session: the session that built it.
        retry_scope: service, region and endpoint, in which an account's retries are counted.
        connections: the factory's HTTP sessions.
        states: the factory's retry states.
        state: whether the factory can be used.

    Attributes:
        unshared: why clients of this kind must be isolated; None if they can be bound.
        leases: counts the bound clients that are inside `async with`.
    """

    def __init__(
        self,
        client: Any,
        session: TemplateSession,
        retry_scope: Hashable,
        *,
        connections: Connections,
        states: RetryStates,
        state: FactoryState,
    ) -> None:
        self.leases = LeaseCount()
        self._factory_state = state
        self._unsigned = client._request_signer._credentials is None
        client._exceptions = client.exceptions
        audit = classify_handlers(client, handlers_of(session.get_component("event_emitter")))
        self.unshared = audit.unknown
        if self.unshared is None:
            try:
                self._make_classes(client, audit, retry_scope, connections, states)
            except ValueError as error:
                self.unshared = str(error)
            else:
                self.unshared = self._find_leak(client, audit)

    def bind(self, identity: Identity, call_hook: CallHook | None = None) -> Any:
        """Return a client that signs as `identity`."""
        new = object.__new__
        events = new(self._events_class)
        events.identity = identity
        meta = new(self._meta_class)
        meta.events = events
        credentials = None if self._unsigned else BoundCredentials(identity, self._factory_state)
        events.signer = signer = new(self._signer_class)
        signer._credentials = credentials
        # As in botocore: the events refer to the signer, so the signer must not refer to the events.
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

    def _make_classes(
        self, client: Any, audit: HandlerAudit, retry_scope: Hashable, connections: Connections, states: RetryStates
    ) -> None:
        client._endpoint.http_session = connections.adopt(client._endpoint.http_session)
        self._plans = EventPlans(client.meta.events, audit.slots)
        self._events_class: type[Any] = type(
            "EventAliaser",
            (BoundEvents,),
            {
                "_plans": self._plans,
                "_known": self._plans.known,
                "_retry_states": states,
                "_retry_key": retry_scope,
            },
        )
        self._meta_class = copy_class(client.meta, own={"events"}, shared=_META_SHARED)
        self._signer_class = copy_class(
            client._request_signer,
            own={"_credentials", "_event_emitter"},
            shared=_SIGNER_SHARED,
            mixin=FastSigning if SWITCHES.signatures else None,
        )
        self._endpoint_class = copy_class(client._endpoint, own={"_event_emitter"}, shared=_ENDPOINT_SHARED)
        self._resolver_class = _resolver_class(client._ruleset_resolver)
        self.client_class = copy_class(
            client,
            own=_CLIENT_OWN,
            shared=_CLIENT_SHARED,
            extra={"_factory_state": self._factory_state, "_leases": self.leases},
            mixin=BoundClient,
        )

    def _find_leak(self, client: Any, audit: HandlerAudit) -> str | None:
        """Return how a bound client leads to the template's own credentials, None if it does not.

        It runs in production because a program registers handlers of its own, and botocore's next release has others.
        """
        probe = self.bind(_ProbeIdentity())
        probe.meta.events._retry_state = RetryState(SYSTEM_CLOCK)
        classes = (
            self._meta_class,
            self._signer_class,
            self._endpoint_class,
            self._resolver_class,
            self.client_class,
        )
        shared = [vars(cls) for cls in classes if cls is not None]
        made = [slot.fill(probe.meta.events) for slot in audit.slots.values()]
        starts = [vars(probe), *shared, *audit.shared, *made]
        targets = [
            client,
            client.meta,
            client._request_signer,
            client._endpoint,
            *audit.replaced,
        ]
        if not self._unsigned:
            targets.append(client._request_signer._credentials)
        target = find_reachable(starts, targets)
        return None if target is None else f"a bound client leads to the template's own {type(target).__qualname__}"


def _resolver_class(resolver: Any) -> type[Any] | None:
    if resolver is None:
        return None
    extra: dict[str, Any] = {}
    own = {"_event_emitter"}
    builtins = resolver._builtins
    if builtins.get(EndpointResolverBuiltins.ACCOUNT_ID) is not None:
        own.add("_builtins")
        rest = {name: value for name, value in builtins.items() if name != EndpointResolverBuiltins.ACCOUNT_ID}

        def with_account_id(self: Any) -> dict[str, Any]:
            # Made at each call, where botocore copies the dictionary anyway, so that a bound client needs none.
            return rest | {EndpointResolverBuiltins.ACCOUNT_ID: self._credentials.get_account_id}

        extra["_builtins"] = property(with_account_id)
    return copy_class(resolver, own=own, shared=_RESOLVER_SHARED, extra=extra)


class _ProbeIdentity:
    """Identity of the client that `_find_leak` examines; it never signs."""

    key: Hashable = "probe"
    account_id: str | None = None

    async def get_frozen_credentials(self) -> Any:
        raise RuntimeError("the identity of an examined client never signs")

    def peek(self) -> None:
        return None

    def peek_fresh(self) -> None:
        return None

    def get_account_id(self) -> None:
        return None

    def reject(self, _: str, /, *, ambiguous: bool = False) -> bool:
        return False
