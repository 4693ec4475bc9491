"""Calls of a pool's client: each passes the pool's hook, and is repeated once if its token had expired."""

from __future__ import annotations

import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self

from botocore.exceptions import ClientError

from asyncauth._aws.clock_offset import note_clock
from asyncauth._aws.error_codes import TOKEN_EXPIRED, TOKEN_INVALID
from asyncauth._clients.identity import FactoryState, Signing, current_signing
from asyncauth._models import CredentialsDue, Identity, permit_holder
from asyncauth._runtime.loop_guard import running_loop
from asyncauth._runtime.process_bound import CLIENT_INSTEAD, refuse_pickling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class CallHook(Protocol):
    """Wrapper around an API call, for a rate limit or a counter."""

    async def __call__(self, service_id: str, operation_name: str, invoke: Callable[[], Awaitable[Any]], /) -> Any:
        """Return the result of `await invoke()`, which makes the call.

        Args:
            service_id: as in botocore's events, for example `ec2`.
            operation_name: for example `DescribeInstances`.
            invoke: makes the call.
        """
        ...


class LeaseCount:
    """Number of clients of one kind that are inside `async with`."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class BoundClient:
    """Base of every client of a pool: overrides what differs from a client of botocore.

    The client's methods, paginators and waiters all call `_make_api_call`.
    """

    _identity: Identity
    _factory_state: FactoryState
    _leases: LeaseCount
    _call_hook: CallHook | None = None

    async def __aenter__(self) -> Self:
        self._factory_state.check(self._identity.account_id)
        self._leases.count += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        # The pool owns the connections. The client remains usable.
        self._leases.count -= 1

    def __reduce__(self) -> NoReturn:
        refuse_pickling("client", CLIENT_INSTEAD)

    def get_paginator(self, operation_name: str) -> Any:
        """Return the paginator of an operation; a plain `for` over its pages raises TypeError."""
        paginator = super().get_paginator(operation_name)  # type: ignore[misc]  # the other base is botocore's
        paginator.PAGE_ITERATOR_CLS = _async_only(paginator.PAGE_ITERATOR_CLS)
        return paginator

    async def close(self) -> None:
        """Do nothing: the pool owns the connections."""

    async def _make_api_call(self, operation_name: str, api_params: dict[str, Any]) -> Any:
        state = self._factory_state
        if state.closed or running_loop() is not state.loop:
            state.check(self._identity.account_id)
        original = dict(api_params)  # handlers may change what they get
        rewind = _rewinder(original)
        signing = Signing(self._identity)
        token = current_signing.set(signing)
        may_repeat = True
        try:
            while True:
                try:
                    return await self._call(operation_name, api_params)
                except ClientError as error:
                    if not may_repeat or not self._may_try_again(error, signing) or not rewind():
                        note_clock(error, time.time())
                        raise
                    may_repeat = False
                except CredentialsDue:
                    # The hook gave its permit back. Without a hook the caller holds the permit, and gives that back.
                    if self._call_hook is None or not rewind():
                        raise
                # Through the hook anew, which waits for a token before it needs a permit.
                api_params = dict(original)
        finally:
            current_signing.reset(token)

    def _call(self, operation_name: str, api_params: dict[str, Any]) -> Awaitable[Any]:
        call = super()._make_api_call  # type: ignore[misc]  # the other base is botocore's
        if self._call_hook is None:
            return call(operation_name, api_params)  # type: ignore[no-any-return]
        service_id = self._service_model.service_id.hyphenize()  # type: ignore[attr-defined]
        return self._call_hook(service_id, operation_name, partial(call, operation_name, api_params))

    def _may_try_again(self, error: ClientError, signing: Signing) -> bool:
        code = error.response.get("Error", {}).get("Code")
        # A caller that holds the permit itself (AssumeRole) decides itself what follows from a refusal.
        if signing.access_key is None or (self._call_hook is None and permit_holder.get() is not None):
            return False
        # RequestExpired soon after the token was issued means a wrong clock; another token would change nothing.
        if code in TOKEN_INVALID or code == "RequestExpired":
            return self._identity.reject(signing.access_key, ambiguous=True)
        return code in TOKEN_EXPIRED and self._identity.reject(signing.access_key)


@lru_cache(maxsize=8)
def _async_only(pages: type[Any]) -> type[Any]:
    """Return a subclass of aiobotocore's page iterator that refuses `for`.

    The iterator inherits `__iter__` from botocore, which would yield coroutines' attributes instead of pages.
    """

    def refuse(_: Any) -> NoReturn:
        raise TypeError("pages need `async for`: write `async for page in client.get_paginator(...).paginate(...)`")

    return type(pages.__name__, (pages,), {"__module__": pages.__module__, "__iter__": refuse})


def _rewinder(params: dict[str, Any]) -> Callable[[], bool]:
    """Return a function that seeks file-like parameters back to their current position and returns whether it
    succeeded."""
    positions: list[tuple[Any, int]] = []
    seekable = True
    for value in params.values():
        if hasattr(value, "read") or hasattr(value, "__anext__") or hasattr(value, "__next__"):
            try:
                positions.append((value, value.tell()))
            except (AttributeError, OSError, ValueError):
                seekable = False

    def rewind() -> bool:
        if not seekable:
            return False
        try:
            for value, position in positions:
                value.seek(position)
        except (AttributeError, OSError, ValueError):
            return False
        return True

    return rewind
