"""Who signs: the source itself, the source with MFA, or a role in an account, each with its expiring slot.

A role's slot is loaded through every link before it: source, MFA session, the roles of `via`, then the role itself.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar
from weakref import WeakValueDictionary

from asyncauth._aws.partitions import get_partition
from asyncauth._credentials.identities import BaseIdentity, RoleIdentity
from asyncauth._credentials.sources import Source, SourceFacts
from asyncauth._credentials.sts import assume_role, get_session_token, sts_region
from asyncauth._credentials.sts_errors import StsRequest, is_final, is_worth_repeating, refuses_source
from asyncauth._errors import AssumeRoleError, EndpointDown, RateLimited, SourceError
from asyncauth._models import Account, Credentials, Identity, Role
from asyncauth._refresh import Expiring, ExpiringSlot, RefreshPolicy

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._observability import Telemetry
    from asyncauth._runtime.clock import Clock
    from asyncauth.caches import TokenCache

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.tokens")

#: Seconds before an AssumeRole is sent again, after a connection that broke or trouble of STS's own.
_WAITS: Final = (0.2, 0.5)


class RequestGuard(Protocol):
    """What protects the STS endpoint that all accounts share: rate limits and a circuit breaker."""

    async def assume(
        self, send: Callable[[], Awaitable[T]], *, account_id: str, region_name: str, source: Hashable
    ) -> T:
        """Send an AssumeRole, again while it is throttled; raises RateLimited or EndpointDown if it was not sent."""
        ...


class ResolvedSource(Protocol):
    """A source that was resolved: what assumes the first role, and lends the STS clients for the others."""

    source: Source
    facts: SourceFacts
    identity: BaseIdentity

    async def sts_client(self, identity: Identity, region_name: str) -> Any:
        """Return an STS client that signs as `identity`, in a region of its partition."""
        ...


class _Refusal(NamedTuple):
    """That STS refused a source's keys, and until when that is believed."""

    keys: Credentials
    until: float
    error: SourceError


