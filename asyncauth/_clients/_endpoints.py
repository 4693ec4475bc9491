"""Endpoints resolved once for each operation and configuration, not once per call.

botocore remembers which endpoint follows from which parameters, and works out the parameters anew for every call
although most operations have none of their own. Here those of such an operation are remembered too, by what its
client's builtins are after the handlers of the call have seen them; so a handler that changes one is still heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiobotocore.regions import AioEndpointRulesetResolver

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["EndpointMemory", "MemoEndpoints"]

_MAX_REMEMBERED: Final = 2048


class MemoEndpoints:
    """A base for a ruleset resolver, to go before aiobotocore's.

    Attributes:
        remembered: shared by all resolvers that differ in nothing but identity and events. A resolver that has none
            gets one of its own.
    """

    remembered: EndpointMemory | None = None

    async def _get_provider_params(
        self, operation_model: Any, call_args: dict[str, Any], request_context: dict[str, Any]
    ) -> dict[str, Any]:
        resolver: Any = self
        builtins = await resolver._get_customized_builtins(operation_model, call_args, request_context)
        memory = self.remembered
        if memory is None:
            memory = self.remembered = EndpointMemory(resolver)
        key = memory.key(operation_model, builtins)
        known = None if key is None else memory.params.get(key)
        if known is None:
            given: Any = _WithBuiltins(resolver, builtins)
            # Asked as a function, so that the builtins are these and the handlers are not called a second time.
            params: dict[str, Any] = await AioEndpointRulesetResolver._get_provider_params(
                given, operation_model, call_args, request_context
            )
            if key is not None:
                memory.add(key, params)
            return params
        for name, value in known.items():  # the features of the endpoint belong to each call's user-agent
            resolver._register_endpoint_feature_ids(name, value)
        return dict(known)


class EndpointMemory:
    """What is known of the endpoints of one service in one configuration.

    Args:
        resolver: one of those that share it.

    Attributes:
        params: an operation and its builtins -> the parameters of its endpoint.
    """

    def __init__(self, resolver: Any) -> None:
        self.params: dict[Hashable, dict[str, Any]] = {}
        definitions = resolver._param_definitions.values()
        self._builtins = tuple(sorted({definition.builtin for definition in definitions if definition.builtin}))

    def key(self, operation_model: Any, builtins: dict[str, Any]) -> Hashable:
        """Return what the parameters follow from; None where the call's arguments or its identity come into it."""
        if operation_model.context_parameters or operation_model.operation_context_parameters:
            return None
        values = tuple(map(builtins.get, self._builtins))
        for value in values:
            if value is not None and not isinstance(value, str | bool):
                return None
        return (operation_model.name, values)

    def add(self, key: Hashable, params: dict[str, Any]) -> None:
        """Remember the parameters of an operation."""
        if len(self.params) >= _MAX_REMEMBERED:
            self.params.clear()
        self.params[key] = dict(params)


class _WithBuiltins:
    """A resolver whose builtins for a call are settled."""

    __slots__ = ("_builtins_of_call", "_resolver")

    def __init__(self, resolver: Any, builtins: dict[str, Any]) -> None:
        self._resolver = resolver
        self._builtins_of_call = builtins

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)

    async def _get_customized_builtins(self, *_: Any) -> dict[str, Any]:
        return self._builtins_of_call
