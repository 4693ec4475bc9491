"""Rules for event handlers: which of a client's handlers depend on the identity, and how a bound client gets its own.

The rules do not list services. A handler that client creation registers is known to hold nothing of an account, or
known and made anew for each binding, or unknown. A client with an unknown handler is not shared.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import proxy

import aiobotocore.retries.adaptive
import aiobotocore.retries.standard
import aiobotocore.retryhandler
import aiobotocore.utils
import anyio
import botocore.monitoring
import botocore.retries.standard
import botocore.useragent
import botocore.utils
from aiobotocore.client import AioClientCreator
from aiobotocore.signers import AioRequestSigner
from aiobotocore.utils import AioIdentityCache, AioS3ExpressIdentityCache

from asyncauth._clients.class_copy import copy_class
from asyncauth._clients.hooks.bound_events import Binding, HandlerProvider, HandlerSlot, node_lists
from asyncauth._clients.speedups.user_agent_cache import CachedUserAgent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncauth._clients.retry_state import RetryState


def _types(*names: tuple[Any, str]) -> frozenset[type]:
    """Return those of the named classes that exist in this botocore."""
    return frozenset(getattr(module, name) for module, name in names if hasattr(module, name))


#: Handlers whose objects hold only models, options or constants: all clients of a template share them.
_SHARED: Final = _types(
    (botocore.useragent, "UserAgentString"),  # rebuilds the user-agent header
    (botocore.utils, "S3ControlArnParamHandlerv2"),  # holds an ARN parser
    (botocore.retries.standard, "MaxAttemptsSeeder"),  # holds a number
    (aiobotocore.retryhandler, "AioRetryHandler"),  # legacy mode: stateless conditions
    (botocore.monitoring, "Monitor"),  # client-side monitoring: one per session in botocore too
) | {CachedUserAgent}

_RETRY_HANDLERS: Final = _types(
    (aiobotocore.retries.standard, "AioRetryHandler"), (aiobotocore.retries.standard, "AnyioRetryHandler")
)
_LIMITERS: Final = _types(
    (aiobotocore.retries.adaptive, "AsyncClientRateLimiter"),
    (aiobotocore.retries.adaptive, "AnyioClientRateLimiter"),
)
_REDIRECTORS: Final = _types((aiobotocore.utils, "AioS3RegionRedirectorv2"))
_EXPRESS: Final = _types(
    (aiobotocore.utils, "AioS3ExpressIdentityResolver"), (aiobotocore.utils, "AnyioS3ExpressIdentityResolver")
)


class _Signer:
    """The binding's signer, in the place of the template's."""

    def provide(self, binding: Binding) -> Any:
        return binding.signer


class _PerBinding:
    """An object that a binding makes at the first call of one of its handlers, and keeps."""

    def provide(self, binding: Binding) -> Any:
        made = binding.made
        if made is None:
            made = binding.made = {}
        if self not in made:
            made[self] = self.make(binding)
        return made[self]

    def make(self, binding: Binding) -> Any:
        raise NotImplementedError


class _QuotaChecker(_PerBinding):
    """botocore's quota checker with the account's quota."""

    def __init__(self, original: Any) -> None:
        self._class = copy_class(original, own={"_quota"}, shared={"_throttling_detector", "_last_amount_acquired"})

    def make(self, binding: Binding) -> Any:
        checker = object.__new__(self._class)
        checker._quota = binding.retry_state().need_quota()
        return checker

    @staticmethod
    def is_full(binding: Binding) -> bool:
        """Return whether the quota is full, so that there is nothing to release."""
        state = binding.known_retry_state()
        return state is None or state.quota is None


class _RetryHandler(_PerBinding):
    """botocore's handler of standard mode with the account's quota, which it looks up only when there is an error to
    retry."""

    def __init__(self, original: Any, checker: _QuotaChecker) -> None:
        self._class = copy_class(
            original,
            own={"_retry_quota"},
            shared={"_retry_policy", "_retry_event_adapter", "_service_name", "_sleep"},
            extra={"_retry_quota": property(lambda handler: checker.provide(handler.binding))},
        )

    def make(self, binding: Binding) -> Any:
        handler = object.__new__(self._class)
        # The binding refers to the handler, so the handler must not refer to the binding.
        handler.binding = proxy(binding)
        return handler


class _Limiter:
    """The account's rate limiter, in the place of aiobotocore's."""

    def provide(self, binding: Binding) -> Any:
        return binding.retry_state().need_limiter()


class _Redirector(_PerBinding):
    """The binding's own region redirector: it caches bucket regions and sends requests with its client."""

    def __init__(self, original: Any) -> None:
        self._class = type(original)

    def make(self, binding: Binding) -> Any:
        return self._class(None, binding.client)


class _Express(_PerBinding):
    """The binding's own S3 Express resolver: it caches session credentials, which it requests with its client."""

    def __init__(self, original: Any) -> None:
        self._class = type(original)
        self._credential_class = original._cache._credential_cls

    def make(self, binding: Binding) -> Any:
        return _with_client_sessions(self._class(binding.client, self._credential_class))


