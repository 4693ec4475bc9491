"""Who signs: the source itself, the source with MFA, or a role in an account, each with its expiring slot.

A role's slot is loaded through every link before it: source, MFA session, the roles of `via`, then the role itself.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from asyncauth import _sts
from asyncauth._errors import AssumeRoleError, BudgetExhausted, EndpointDown, PoolClosed, SourceError
from asyncauth._expiring import Expiring, ExpiringSlot, RefreshAbandoned, RefreshPolicy
from asyncauth._models import Account, Credentials, Role
from asyncauth._partitions import get_partition
from asyncauth._sources import Source, SourceFacts

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._clock import Clock
    from asyncauth._gate import Gate
    from asyncauth._telemetry import Telemetry
    from asyncauth.caches import TokenCache

logger: Final = logging.getLogger("asyncauth.tokens")

#: Seconds before an AssumeRole is sent again, after a connection that broke or trouble of STS's own.
_WAITS: Final = (0.2, 0.5)

#: Seconds. A token of this age cannot have ended: the shortest that STS issues lasts three times as long.
_YOUNG: Final = 300.0


class Identity(Protocol):
    """Somebody who can sign."""

    key: Hashable
    account_id: str | None

    async def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now; waits for a refresh when there are none."""
        ...

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good, without waiting."""
        ...

    def reject(self, access_key_id: str, /, *, doubtful: bool = False) -> bool:
        """Drop the credentials with this key id, which AWS says have expired, if they are still the cached ones.

        Args:
            access_key_id: theirs.
            doubtful: AWS may have meant something else: a token that was issued minutes ago stays.

        Returns:
            Whether another try makes sense: they were dropped now, or others had taken their place already.
        """
        ...

    def get_account_id(self) -> str | None:
        """Return the account signed for, where it is known; botocore asks by this name."""
        ...


class SlotIdentity:
    """An identity whose credentials live in an expiring slot: a role's, or an MFA session's."""

    __slots__ = ("__weakref__", "account_id", "key", "region_name", "role_arn", "slot")

    def __init__(
        self,
        key: Hashable,
        slot: ExpiringSlot[Credentials],
        *,
        region_name: str,
        account_id: str | None = None,
        role_arn: str | None = None,
    ) -> None:
        self.key = key
        self.slot = slot
        self.region_name = region_name
        self.account_id = account_id
        self.role_arn = role_arn

    async def get_frozen_credentials(self) -> Credentials:
        """Return credentials that are good now."""
        try:
            return await self.slot.get()
        except RefreshAbandoned:
            raise PoolClosed("the pool was closed while a role was being assumed", account=self.account_id) from None

    def peek(self) -> Credentials | None:
        """Return the cached credentials while they are good."""
        return self.slot.peek()

    def reject(self, access_key_id: str, /, *, doubtful: bool = False) -> bool:
        """Drop exactly the credentials with this key id."""
        cached = self.slot.peek()
        if cached is None or cached.access_key_id != access_key_id:
            return True
        if doubtful and self.slot.age < _YOUNG:
            return False
        return self.slot.invalidate(cached)

    def get_account_id(self) -> str | None:
        """Return the role's account."""
        return self.account_id


class SourceIdentity:
    """The base identity itself."""

    __slots__ = ("_last", "_source", "account_id", "key")

    def __init__(self, source: Source, facts: SourceFacts) -> None:
        self._source = source
        self._last: Credentials | None = None
        self.key: Hashable = ("source", facts.key)
        self.account_id: str | None = None

    async def get_frozen_credentials(self) -> Credentials:
        """Return the source's credentials."""
        self._last = await self._source.credentials()
        return self._last

    def peek(self) -> Credentials | None:
        """Return the credentials that were served last; the source decides what is good at the next request."""
        return self._last

    def reject(self, access_key_id: str, /, *, doubtful: bool = False) -> bool:
        """Drop exactly the credentials with this key id."""
        if self._last is None or self._last.access_key_id != access_key_id:
            return True
        return self._source.invalidate(self._last)

    def get_account_id(self) -> str | None:
        """Return None: what account a source belongs to is not known without asking."""
        return self.account_id


class Asker(Protocol):
    """A source that was resolved: what assumes the first role, and lends the STS clients for the others."""

    source: Source
    facts: SourceFacts
    identity: SourceIdentity

    async def sts_client(self, identity: Identity, region_name: str) -> Any:
        """Return an STS client that signs as `identity`, in a region of its partition."""
        ...


class _Refusal(NamedTuple):
    """That STS refused a source's keys, and until when that is believed."""

    keys: Credentials
    until: float
    error: SourceError


