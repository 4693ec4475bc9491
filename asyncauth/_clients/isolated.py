"""Isolated clients: built for one account alone, for services whose client state cannot be separated by account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncauth._clients.bound_client import BoundClient
from asyncauth._clients.hooks.bound_events import replace_handlers
from asyncauth._clients.hooks.handler_rules import attach_retry_state

if TYPE_CHECKING:
    from asyncauth._clients.bound_client import CallHook, LeaseCount
    from asyncauth._clients.http import Connections
    from asyncauth._clients.identity import FactoryState
    from asyncauth._clients.retry_state import RetryState
    from asyncauth._models import Identity


def isolate(
    client: Any,
    identity: Identity,
    call_hook: CallHook | None,
    *,
    retry_state: RetryState,
    connections: Connections,
    state: FactoryState,
    leases: LeaseCount,
) -> Any:
    """Turn a client that was built for an identity into a client of a pool, and return it.

    It shares the connections with other clients, and the retry state with the account's other clients; the rest is its
    own.
    """
    client._endpoint.http_session = connections.adopt(client._endpoint.http_session)
    replaced = attach_retry_state(client, retry_state)
    replace_handlers(client.meta.events._emitter, lambda handler: replaced.get(id(handler), handler))
    kind = type(client)
    client.__class__ = type(
        kind.__name__, (BoundClient, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__}
    )
    client._identity = identity
    client._factory_state = state
    client._leases = leases
    client._call_hook = call_hook
    return client
