"""Endpoints resolved once for each operation and configuration, not once per call.

botocore remembers which endpoint follows from which parameters, and works out the parameters anew for every call
although most operations have none of their own. Here the endpoint of such an operation is remembered, by what its
client's builtins are after the handlers of the call have seen them; so a handler that changes one is still heard.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.regions import AioEndpointRulesetResolver as _Resolver

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["CachedEndpoints", "EndpointCache"]

_MAX_REMEMBERED: Final = 2048
_log: Final = logging.getLogger("aiobotocore.regions")


class CachedEndpoints:
    """A base for a ruleset resolver, to go before aiobotocore's.

    Attributes:
        remembered: shared by all resolvers that differ in nothing but identity and events. A resolver that has none
            gets one of its own.
    """

    remembered: EndpointCache | None = None

    async def construct_endpoint(
        self, operation_model: Any, call_args: dict[str, Any] | None, request_context: dict[str, Any] | None
    ) -> Any:
        """Return the endpoint of a call."""
        resolver: Any = self
        builtins = await resolver._get_customized_builtins(operation_model, call_args or {}, request_context or {})
        memory = self.remembered
        if memory is None:
            memory = self.remembered = EndpointCache(resolver)
        key = memory.key(operation_model, builtins)
        known = memory.endpoints.get(key)
        if known is not None and not _log.isEnabledFor(logging.DEBUG):
            params, endpoint = known
            for name, value in params.items():  # the features of the endpoint belong to each call's user-agent
                resolver._register_endpoint_feature_ids(name, value)
            return endpoint._replace(headers=dict(endpoint.headers)) if endpoint.headers else endpoint
        resolving: Any = _Resolving(resolver, builtins)
        # Asked as functions, so that the builtins are these and the handlers are not called a second time.
        endpoint = await _Resolver.construct_endpoint(resolving, operation_model, call_args, request_context)
        if key is not None:
            memory.add(key, resolving.params, endpoint)
        return endpoint


class EndpointCache:
    """What is known of the endpoints of one service in one configuration.

    Args:
        resolver: one of those that share it.

    Attributes:
        endpoints: an operation and its builtins -> the parameters of its endpoint, and the endpoint.
    """

    def __init__(self, resolver: Any) -> None:
        self.endpoints: dict[Hashable, tuple[dict[str, Any], Any]] = {}
        definitions = resolver._param_definitions.values()
        self._builtins = tuple(sorted({definition.builtin for definition in definitions if definition.builtin}))

    def key(self, operation_model: Any, builtins: dict[str, Any]) -> Hashable:
        """Return what the endpoint follows from; None where the call's arguments or its identity come into it."""
        if operation_model.context_parameters or operation_model.operation_context_parameters:
            return None
        values = tuple(map(builtins.get, self._builtins))
        for value in values:
            if value is not None and not isinstance(value, str | bool):
                return None
        return (operation_model.name, values)

    def add(self, key: Hashable, params: dict[str, Any], endpoint: Any) -> None:
        """Remember the endpoint of an operation."""
        if len(self.endpoints) >= _MAX_REMEMBERED:
            self.endpoints.clear()
        self.endpoints[key] = (params, endpoint)


class _Resolving:
    """A resolver whose builtins for a call are settled; it keeps the parameters that follow from them."""

    __slots__ = ("_builtins_of_call", "_resolver", "params")

    def __init__(self, resolver: Any, builtins: dict[str, Any]) -> None:
        self._resolver = resolver
        self._builtins_of_call = builtins
        self.params: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)

    async def _get_customized_builtins(self, *_: Any) -> dict[str, Any]:
        return self._builtins_of_call

    async def _get_provider_params(self, *arguments: Any) -> dict[str, Any]:
        asked: Any = self
        self.params = await _Resolver._get_provider_params(asked, *arguments)
        return self.params
