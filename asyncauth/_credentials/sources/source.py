"""Source: base credentials of one origin, resolved once for all callers, and kept fresh by an expiring slot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from asyncauth._errors import ConfigurationError, NoSourceCredentials, PoolClosed, SourceError, SourceExpired
from asyncauth._refresh import Expiring, ExpiringSlot, RefreshAbandoned, RefreshError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Hashable

    from aiobotocore.session import AioSession

    from asyncauth._models import Credentials
    from asyncauth._refresh import RefreshPolicy
    from asyncauth._runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Facts of a source that was resolved; none of them is secret.

    Args:
        region_name: the configured region; None if there is none.
        partition: the requested one, else the region's, else that of the profile's `role_arn`; None if unknown.
        long_term: its keys have no session token, so they are valid until they are deleted.
        method: boto's name of the provider (`env`, `iam-role`, `sso`, ...), or `keys`, `callable`, `session`.
        key: distinguishes its tokens from those of other sources; the same for the source's whole life.
        region_variable: the environment variable that sets another region than the profile; None if none does.
    """

    region_name: str | None
    partition: str | None
    long_term: bool
    method: str
    key: Hashable
    region_variable: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Result of an origin's load: credentials with their lifetime, the facts, and the session that was read."""

    credentials: Expiring[Credentials]
    facts: SourceFacts
    session: AioSession


class Origin(Protocol):
    """Origin of base credentials."""

    label: str

    async def load(self) -> Loaded:
        """Resolve the credentials, or renew them; only one load runs at a time."""
        ...

    def invalidate(self) -> bool:
        """Resolve from the start at the next load: AWS rejected the credentials of this origin.

        Returns:
            Whether another load may return other credentials.
        """
        ...

    def describe_timeout(self) -> str | None:
        """Return the probable cause of a load that takes too long, for its error; None if unknown."""
        ...


class Source:
    """Base credentials of one origin.

    Args:
        origin: resolves them.
        spawn: starts a task that outlives the caller, in the pool's task group.
        clock, random, policy: as for every expiring slot.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        clock: Clock,
        random: random.Random,
        policy: RefreshPolicy,
    ) -> None:
        self.label = origin.label
        self._origin: Origin | None = origin
        self._clock = clock
        self._random = random
        self._denial_memory_seconds = policy.denial_memory
        self._loaded: Loaded | None = None
        #: The credentials that AWS rejected last, and until when it is known that a load returns them again.
        self._rejected: Credentials | None = None
        self._known_unchanged_until = -math.inf
        self._slot: ExpiringSlot[Credentials] | None = ExpiringSlot(
            self._load,
            spawn=spawn,
            clock=clock,
            random=random,
            policy=policy,
            is_denial=_is_final,
            name=origin.label,
        )

    async def credentials(self) -> Credentials:
        """Return credentials that are valid now; the first call resolves them, later ones renew them when due.

        Raises:
            NoSourceCredentials, SourceExpired, SourceError: there are none; the message names the remedy.
            ConfigurationError: the requested profile or region does not exist.
        """
        if self._slot is None:
            raise PoolClosed(f"the pool is closed, and released the credentials of {self.label}")
        try:
            return await self._slot.get()
        except RefreshAbandoned as error:
            raise PoolClosed(f"the pool was closed while {self.label} was being resolved") from error
        except RefreshError as error:
            cause = (
                (None if self._origin is None else self._origin.describe_timeout())
                if isinstance(error, TimeoutError)
                else None
            )
            message = f"{error}; {cause}" if cause else f"{error}"
            raise SourceError(message, code=type(error).__name__) from error

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good, without waiting."""
        return None if self._slot is None else self._slot.peek()

    def peek_fresh(self) -> Credentials | None:
        """Return the cached credentials if they are not due to be renewed. May be called in any thread."""
        slot = self._slot
        return None if slot is None else slot.peek_fresh()

    async def facts(self) -> SourceFacts:
        """Return the facts of the source, and resolve it first if necessary. Raises as `credentials` does."""
        return (await self._resolved()).facts

    async def aio_session(self) -> AioSession:
        """Return a session whose files were read, for its configuration: region, endpoints, retries.

        Its credentials are not used: `credentials` returns the source's. Raises as `credentials` does.
        """
        return (await self._resolved()).session

    @property
    def refreshing(self) -> bool:
        """Whether a load of the origin runs now."""
        return self._slot is not None and self._slot.refreshing

    def close(self) -> None:
        """Release the credentials and their origin; the label stays."""
        self._origin = self._loaded = self._slot = self._rejected = None

    def reject(self, access_key_id: str) -> bool:
        """Drop the credentials with this key id, which AWS rejected, if they are still the cached ones.

        The next call resolves the source from the start, files included, and so finds keys that were rotated on disk.
        All callers whose requests were signed with the same keys share that one load.

        Returns:
            Whether another attempt may be signed with other keys: these were dropped now or before and are being
            renewed, or they have been replaced. False if a load since the last rejection returned the same keys;
            that is known for a few seconds (`RefreshPolicy.denial_memory`), then they are dropped again.
        """
        cached = self.peek()
        if self._slot is None or self._origin is None or cached is None or cached.access_key_id != access_key_id:
            return True
        if self._clock.monotonic() < self._known_unchanged_until or not self._origin.invalidate():
            return False
        self._rejected = cached
        return self._slot.invalidate(cached)

    async def _resolved(self) -> Loaded:
        if self._loaded is None:
            await self.credentials()
        assert self._loaded is not None
        return self._loaded

    async def _load(self) -> Expiring[Credentials]:
        # Read before the load: one that began earlier may have read the keys before they changed.
        origin, rejected = self._origin, self._rejected
        if origin is None:
            raise PoolClosed(f"the pool is closed, and released the credentials of {self.label}")
        loaded = await origin.load()
        if rejected is not None and loaded.credentials.value == rejected:
            seconds = self._random.uniform(*self._denial_memory_seconds)
            self._known_unchanged_until = self._clock.monotonic() + seconds
        self._loaded = None if self._origin is None else loaded
        return loaded.credentials

    def __repr__(self) -> str:
        method = "not resolved yet" if self._loaded is None else self._loaded.facts.method
        return f"<Source {self.label} [{method}]>"


def _is_final(error: Exception) -> bool:
    return isinstance(error, (NoSourceCredentials, SourceExpired, ConfigurationError))
