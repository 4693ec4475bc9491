"""Protocol of token caches: values that are stored, loaded and locked by a key.

A cache keeps values. The pool keeps the slots that renew them, so a cache can be used by several pools: one after the
other, as in the invocations of a Lambda function, or at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextlib import AbstractAsyncContextManager

    from asyncauth._models import Credentials, Role


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Everything that changes a token. Equal keys have the same token.

    A role has many fields and a key is looked up often, so its hash is computed once.

    Args:
        source: the key of the identity that assumes the role.
        region_name: the region of the STS endpoint.
        partition: the partition of the account.
        account_id: the account of the role; None for an MFA session of the source.
        role: the role with all its parameters and its chain; of an MFA session only the MFA device.
        endpoint_url: the endpoint of the pool instead of AWS's; None: AWS's.
    """

    source: Hashable
    region_name: str
    partition: str
    account_id: str | None
    role: Role
    endpoint_url: str | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = (self.source, self.region_name, self.partition, self.account_id, self.role, self.endpoint_url)
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A token with its times, in Unix seconds of the local wall clock, which other processes have, too.

    Args:
        credentials: the token; its repr has no secret.
        obtained_at: when it was requested.
        expires_at: when it expires: `obtained_at` plus the lifetime by AWS's own clock, so a local clock that is wrong
            by a constant does not matter.
        caller: ARN of the identity behind the token, that of the base credentials; None if the cache does not need it.
    """

    credentials: Credentials
    obtained_at: float
    expires_at: float
    caller: str | None = None


class TokenCache(Protocol):
    """Token cache as a pool uses it.

    If `load`, `store` or `discard` raises, or entering `lock` does, that is logged, and the pool goes on without it.

    A cache that outlives the process can set the attribute `needs_caller` to True. What it stores then has the ARN of
    its caller, which costs one GetCallerIdentity for each source whose tokens are fetched; once that is known, a
    stored token of another caller is discarded.
    """

    async def load(self, key: TokenKey) -> CachedToken | None:
        """Return the stored token, which may have expired; None if there is none."""
        ...

    async def store(self, key: TokenKey, token: CachedToken) -> None:
        """Store a token in place of any other for this key."""
        ...

    async def discard(self, key: TokenKey) -> None:
        """Remove the token for this key, if there is one."""
        ...

    def lock(self, key: TokenKey) -> AbstractAsyncContextManager[object]:
        """Return a context manager that admits one refresh of a token at a time.

        A pool enters it, calls `load`, and if that brings no usable token, requests one from STS and calls `store`.
        """
        ...
