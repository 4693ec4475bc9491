"""Which handlers of a client carry an identity, and how each binding gets its own.

The rule is not a list of services. What client creation has registered is either known to carry nothing that could
belong to somebody, or known and made anew for each binding, or unknown; a client with an unknown one is not shared.
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
from asyncauth._clients.hooks.bound_events import Binding, HandlerSlot, Owner, node_lists
from asyncauth._clients.speedups.user_agent_cache import CachedUserAgent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncauth._clients.retry_state import RetryState


def _types(*names: tuple[Any, str]) -> frozenset[type]:
    """Return those of the named classes that this botocore has."""
    return frozenset(getattr(module, name) for module, name in names if hasattr(module, name))


#: Handlers whose objects hold only models, options or constants: shared by all clients of a core.
_SHARED: Final = _types(
    (botocore.useragent, "UserAgentString"),  # rebuilds the user-agent header
    (botocore.utils, "S3ControlArnParamHandlerv2"),  # holds an ARN parser
    (botocore.retries.standard, "MaxAttemptsSeeder"),  # holds a number
    (aiobotocore.retryhandler, "AioRetryHandler"),  # legacy mode: conditions without memory
    (botocore.monitoring, "Monitor"),  # client-side monitoring: one for the whole session in stock, too
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
    """The binding's signer, in the place of the core's."""

    def of(self, binding: Binding) -> Any:
        return binding.signer


class _Made:
    """An object that a binding makes when one of its handlers is called first, and keeps."""

    def of(self, binding: Binding) -> Any:
        made = binding.made
        if made is None:
            made = binding.made = {}
        if self not in made:
            made[self] = self.make(binding)
        return made[self]

    def make(self, binding: Binding) -> Any:
        raise NotImplementedError


class _QuotaChecker(_Made):
    """botocore's quota checker, on the account's quota."""

    def __init__(self, original: Any) -> None:
        self._class = copy_class(original, own={"_quota"}, shared={"_throttling_detector", "_last_amount_acquired"})

    def make(self, binding: Binding) -> Any:
        checker = object.__new__(self._class)
        checker._quota = binding.retry_state().need_quota()
        return checker

    @staticmethod
    def is_full(binding: Binding) -> bool:
        """Whether there is nothing to give back: nothing was ever taken."""
        state = binding.known_retry_state()
        return state is None or state.quota is None


class _RetryHandler(_Made):
    """botocore's handler of standard mode, on the account's quota: looked for when there is something to retry."""

    def __init__(self, original: Any, checker: _QuotaChecker) -> None:
        self._class = copy_class(
            original,
            own={"_retry_quota"},
            shared={"_retry_policy", "_retry_event_adapter", "_service_name", "_sleep"},
            extra={"_retry_quota": property(lambda handler: checker.of(handler.binding))},
        )

    def make(self, binding: Binding) -> Any:
        handler = object.__new__(self._class)
        # The binding keeps the handler, so the handler must not keep the binding.
        handler.binding = proxy(binding)
        return handler


class _Limiter:
    """The account's rate limiter, in the place of aiobotocore's."""

    def of(self, binding: Binding) -> Any:
        return binding.retry_state().need_limiter()


class _Redirector(_Made):
    """A region redirector of the binding's own: it remembers buckets, and asks with its client."""

    def __init__(self, original: Any) -> None:
        self._class = type(original)

    def make(self, binding: Binding) -> Any:
        return self._class(None, binding.client)


class _Express(_Made):
    """An S3 Express resolver of the binding's own: it keeps session credentials, made with its client."""

    def __init__(self, original: Any) -> None:
        self._class = type(original)
        self._credential_class = original._cache._credential_cls

    def make(self, binding: Binding) -> Any:
        return _with_own_sessions(self._class(binding.client, self._credential_class))


def _with_own_sessions(resolver: Any) -> Any:
    if hasattr(AioS3ExpressIdentityCache, "_get_credentials"):
        resolver._cache = _OwnSessions(resolver._client, resolver._cache._credential_cls)
    return resolver


