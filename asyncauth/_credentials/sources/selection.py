"""Selection of the source: a profile wins over keys, keys win over boto's default chain."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from aiobotocore.session import AioSession

from asyncauth._credentials.sources.boto_chain import INTERACTIVE_LOAD_TIMEOUT_SECONDS, ChainOrigin
from asyncauth._credentials.sources.configuration import SourceRequest
from asyncauth._credentials.sources.explicit import CallableOrigin, KeysOrigin, SessionOrigin
from asyncauth._credentials.sources.source import Origin, Source
from asyncauth._credentials.sources.sso_role import SsoPortals, SsoRoleOrigin
from asyncauth._errors import ConfigurationError
from asyncauth._models import Keys, Profile, SsoRole

if TYPE_CHECKING:
    import random as random_module

    from asyncauth._refresh import RefreshPolicy
    from asyncauth._runtime.clock import Clock

    Spawn: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]

#: Values of `source=`: keys, a profile, a role of a portal, an aiobotocore or aioboto3 session, an async callable;
#: None: boto's chain.
SourceSpec: TypeAlias = "Keys | Profile | SsoRole | AioSession | Callable[[], Awaitable[Keys]] | Any | None"


class SourceIgnoredWarning(UserWarning):
    """Keys and a profile were both given: the profile is used, the keys are ignored."""


def choose_source(
    source: SourceSpec = None, keys: Keys | None = None, profile: Profile | str | None = None
) -> SourceSpec:
    """Return the specification of the source: `source`, else the profile, else the keys, else None (boto's chain).

    Raises:
        ConfigurationError: `source` was given together with one of the others, or is of none of the accepted types.
    """
    if source is not None:
        others = [name for name, value in (("keys=", keys), ("profile=", profile)) if value is not None]
        if others:
            raise ConfigurationError(f"source= was given together with {' and '.join(others)}")
        return check_source(source)
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
            stacklevel=4,  # the line that makes the pool
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
    portals: SsoPortals | None = None,
    session: AioSession | None = None,
) -> Source:
    """Return the source for a specification; it reads nothing and sends nothing yet.

    Args:
        spec: `Keys`, `Profile`, `SsoRole`, an aiobotocore or aioboto3 session, an async callable that returns `Keys`,
            or None for boto's default chain.
        partition: the partition of these credentials; None if unknown.
        region_name: used instead of the region that the source is configured with; None: that region.
        spawn: starts a task in the pool's task group.
        allow_http_sts: let boto send requests for credentials over plain http to other machines (STS, SSO, sign-in).
        portals: the portals of `SsoRole`s; None: `spec` is no `SsoRole`.
        session: whose configuration keys, callables and `SsoRole`s read; None: a new session's.
        clock, random, policy: as for every expiring slot. A load through boto may take 60 s even if the policy allows
            less: it may wait for an MFA code that is typed, or for a program that opens a browser.

    Raises:
        ConfigurationError: `spec` is of none of these types.
    """
    request = SourceRequest(partition, region_name)
    origin: Origin
    if spec is None or isinstance(spec, Profile):
        origin = ChainOrigin(
            None if spec is None else spec.name, request, spawn=spawn, clock=clock, allow_http=allow_http_sts
        )
        policy = _interactive(policy)
    elif isinstance(spec, Keys):
        origin = KeysOrigin(spec, request, clock=clock, session=session)
    elif isinstance(spec, SsoRole):
        if portals is None:
            raise ConfigurationError(f"{spec} needs the portals of a pool")
        origin = SsoRoleOrigin(spec, portals.portal(spec.session), request, clock=clock, session=session)
        policy = _interactive(policy)  # hundreds of roles can wait for their turn at the portal
    elif (own := _aio_session(spec)) is not None:
        origin = SessionOrigin(own, request, clock=clock)
    else:
        origin = CallableOrigin(check_source(spec), request, clock=clock, session=session)
    return Source(origin, spawn=spawn, clock=clock, random=random, policy=policy)


def check_source(spec: Any) -> Any:
    """Return a specification of a source.

    Raises:
        ConfigurationError: it is of none of the accepted types.
    """
    if isinstance(spec, Keys | Profile | SsoRole) or _aio_session(spec) is not None:
        return spec
    if callable(spec) and not isinstance(spec, type):
        return spec
    raise ConfigurationError(f"cannot make a source of {_kind(spec)}; {_hint(spec)}")


def _interactive(policy: RefreshPolicy) -> RefreshPolicy:
    if policy.load_timeout is None or policy.load_timeout >= INTERACTIVE_LOAD_TIMEOUT_SECONDS:
        return policy
    return replace(policy, load_timeout=INTERACTIVE_LOAD_TIMEOUT_SECONDS)


def _aio_session(spec: object) -> AioSession | None:
    """Return an aiobotocore session, or the one inside an aioboto3 session, without an import of aioboto3."""
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
    return "it takes Keys, Profile, SsoRole, an aiobotocore or aioboto3 session, or an async callable that returns Keys"
