"""Role credentials: finds or makes the slot of each role, and loads it by AssumeRole through every link before it.

The links are the source, an MFA session, the roles of `via`, then the role itself. A link's credentials are resolved
before the next link needs a permit, so no request waits for credentials while it holds one.

What is retried at AssumeRole, and for how long: one loop, in `_load`.

    what STS does                         next request after                        until
    throttles                             back-off, and the rate limit's turn       no caller waits (`role_slot`)
    breaks the connection, 5xx,           back-off                                  no caller waits
    or an answer that cannot be read
    is not reached, and a setting may     back-off                                8 s, if STS never answered
    be the cause: DNS, a proxy that                                               before; else as above
    does not listen or answers 5xx
    is not reached, and a setting is      never                                   -
    the cause: the proxy answers 4xx,
    a certificate, a CA bundle
    redirects (3xx)                       never                                   -
    hangs                                 4 s, on another connection, once          the load's time; then as above
    is down (the breaker is open)         back-off; one probe for each pause        no caller waits
    refuses the source's keys             a renewal of the source, if it has        the same keys come back
                                          other keys then
    anything else                         never

Back-off before attempt n + 1: `0.25 * 2 ** (n - 1)` seconds, at most 8, times a random factor between 0.5 and 1.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, cast
from weakref import WeakSet, WeakValueDictionary

import anyio

from asyncauth._aws.partitions import get_partition, partition_of_region
from asyncauth._credentials.first_request import FirstRequests
from asyncauth._credentials.identities import BaseIdentity, RoleIdentity
from asyncauth._credentials.role_slot import RoleSlot
from asyncauth._credentials.sources import Source, SourceFacts
from asyncauth._credentials.sts import assume_role, get_session_token
from asyncauth._credentials.sts_errors import (
    StsRequest,
    is_ambiguous,
    is_final,
    is_worth_repeating,
    refuses_source,
    rejects_keys,
)
from asyncauth._errors import AssumeRoleThrottled, AsyncAuthError, EndpointDown, SourceError
from asyncauth._fanout import current_attempt
from asyncauth._models import Account, Credentials, CredentialsDue, Identity, Role, permit_holder
from asyncauth._refresh import Expiring, RefreshPolicy
from asyncauth.caches import TokenKey

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._credentials.role_slot import Trouble
    from asyncauth._credentials.token_slots import TokenSlots
    from asyncauth._observability import Telemetry
    from asyncauth._runtime.clock import Clock

T = TypeVar("T")

logger: Final = logging.getLogger("asyncauth.tokens")

_BACK_OFF_SECONDS: Final = 0.25
_MAX_BACK_OFF_SECONDS: Final = 8.0

#: An AssumeRole without an answer for so long is sent again on another connection.
_HANG_SECONDS: Final = 4.0


#: A timer that fires so much too late is no evidence about STS: this process did not run.
_LATE_SECONDS: Final = 1.0


#: New keys of a link that STS refuses as well, so many times in one load, are not the cause.
_MAX_RENEWALS: Final = 3


class _KeysRenewedError(Exception):
    """STS refused the keys of a link, which has others now."""

    def __init__(self, refusal: SourceError) -> None:
        super().__init__()
        self.refusal = refusal


class _LateTimerError(Exception):
    """The time of a request was over when this process ran again; its answer may have come before that."""


class RequestGuard(Protocol):
    """What protects the STS endpoint that all accounts share: a breaker and rate limits."""

    async def assume(
        self,
        send: Callable[[bool], Awaitable[T]],
        *,
        account_id: str,
        region_name: str,
        source: Hashable,
        identity: Identity,
        on_saturated: Callable[[], None],
    ) -> T:
        """Send one AssumeRole; raises EndpointDown or CredentialsDue if nothing was sent."""
        ...


class ResolvedSource(Protocol):
    """A source that was resolved: it assumes the first role, and provides the STS clients for the others."""

    source: Source
    facts: SourceFacts
    identity: BaseIdentity

    @property
    def known_caller(self) -> str | None:
        """The caller of the source's present keys; None if it was not requested yet."""
        ...

    async def caller(self, region_name: str) -> str:
        """Return the caller of the source's present keys, from one GetCallerIdentity for all who need it."""
        ...

    async def sts_client(self, identity: Identity, region_name: str) -> Any:
        """Return an STS client that signs as `identity`, in a region of its partition."""
        ...


