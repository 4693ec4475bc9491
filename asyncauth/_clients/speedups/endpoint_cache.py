"""Cache of endpoints: resolved once per operation and configuration, not once per call.

botocore caches the endpoint by its parameters, and computes the parameters again for every call although most
operations have none of their own. For those operations this cache maps the client's builtins, as the handlers of the
call left them, to the endpoint. So a handler that changes a builtin still has its effect.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.regions import AioEndpointRulesetResolver as _Resolver

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["CachedEndpoints", "EndpointCache"]

_MAX_ENDPOINTS: Final = 2048
_log: Final = logging.getLogger("aiobotocore.regions")


class CachedEndpoints:
    """Mixin for a ruleset resolver, before aiobotocore's class in the bases.

    Attributes:
        cache: shared by all resolvers that differ only in identity and events. None until the first call for a
            resolver that shares none.
    """

    cache: EndpointCache | None = None

    async def construct_endpoint(
        self, operation_model: Any, call_args: dict[str, Any] | None, request_context: dict[str, Any] | None
    ) -> Any:
        """Return the endpoint of a call."""
        resolver: Any = self
        builtins = await resolver._get_customized_builtins(operation_model, call_args or {}, request_context or {})
        cache = self.cache
        if cache is None:
            cache = self.cache = EndpointCache(resolver)
        key = cache.key(operation_model, builtins)
        cached = cache.endpoints.get(key)
        if cached is not None and not _log.isEnabledFor(logging.DEBUG):
            params, endpoint = cached
            for name, value in params.items():  # the features of the endpoint belong to each call's user-agent
                resolver._register_endpoint_feature_ids(name, value)
            return endpoint._replace(headers=dict(endpoint.headers)) if endpoint.headers else endpoint
        call_resolver: Any = _CallResolver(resolver, builtins)
        # With the builtins passed in, so that the handlers are not called a second time.
        endpoint = await _Resolver.construct_endpoint(call_resolver, operation_model, call_args, request_context)
        if key is not None:
            cache.add(key, call_resolver.params, endpoint)
        return endpoint


class EndpointCache:
    """Endpoints of one service in one configuration.

    Args:
        resolver: one of the resolvers that share the cache.

    Attributes:
        endpoints: an operation and its builtins -> the parameters of its endpoint, and the endpoint.
    """

    def __init__(self, resolver: Any) -> None:
        self.endpoints: dict[Hashable, tuple[dict[str, Any], Any]] = {}
        definitions = resolver._param_definitions.values()
        self._builtins = tuple(sorted({definition.builtin for definition in definitions if definition.builtin}))

    def key(self, operation_model: Any, builtins: dict[str, Any]) -> Hashable:
        """Return the key of an endpoint; None if it depends on the call's arguments or on the identity."""
        if operation_model.context_parameters or operation_model.operation_context_parameters:
            return None
        values = tuple(map(builtins.get, self._builtins))
        for value in values:
            if value is not None and not isinstance(value, str | bool):
                return None
        return (operation_model.name, values)

    def add(self, key: Hashable, params: dict[str, Any], endpoint: Any) -> None:
        """Store the endpoint of an operation."""
        if len(self.endpoints) >= _MAX_ENDPOINTS:
            self.endpoints.clear()
        self.endpoints[key] = (params, endpoint)


class _CallResolver:
    """A resolver with the builtins of one call; it records the parameters computed from them."""

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
        this: Any = self
        self.params = await _Resolver._get_provider_params(this, *arguments)
        return self.params
