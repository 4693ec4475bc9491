"""Which source is meant, by the rule of old: a profile wins over keys, keys over boto's chain."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from aiobotocore.session import AioSession

from asyncauth._credentials.sources.boto_chain import PATIENCE_SECONDS, ChainOrigin
from asyncauth._credentials.sources.configuration import SourceRequest
from asyncauth._credentials.sources.explicit import CallableOrigin, KeysOrigin, SessionOrigin
from asyncauth._credentials.sources.source import Origin, Source
from asyncauth._errors import ConfigurationError
from asyncauth._models import Keys, Profile

if TYPE_CHECKING:
    import random as random_module

    from asyncauth._refresh import RefreshPolicy
    from asyncauth._runtime.clock import Clock

    Spawn: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]

#: What `source=` takes: keys, a profile, an aiobotocore or aioboto3 session, an async callable; None: boto's chain.
SourceSpec: TypeAlias = "Keys | Profile | AioSession | Callable[[], Awaitable[Keys]] | Any | None"


class SourceIgnoredWarning(UserWarning):
    """Keys were given beside a profile: the profile is used, as the synchronous class always did."""


def choose_source(
    source: SourceSpec = None, keys: Keys | None = None, profile: Profile | str | None = None
) -> SourceSpec:
    """Return what to make the source of: `source`, else the profile, else the keys, else None (boto's chain).

    Raises:
        ConfigurationError: `source` came together with one of the others, or nothing can be made of it.
    """
    if source is not None:
        beside = [name for name, value in (("keys", keys), ("profile", profile)) if value is not None]
        if beside:
            raise ConfigurationError(f"source= was given together with {' and '.join(f'{name}=' for name in beside)}")
        return _check(source)
    if keys is not None and not isinstance(keys, Keys):
        raise ConfigurationError(
            f"keys= must be Keys(access_key_id, secret_access_key), got {_kind(keys)}; for a profile write profile=name"
        )
    if profile is None:
        return keys
    chosen = profile if isinstance(profile, Profile) else Profile(profile)
    if keys is not None:
        warnings.warn(
            f"profile {chosen.name!r} and {keys!r} were both given; the profile is used, the keys are ignored",
            SourceIgnoredWarning,
            stacklevel=3,  # whoever made the pool
        )
    return chosen


def make_source(
    spec: SourceSpec,
    *,
    partition: str | None = None,
    region_name: str | None = None,
    spawn: Spawn,
    clock: Clock,
    random: random_module.Random,
    policy: RefreshPolicy,
    allow_http_sts: bool = False,
) -> Source:
    """Return the source for what was given; nothing is read or asked yet.

    Args:
        spec: `Keys`, `Profile`, an aiobotocore or aioboto3 session, an async callable that returns `Keys`, or None for
            boto's default chain.
        partition: the partition these credentials are of, where the caller knows it.
        region_name: goes before the region that the source is configured with.
        spawn: starts a task in the pool's task group.
        allow_http_sts: let boto send requests for credentials in the clear to other machines (STS, SSO, sign-in).
        clock, random, policy: as for every expiring slot. What boto resolves may take 60 s where the policy allows a
            load less: there may be a person to type a code, or a program that opens a browser.

    Raises:
        ConfigurationError: `spec` is none of these.
    """
    asked = SourceRequest(partition, region_name)
    origin: Origin
    if spec is None or isinstance(spec, Profile):
        origin = ChainOrigin(
            None if spec is None else spec.name, asked, spawn=spawn, clock=clock, allow_http=allow_http_sts
        )
        policy = _patient(policy)
    elif isinstance(spec, Keys):
        origin = KeysOrigin(spec, asked, clock=clock)
    elif (session := _aio_session(spec)) is not None:
        origin = SessionOrigin(session, asked, clock=clock)
    else:
        origin = CallableOrigin(_check(spec), asked, clock=clock)
    return Source(origin, spawn=spawn, clock=clock, random=random, policy=policy)


def _check(spec: Any) -> Any:
    if isinstance(spec, Keys | Profile) or _aio_session(spec) is not None:
        return spec
    if callable(spec) and not isinstance(spec, type):
        return spec
    raise ConfigurationError(f"cannot make a source of {_kind(spec)}; {_hint(spec)}")


def _patient(policy: RefreshPolicy) -> RefreshPolicy:
    if policy.load_timeout is None or policy.load_timeout >= PATIENCE_SECONDS:
        return policy
    return replace(policy, load_timeout=PATIENCE_SECONDS)


def _aio_session(spec: object) -> AioSession | None:
    """Return an aiobotocore session, or the one inside an aioboto3 session (which is not imported for that)."""
    for candidate in (spec, getattr(spec, "_session", None)):
        if isinstance(candidate, AioSession):
            return candidate
    return None


def _kind(spec: object) -> str:
    return f"the class {spec.__qualname__}" if isinstance(spec, type) else f"a {type(spec).__qualname__}"


def _hint(spec: object) -> str:
    if isinstance(spec, str):
        return "for a profile write Profile(name) or profile=name"
    if hasattr(spec, "get_credentials"):
        return "a synchronous session would block the event loop: give its profile, or an aioboto3 session"
    return "it takes Keys, Profile, an aiobotocore or aioboto3 session, or an async callable that returns Keys"