class _Refusal(NamedTuple):
    """A refusal of a source's keys by STS: it holds for these keys alone, until a moment."""

    keys: Credentials
    until: float
    error: SourceError


class RoleCredentials:
    """The slots of roles, found by everything that changes their token, and loaded through every link.

    Args:
        slots: the slots of the pool.
        spawn: starts a refresh in the pool's task group.
        guard: what each AssumeRole passes.
        telemetry: counts tokens for OpenTelemetry; None: nothing is counted.

    Attributes:
        assumed, failed: loads that brought a token, and loads that did not.
        refreshing: loads under way.
    """

    def __init__(
        self,
        slots: TokenSlots,
        *,
        guard: RequestGuard,
        telemetry: Telemetry | None,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        clock: Clock,
        random: random.Random,
        policy: RefreshPolicy,
    ) -> None:
        self._slots = slots
        self._spawn = spawn
        self._clock = clock
        self._random = random
        self._policy = policy
        # A load bounds each request by itself. Where a person types an MFA code there is no bound.
        self._slot_policy = replace(policy, load_timeout=None)
        self._guard = guard
        self._telemetry = telemetry
        self._identities: WeakValueDictionary[Hashable, RoleIdentity] = WeakValueDictionary()
        # An identity whose slot left the cache is in use by its clients, but no longer in `_identities`.
        self._all_identities: WeakSet[RoleIdentity] = WeakSet()
        self._refusals: dict[Hashable, _Refusal] = {}
        self._first_requests = FirstRequests(clock)
        # By region of STS: whether it ever answered, and whether its last failure may come from a setting.
        self._answered: set[str] = set()
        self._ambiguous: dict[str, bool] = {}
        self.assumed = self.failed = self.refreshing = 0

    def identity(self, source: ResolvedSource, account: Account, role: Role) -> RoleIdentity:
        """Return the identity of `role` in `account`; no request is sent yet."""
        region, arn = _region(source, account), role.arn(account)
        key = _key(source, account, role)

        def make() -> RoleSlot:
            async def load() -> Expiring[Credentials]:
                return await self._load(slot, source, account, role, region)

            slot = self._new_slot(load, arn)
            return slot

        slot = cast("RoleSlot", self._slots.slot(key, make, source))
        return self._identity(key, slot, region_name=region, account_id=account.id, role_arn=arn)

    def invalidate(self, source: ResolvedSource, account: Account, role: Role) -> bool:
        """Drop a role's token, so that the next use assumes the role anew; return whether there was one."""
        return self._slots.invalidate(_key(source, account, role))

    def close(self) -> None:
        """Release the credentials of every identity that is referenced: sessions and clients outlive the pool."""
        for identity in list(self._all_identities):
            identity.close()
        self._refusals.clear()

    def _mfa_identity(self, source: ResolvedSource, role: Role, region: str) -> RoleIdentity:
        device = Role(mfa_serial=role.mfa_serial, mfa_token=role.mfa_token)
        key = TokenKey(source.identity.key, region, partition_of_region(region).name, None, device)

        async def load() -> Expiring[Credentials]:
            _leave_target()
            client = await source.sts_client(source.identity, region)
            return await get_session_token(client, role, clock=self._clock, label=source.source.label)

        name = f"MFA session of {source.source.label}"
        slot = cast("RoleSlot", self._slots.slot(key, lambda: self._new_slot(load, name), source))
        return self._identity(key, slot, region_name=region)

    def _identity(self, key: Hashable, slot: RoleSlot, **fields: Any) -> RoleIdentity:
        # One object for all who hold it at the same time: clients keep an account's retry quota on it.
        identity = self._identities.get(key)
        if identity is None or identity.slot is not slot:
            identity = self._identities[key] = RoleIdentity(key, slot, **fields)
            self._all_identities.add(identity)
        return identity

    def _new_slot(self, load: Callable[[], Awaitable[Expiring[Credentials]]], name: str) -> RoleSlot:
        return RoleSlot(
            load,
            spawn=self._spawn,
            clock=self._clock,
            random=self._random,
            policy=self._slot_policy,
            is_denial=_is_final,
            name=name,
            load_seconds=self._policy.load_timeout,
        )

    # -- loads -------------------------------------------------------------------------------------------------

    async def _load(
        self, slot: RoleSlot, source: ResolvedSource, account: Account, role: Role, region: str
    ) -> Expiring[Credentials]:
        """Assume the role, again while STS is in trouble and a caller waits, and count how that ended."""
        _leave_target()
        is_refresh = slot.has_loaded
        self.refreshing += 1
        try:
            token = await self._assume_patiently(slot, source, account, role, region)
        except Exception as error:
            self.failed += 1
            if self._telemetry is not None:
                self._telemetry.token("failed", account.partition, error)
            raise
        finally:
            self.refreshing -= 1
            slot.end_trouble()
        self._answered.add(region)
        self.assumed += 1
        if self._telemetry is not None:
            self._telemetry.token("refreshed" if is_refresh else "assumed", account.partition)
        logger.debug("assumed %s", role.arn(account), extra={"account": account.id, "region_name": region})
        return token

    async def _assume_patiently(
        self, slot: RoleSlot, source: ResolvedSource, account: Account, role: Role, region: str
    ) -> Expiring[Credentials]:
        link = self._link_before(source, role, region)
        attempts = renewals = 0
        while True:
            try:
                if isinstance(link, RoleIdentity):
                    await link.get_frozen_credentials(deadline=slot.wanted_until)
                with anyio.CancelScope() as slot.idle_scope:
                    return await self._assume(slot, source, link, account, role, region)
                raise slot.gave_up()
            except (CredentialsDue, _LateTimerError):
                continue
            except _KeysRenewedError as renewed:
                renewals += 1
                if renewals > _MAX_RENEWALS:
                    raise renewed.refusal from renewed.refusal.__cause__
                continue
            except AsyncAuthError as error:
                trouble = _trouble_of(error)
                if trouble is None:
                    raise
                self._note_ambiguity(region, error)
                in_question = partial(self._is_in_question, region)
                if slot.note_trouble(trouble, error, is_ambiguous=in_question) <= self._clock.monotonic():
                    raise slot.gave_up() from error.__cause__
            attempts += 1
            back_off = min(_MAX_BACK_OFF_SECONDS, _BACK_OFF_SECONDS * 2.0 ** min(attempts - 1, 16))
            with anyio.CancelScope() as slot.idle_scope:
                await self._clock.sleep(back_off * self._random.uniform(0.5, 1.0))
            if slot.idle_scope.cancelled_caught:
                raise slot.gave_up()

    def _note_ambiguity(self, region: str, error: AsyncAuthError) -> None:
        if not isinstance(error.__cause__, EndpointDown):
            self._ambiguous[region] = is_ambiguous(error)

    def _is_in_question(self, region: str) -> bool:
        """Whether a setting may be the cause of the last failure; no longer once STS has answered with the settings."""
        return self._ambiguous.get(region, False) and region not in self._answered

    async def _assume(
        self, slot: RoleSlot, source: ResolvedSource, link: Identity, account: Account, role: Role, region: str
    ) -> Expiring[Credentials]:
        """Send AssumeRole as the link before it; the first of a source goes alone (`_credentials.first_request`)."""
        first, key = self._first_requests, (source.identity.key, region)
        if link is not source.identity or first.has_answer(key):
            return await self._assume_now(slot, source, link, account, role, region)
        until = first.wait_until()
        while await first.wait(key, until):
            self._check_refusal(source, await link.get_frozen_credentials(), account, role, region)
        if first.has_answer(key):
            return await self._assume_now(slot, source, link, account, role, region)
        first.begin(key)
        try:
            token = await self._assume_now(slot, source, link, account, role, region)
        except (_KeysRenewedError, CredentialsDue, AssumeRoleThrottled):
            raise
        except Exception as error:
            if not (isinstance(error, SourceError) and refuses_source(error)):
                first.note_answer(key)
            raise
        else:
            first.note_answer(key)
            return token
        finally:
            first.end(key)

    async def _assume_now(
        self, slot: RoleSlot, source: ResolvedSource, link: Identity, account: Account, role: Role, region: str
    ) -> Expiring[Credentials]:
        """Send AssumeRole when the guard lets it through."""
        keys = await link.get_frozen_credentials()
        if link is source.identity:
            self._check_refusal(source, keys, account, role, region)
        client = await source.sts_client(link, region)
        request = StsRequest.of(role, account, client.meta.region_name)

        async def send(is_probe: bool) -> Expiring[Credentials]:
            slot.idle_scope = None  # a request that was sent is waited for
            return await self._send(slot, client, role, account, request, is_probe=is_probe)

        def wait_for_saturated_limit() -> None:
            slot.note_trouble("throttled", request.saturated())

        try:
            return await self._guard.assume(
                send,
                account_id=account.id,
                region_name=request.region_name,
                source=link.key,
                identity=link,
                on_saturated=wait_for_saturated_limit,
            )
        except EndpointDown as error:
            raise request.endpoint_down(error) from error
        except SourceError as error:
            if not refuses_source(error):
                raise
            if link is source.identity:
                self._first_requests.note_refusal((link.key, region))
                error = _about_source(error, source.source.label)
            if rejects_keys(error) and await self._has_other_keys(link, keys):
                raise _KeysRenewedError(error) from None
            if link is source.identity:
                until = self._clock.monotonic() + self._random.uniform(*self._policy.denial_memory)
                self._refusals[link.key, region] = _Refusal(keys, until, error)
            raise error from error.__cause__

    async def _send(
        self, slot: RoleSlot, client: Any, role: Role, account: Account, request: StsRequest, *, is_probe: bool
    ) -> Expiring[Credentials]:
        """Send AssumeRole within the load's time; once more if it hangs, but for a probe, which is one request."""
        limit = self._policy.load_timeout
        first = limit if is_probe or (limit is not None and limit <= _HANG_SECONDS) else _HANG_SECONDS
        rest = None if limit is None else limit - (first or 0.0)
        for seconds in (first,) if first == limit else (first, rest):
            if seconds is not first and not slot.is_wanted:
                break
            slot.requests += 1
            began = self._clock.monotonic()
            with self._clock.move_on_after(seconds):
                return await assume_role(client, role, account, clock=self._clock)
        if seconds is not None and self._clock.monotonic() - began > seconds + _LATE_SECONDS:
            raise _LateTimerError
        raise request.no_answer(limit)

    def _check_refusal(
        self, source: ResolvedSource, keys: Credentials, account: Account, role: Role, region: str
    ) -> None:
        """Refuse keys that STS refused just now, without a request: ten thousand accounts need not all send one.

        Raises:
            SourceError: of the type that STS's refusal had.
        """
        refusal = self._refusals.get((source.identity.key, region))
        if refusal is None:
            return
        if self._clock.monotonic() >= refusal.until or keys != refusal.keys:
            self._refusals.pop((source.identity.key, region), None)
            return
        raise type(refusal.error)(
            str(refusal.error),
            account=account.id,
            role_arn=role.arn(account),
            region_name=region,
            code=refusal.error.code,
            attempts=0,
        )

    async def _has_other_keys(self, link: Identity, refused: Credentials) -> bool:
        """Whether a link has other keys than those that STS refused, after a renewal if there can be one.

        Many loads can meet the same refusal; the first drops the keys, and all wait for the one renewal.
        """
        return link.reject(refused.access_key_id) and await link.get_frozen_credentials() != refused

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
            hop_role = hop.effective_role(plain)
            assert hop_role is not None  # Role refuses SELF in `via`
            return self.identity(source, hop, replace(hop_role, via=role.via[:-1]))
        if role.mfa_serial is not None:
            return self._mfa_identity(source, role, region)
        return source.identity