class RoleTokens:
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
        gate: Gate,
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
        self._gate = gate
        self._telemetry = telemetry
        self._identities: WeakValueDictionary[Hashable, SlotIdentity] = WeakValueDictionary()
        self._refusals: dict[Hashable, _Refusal] = {}
        self.assumed = self.failed = self.refreshing = 0

    def identity(self, asker: Asker, account: Account, role: Role) -> SlotIdentity:
        """Return who signs in `account` as `role`; nothing is called yet."""
        region = _region(asker, account)
        key = _key(asker, account, role)

        async def load() -> Expiring[Credentials]:
            return await self._assume(asker, account, role, region)

        arn = role.arn(account)
        return self._identity(key, self._slot(key, load, arn), region_name=region, account_id=account.id, role_arn=arn)

    def forget(self, asker: Asker, account: Account, role: Role) -> bool:
        """Drop a role's token, so that the next who needs it assumes the role anew; whether there was one."""
        slot = self._cache.get(_key(asker, account, role))
        return slot is not None and slot.invalidate()

    def _mfa_identity(self, asker: Asker, role: Role, region: str) -> SlotIdentity:
        key = (asker.identity.key, region, "mfa", role.mfa_serial, role.mfa_token)

        async def load() -> Expiring[Credentials]:
            client = await asker.sts_client(asker.identity, region)
            return await _sts.get_session_token(client, role, clock=self._clock, label=asker.source.label)

        name = f"MFA session of {asker.source.label}"
        return self._identity(key, self._slot(key, load, name), region_name=region)

    def _identity(self, key: Hashable, slot: ExpiringSlot[Credentials], **fields: Any) -> SlotIdentity:
        # One object for all who hold it at the same time: clients keep an account's retry quota on it.
        identity = self._identities.get(key)
        if identity is None or identity.slot is not slot:
            identity = self._identities[key] = SlotIdentity(key, slot, **fields)
        return identity

    async def _assume(self, asker: Asker, account: Account, role: Role, region: str) -> Expiring[Credentials]:
        """Load a role's slot: assume the role, as whoever is the link before it, and count how that went."""
        who = self._link_before(asker, role, region)
        is_first = who is asker.identity
        if is_first:
            await self._check_source(asker, account, role, region)
        self.refreshing += 1
        try:
            token = await self._ask(await asker.sts_client(who, region), who.key, account, role)
        except Exception as error:
            self.failed += 1
            if is_first and isinstance(error, SourceError) and _sts.refuses_source(error):
                self._remember_refusal(asker, region, error)
            if self._telemetry is not None:
                self._telemetry.token("failed", account.partition, error)
            raise
        finally:
            self.refreshing -= 1
        self.assumed += 1
        if self._telemetry is not None:
            slot = self._cache.get(_key(asker, account, role))
            before = slot is not None and slot.has_loaded
            self._telemetry.token("refreshed" if before else "assumed", account.partition)
        logger.debug("assumed %s", role.arn(account), extra={"account": account.id, "region_name": region})
        return token

    def _remember_refusal(self, asker: Asker, region: str, error: SourceError) -> None:
        keys = asker.identity.peek()
        if keys is not None:
            until = self._clock.monotonic() + self._random.uniform(*self._policy.denial_memory)
            self._refusals[asker.identity.key, region] = _Refusal(keys, until, error)

    async def _check_source(self, asker: Asker, account: Account, role: Role, region: str) -> None:
        """Refuse what STS refused just now for reasons of the source: ten thousand accounts need not all hear it there.

        Raises:
            SourceError: of the kind that was raised, with how it was worded; nothing was sent.
        """
        refusal = self._refusals.get((asker.identity.key, region))
        if refusal is None:
            return
        if self._clock.monotonic() >= refusal.until or await asker.identity.get_frozen_credentials() != refusal.keys:
            self._refusals.pop((asker.identity.key, region), None)
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

    async def _ask(self, client: Any, source: Hashable, account: Account, role: Role) -> Expiring[Credentials]:
        """Send AssumeRole when the gate lets it through, each request with its own deadline."""
        asked = _sts.Asked.of(role, account, client.meta.region_name)

        async def send() -> Expiring[Credentials]:
            # Not around the wait for a turn: in a run of thousands that may well be longer.
            with self._clock.move_on_after(self._policy.load_timeout):
                return await self._send_patiently(client, role, account)
            raise asked.no_answer(self._policy.load_timeout)

        try:
            return await self._gate.assume(
                send, account_id=account.id, region_name=client.meta.region_name, source=source
            )
        except BudgetExhausted as error:
            raise asked.throttled(error) from None
        except EndpointDown as error:
            raise asked.nobody_answers(error) from None

    async def _send_patiently(self, client: Any, role: Role, account: Account) -> Expiring[Credentials]:
        """Send AssumeRole, again if the connection broke or STS had trouble of its own; throttling is the gate's."""
        for wait in _WAITS:
            try:
                return await _sts.assume_role(client, role, account, clock=self._clock)
            except AssumeRoleError as error:
                if not _sts.is_transient(error):
                    raise
            await self._clock.sleep(wait * self._random.uniform(0.5, 1.0))
        return await _sts.assume_role(client, role, account, clock=self._clock)

    def _link_before(self, asker: Asker, role: Role, region: str) -> Identity:
        if role.via:
            hop = role.via[-1]
            assert isinstance(hop, Account)
            plain = Role(
                role_session_name=role.role_session_name,
                source_identity=role.source_identity,
                mfa_serial=role.mfa_serial,
                mfa_token=role.mfa_token,
            )
            return self.identity(asker, hop, replace(hop.effective_role(plain), via=role.via[:-1]))
        if role.mfa_serial is not None:
            return self._mfa_identity(asker, role, region)
        return asker.identity

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


def _region(asker: Asker, account: Account) -> str:
    return _sts.sts_region(get_partition(account.partition), asker.facts.region_name)


class _Key:
    """Everything that changes a token: who asks, where, for what, with which parameters and along which chain.

    A role has many fields and a key is looked up often, so it is hashed once.
    """

    __slots__ = ("_hash", "_parts")

    def __init__(self, *parts: Hashable) -> None:
        self._parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._hash == other._hash and self._parts == other._parts

    def __repr__(self) -> str:
        return f"<_Key {self._parts!r}>"


def _key(asker: Asker, account: Account, role: Role) -> Hashable:
    return _Key(asker.identity.key, _region(asker, account), account.partition, account.id, role)


def _is_final(error: Exception) -> bool:
    return _sts.is_final(error) or isinstance(error, SourceError)