class _OwnSessions(AioS3ExpressIdentityCache):
    """The sessions of one client, for aiobotocore before 3.

    There they are the results of tasks that a cache of the class keeps: after the pool was closed too, with the
    identity that asked, and also those that failed.
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
    """What a client's handlers turned out to be.

    Attributes:
        slots: for the handlers that carry an identity, by their id.
        replaced: the objects that the slots stand for; nothing of a binding may lead to them.
        shared: the other handlers that client creation registered.
        unknown: why the client cannot be shared; None: it can.
    """

    slots: Mapping[int, HandlerSlot]
    replaced: tuple[Any, ...]
    shared: tuple[Any, ...]
    unknown: str | None


def classify_handlers(client: Any, inherited: Iterable[Any]) -> HandlerAudit:
    """Sort the handlers that were registered when `client` was created.

    Args:
        client: straight from `create_client`.
        inherited: the handlers of the session that it was created from; those are every client's by boto's own rule.
    """
    known = {id(handler): handler for handler in inherited}
    slots: dict[int, HandlerSlot] = {}
    owners: dict[int, Owner] = {}
    replaced: dict[int, Any] = {}
    shared: list[Any] = []
    unknown: str | None = None
    for handler in handlers_of(client.meta.events):
        if id(handler) in known:
            continue
        holder = getattr(handler, "__self__", handler)
        if _is_plain(handler) or type(holder) in _SHARED or isinstance(holder, AioClientCreator):
            shared.append(handler)
            continue
        owner = owners.get(id(holder))
        if owner is None:
            owner = _owner(holder, client, owners)
        if owner is None:
            unknown = unknown or f"{_name(handler)} may keep what belongs to one account"
            continue
        owners[id(holder)] = owner
        replaced[id(holder)] = holder
        method = handler.__name__ if holder is not handler else None
        slots[id(handler)] = HandlerSlot(owner, method, _idle(owner, method))
    return HandlerAudit(slots, tuple(replaced.values()), tuple(shared), unknown)


def handlers_of(events: Any) -> list[Any]:
    """Return every handler that is registered, each as often as it is."""
    return [handler for values in node_lists(events._emitter) for section in values for handler in section]


def _owner(holder: Any, client: Any, owners: dict[int, Owner]) -> Owner | None:
    kind = type(holder)
    if kind is AioRequestSigner and holder is client._request_signer:
        return _Signer()
    try:
        if kind is botocore.retries.standard.RetryQuotaChecker:
            return _QuotaChecker(holder)
        if kind in _RETRY_HANDLERS:
            checker = holder._retry_quota
            owner = owners.setdefault(id(checker), _QuotaChecker(checker))
            assert isinstance(owner, _QuotaChecker)
            return _RetryHandler(holder, owner)
        if kind in _EXPRESS:
            return _Express(holder)
    except (AttributeError, ValueError):  # another inside than the one that is known
        return None
    if kind in _LIMITERS:
        return _Limiter()
    return _Redirector(holder) if kind in _REDIRECTORS else None


def _idle(owner: Owner, method: str | None) -> Callable[[Binding], bool] | None:
    return owner.is_full if isinstance(owner, _QuotaChecker) and method == "release_retry_quota" else None


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


def account_wide(client: Any, retry_state: RetryState) -> dict[int, Any]:
    """See to it that what a client of one account alone remembers is the account's, and nowhere else.

    Returns:
        By the id of a handler of `client`, the one that takes its place.
    """
    replaced: dict[int, Any] = {}
    for handler in handlers_of(client.meta.events):
        holder: Any = getattr(handler, "__self__", None)
        if type(holder) is botocore.retries.standard.RetryQuotaChecker:
            # The handler of standard mode holds the same checker.
            holder._quota = retry_state.need_quota()
        elif type(holder) in _EXPRESS:
            _with_own_sessions(holder)
        elif type(holder) in _LIMITERS:
            replaced[id(handler)] = getattr(retry_state.need_limiter(), handler.__name__)
    return replaced