class RoleCredentials:
    """The slots of roles, found by everything that changes their token, and loaded through every link.

    Args:
        cache: keeps the slots.
        spawn: starts a refresh in the pool's task group.
        gate: what stands around each AssumeRole.
        telemetry: where tokens are counted for others to see, None: nowhere.

    Attributes:
        assumed, failed: AssumeRole calls that brought a token, and that did not.
        refreshing: such calls under way.
    """

    def __init__(
        self,
        cache: TokenCache,
        *,
        guard: RequestGuard,
        telemetry: Telemetry | None,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        clock: Clock,
        random: random.Random,
        policy: RefreshPolicy,
    ) -> None:
        self._cache = cache
        self._spawn = spawn
        self._clock = clock
        self._random = random
        self._policy = policy
        # Requests have their deadline in `_assume`; and where a person types a code, there is none.
        self._slot_policy = replace(policy, load_timeout=None)
        self._guard = guard
        self._telemetry = telemetry
        self._identities: WeakValueDictionary[Hashable, RoleIdentity] = WeakValueDictionary()
        self._refusals: dict[Hashable, _Refusal] = {}
        self.assumed = self.failed = self.refreshing = 0

    def identity(self, source: ResolvedSource, account: Account, role: Role) -> RoleIdentity:
        """Return who signs in `account` as `role`; nothing is called yet."""
        region = _region(source, account)
        key = _key(source, account, role)

        async def load() -> Expiring[Credentials]:
            return await self._assume(source, account, role, region)

        arn = role.arn(account)
        return self._identity(key, self._slot(key, load, arn), region_name=region, account_id=account.id, role_arn=arn)

    def invalidate(self, source: ResolvedSource, account: Account, role: Role) -> bool:
        """Drop a role's token, so that the next who needs it assumes the role anew; whether there was one."""
        slot = self._cache.get(_key(source, account, role))
        return slot is not None and slot.invalidate()

    def _mfa_identity(self, source: ResolvedSource, role: Role, region: str) -> RoleIdentity:
        key = (source.identity.key, region, "mfa", role.mfa_serial, role.mfa_token)

        async def load() -> Expiring[Credentials]:
            client = await source.sts_client(source.identity, region)
            return await get_session_token(client, role, clock=self._clock, label=source.source.label)

        name = f"MFA session of {source.source.label}"
        return self._identity(key, self._slot(key, load, name), region_name=region)

    def _identity(self, key: Hashable, slot: ExpiringSlot[Credentials], **fields: Any) -> RoleIdentity:
        # One object for all who hold it at the same time: clients keep an account's retry quota on it.
        identity = self._identities.get(key)
        if identity is None or identity.slot is not slot:
            identity = self._identities[key] = RoleIdentity(key, slot, **fields)
        return identity

    async def _assume(self, source: ResolvedSource, account: Account, role: Role, region: str) -> Expiring[Credentials]:
        """Load a role's slot: assume the role, as whoever is the link before it, and count how that went."""
        who = self._link_before(source, role, region)
        is_first = who is source.identity
        if is_first:
            await self._check_source(source, account, role, region)
        self.refreshing += 1
        try:
            token = await self._request_token(await source.sts_client(who, region), who.key, account, role)
        except Exception as error:
            self.failed += 1
            if is_first and isinstance(error, SourceError) and refuses_source(error):
                self._remember_refusal(source, region, error)
            if self._telemetry is not None:
                self._telemetry.token("failed", account.partition, error)
            raise
        finally:
            self.refreshing -= 1
        self.assumed += 1
        if self._telemetry is not None:
            slot = self._cache.get(_key(source, account, role))
            before = slot is not None and slot.has_loaded
            self._telemetry.token("refreshed" if before else "assumed", account.partition)
        logger.debug("assumed %s", role.arn(account), extra={"account": account.id, "region_name": region})
        return token

    def _remember_refusal(self, source: ResolvedSource, region: str, error: SourceError) -> None:
        keys = source.identity.peek()
        if keys is not None:
            until = self._clock.monotonic() + self._random.uniform(*self._policy.denial_memory)
            self._refusals[source.identity.key, region] = _Refusal(keys, until, error)

    async def _check_source(self, source: ResolvedSource, account: Account, role: Role, region: str) -> None:
        """Refuse what STS refused just now for reasons of the source: ten thousand accounts need not all hear it there.

        Raises:
            SourceError: of the kind that was raised, with how it was worded; nothing was sent.
        """
        refusal = self._refusals.get((source.identity.key, region))
        if refusal is None:
            return
        if self._clock.monotonic() >= refusal.until or await source.identity.get_frozen_credentials() != refusal.keys:
            self._refusals.pop((source.identity.key, region), None)
            return
        why = str(refusal.error).partition(": ")[2]
        raise type(refusal.error)(
            f"cannot assume {role.arn(account)}: not asked, for just now {why}",
            account=account.id,
            role_arn=role.arn(account),
            region_name=region,
            code=refusal.error.code,
            attempts=0,
        )

    async def _request_token(
        self, client: Any, source: Hashable, account: Account, role: Role
    ) -> Expiring[Credentials]:
        """Send AssumeRole when the gate lets it through, each request with its own deadline."""
        request = StsRequest.of(role, account, client.meta.region_name)

        async def send() -> Expiring[Credentials]:
            # Not around the wait for a turn: in a run of thousands that may well be longer.
            with self._clock.move_on_after(self._policy.load_timeout):
                return await self._send_with_retries(client, role, account)
            raise request.no_answer(self._policy.load_timeout)

        try:
            return await self._guard.assume(
                send, account_id=account.id, region_name=client.meta.region_name, source=source
            )
        except RateLimited as error:
            raise request.throttled(error) from None
        except EndpointDown as error:
            raise request.endpoint_down(error) from None

    async def _send_with_retries(self, client: Any, role: Role, account: Account) -> Expiring[Credentials]:
        """Send AssumeRole, again if the connection broke or STS had trouble of its own; throttling is the gate's."""
        for wait in _WAITS:
            try:
                return await assume_role(client, role, account, clock=self._clock)
            except AssumeRoleError as error:
                if not is_worth_repeating(error):
                    raise
            await self._clock.sleep(wait * self._random.uniform(0.5, 1.0))
        return await assume_role(client, role, account, clock=self._clock)

    def _link_before(self, source: ResolvedSource, role: Role, region: str) -> Identity:
        if role.via:
            hop = role.via[-1]
            assert isinstance(hop, Account)
            plain = Role(
                role_session_name=role.role_session_name,
                source_identity=role.source_identity,
                mfa_serial=role.mfa_serial,
                mfa_token=role.mfa_token,
            )
            return self.identity(source, hop, replace(hop.effective_role(plain), via=role.via[:-1]))
        if role.mfa_serial is not None:
            return self._mfa_identity(source, role, region)
        return source.identity

    def _slot(
        self, key: Hashable, load: Callable[[], Awaitable[Expiring[Credentials]]], name: str
    ) -> ExpiringSlot[Credentials]:
        def make() -> ExpiringSlot[Credentials]:
            return ExpiringSlot(
                load,
                spawn=self._spawn,
                clock=self._clock,
                random=self._random,
                policy=self._slot_policy,
                is_denial=_is_final,
                name=name,
            )

        return self._cache.slot(key, make)


def _region(source: ResolvedSource, account: Account) -> str:
    return sts_region(get_partition(account.partition), source.facts.region_name)


class _Key:
    """Everything that changes a token: who asks, where, for what, with which parameters and along which chain.

    A role has many fields and a key is looked up often, so it is hashed once.
    """

    __slots__ = ("_hash", "_resources")

    def __init__(self, *parts: Hashable) -> None:
        self._resources = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._hash == other._hash and self._resources == other._resources

    def __repr__(self) -> str:
        return f"<_Key {self._resources!r}>"


def _key(source: ResolvedSource, account: Account, role: Role) -> Hashable:
    return _Key(source.identity.key, _region(source, account), account.partition, account.id, role)


def _is_final(error: Exception) -> bool:
    return is_final(error) or isinstance(error, SourceError)