def _with_client_sessions(resolver: Any) -> Any:
    if hasattr(AioS3ExpressIdentityCache, "_get_credentials"):
        resolver._cache = _ClientSessions(resolver._client, resolver._cache._credential_cls)
    return resolver


class _ClientSessions(AioS3ExpressIdentityCache):
    """S3 Express sessions of one client, for aiobotocore before 3.

    There a class-wide cache keeps them as results of tasks: with the identity that requested them, also after the pool
    was closed, and also if they failed.
    """

    def __init__(self, client: Any, credential_class: Any) -> None:
        super().__init__(client, credential_class)
        self._sessions: dict[str, Any] = {}
        self._lock = anyio.Lock()

    async def get_credentials(self, bucket: str) -> Any:
        async with self._lock:
            if bucket not in self._sessions:
                self._sessions[bucket] = await AioIdentityCache.get_credentials(self, bucket=bucket)
            return self._sessions[bucket]


@dataclass(frozen=True, slots=True)
class HandlerAudit:
    """Result of `classify_handlers`.

    Attributes:
        slots: slots for the handlers that depend on the identity, by the id of the handler.
        replaced: the objects that the slots replace; a bound client must not lead to them.
        shared: the other handlers that client creation registered.
        unknown: why the client cannot be shared; None if it can.
    """

    slots: Mapping[int, HandlerSlot]
    replaced: tuple[Any, ...]
    shared: tuple[Any, ...]
    unknown: str | None


def classify_handlers(client: Any, inherited: Iterable[Any]) -> HandlerAudit:
    """Classify the handlers that were registered when `client` was created.

    Args:
        client: the result of `create_client`.
        inherited: the handlers of the session that created it; in botocore all clients of a session share those.
    """
    inherited_ids = {id(handler): handler for handler in inherited}
    slots: dict[int, HandlerSlot] = {}
    providers: dict[int, HandlerProvider] = {}
    replaced: dict[int, Any] = {}
    shared: list[Any] = []
    unknown: str | None = None
    for handler in handlers_of(client.meta.events):
        if id(handler) in inherited_ids:
            continue
        holder = getattr(handler, "__self__", handler)
        if _is_plain(handler) or type(holder) in _SHARED or isinstance(holder, AioClientCreator):
            shared.append(handler)
            continue
        provider = providers.get(id(holder))
        if provider is None:
            provider = _provider(holder, client, providers)
        if provider is None:
            unknown = unknown or f"{_name(handler)} may hold state of one account"
            continue
        providers[id(holder)] = provider
        replaced[id(holder)] = holder
        method = handler.__name__ if holder is not handler else None
        slots[id(handler)] = HandlerSlot(provider, method, _idle(provider, method))
    return HandlerAudit(slots, tuple(replaced.values()), tuple(shared), unknown)


def handlers_of(events: Any) -> list[Any]:
    """Return every registered handler, as often as it is registered."""
    return [handler for values in node_lists(events._emitter) for section in values for handler in section]


def _provider(holder: Any, client: Any, providers: dict[int, HandlerProvider]) -> HandlerProvider | None:
    kind = type(holder)
    if kind is AioRequestSigner and holder is client._request_signer:
        return _Signer()
    try:
        if kind is botocore.retries.standard.RetryQuotaChecker:
            return _QuotaChecker(holder)
        if kind in _RETRY_HANDLERS:
            checker = holder._retry_quota
            provider = providers.setdefault(id(checker), _QuotaChecker(checker))
            assert isinstance(provider, _QuotaChecker)
            return _RetryHandler(holder, provider)
        if kind in _EXPRESS:
            return _Express(holder)
    except (AttributeError, ValueError):  # an unknown version of the class
        return None
    if kind in _LIMITERS:
        return _Limiter()
    return _Redirector(holder) if kind in _REDIRECTORS else None


def _idle(provider: HandlerProvider, method: str | None) -> Callable[[Binding], bool] | None:
    return provider.is_full if isinstance(provider, _QuotaChecker) and method == "release_retry_quota" else None


def _is_plain(handler: Any) -> bool:
    return (
        isinstance(handler, types.FunctionType)
        and not handler.__closure__
        and not handler.__kwdefaults__
        and not handler.__defaults__
    )


def _name(handler: Any) -> str:
    holder = getattr(handler, "__self__", None)
    kind = type(handler if holder is None else holder)
    return f"{kind.__module__}.{kind.__qualname__}"


def attach_retry_state(client: Any, retry_state: RetryState) -> dict[int, Any]:
    """Attach the account's retry state to a client of one account, and keep its S3 Express sessions in the client.

    Returns:
        By the id of a handler of `client`, the handler that must replace it.
    """
    replaced: dict[int, Any] = {}
    for handler in handlers_of(client.meta.events):
        holder: Any = getattr(handler, "__self__", None)
        if type(holder) is botocore.retries.standard.RetryQuotaChecker:
            # The handler of standard mode holds the same checker.
            holder._quota = retry_state.need_quota()
        elif type(holder) in _EXPRESS:
            _with_client_sessions(holder)
        elif type(holder) in _LIMITERS:
            replaced[id(handler)] = getattr(retry_state.need_limiter(), handler.__name__)
    return replaced