def _leave_target() -> None:
    """Work for no target: a load's task inherits the context of the first caller, whose time is not that of all."""
    current_attempt.set(None)
    permit_holder.set(None)


def _trouble_of(error: AsyncAuthError) -> Trouble | None:
    """Return what kind of trouble an error is, of this role or of a link before it; None if repeating is no help."""
    if isinstance(error, AssumeRoleThrottled):
        return "throttled"
    if isinstance(error.__cause__, EndpointDown):
        return "down"
    return "unanswered" if is_worth_repeating(error) else None


def _about_source(error: SourceError, label: str) -> SourceError:
    """Return the error of a source without the role of one target: it is the same for all of them."""
    copy = type(error)(
        f"{label}: {str(error).partition(': ')[2]}",
        account=error.account,
        role_arn=error.role_arn,
        region_name=error.region_name,
        code=error.code,
        attempts=error.attempts,
    )
    copy.__cause__ = error.__cause__
    return copy


def _region(source: ResolvedSource, account: Account) -> str:
    return get_partition(account.partition).sts_region(source.facts.region_name)


def _key(source: ResolvedSource, account: Account, role: Role) -> TokenKey:
    return TokenKey(source.identity.key, _region(source, account), account.partition, account.id, role)


def _is_final(error: Exception) -> bool:
    return is_final(error) or isinstance(error, SourceError)
