"""boto's own chain, or a profile of it: resolved by synchronous botocore in a worker thread.

In a thread, because it reads files, starts processes and waits on sockets; synchronous, because aiobotocore's resolver
resolves once per client that asks, and its profile resolver has raced (aiobotocore before 3.7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.session import Session

from asyncauth._aws.plain_http import refuse_plain_http
from asyncauth._credentials.sources.configuration import (
    Configuration,
    SourceRequest,
    fingerprint,
    open_session,
    read_configuration,
    settle_region,
)
from asyncauth._credentials.sources.errors import ErrorContext, explain
from asyncauth._credentials.sources.expiry import seconds_left
from asyncauth._credentials.sources.not_found import nothing_found
from asyncauth._credentials.sources.source import Loaded, SourceFacts
from asyncauth._credentials.sources.worker_thread import Worker
from asyncauth._errors import AsyncAuthError, SourceExpired
from asyncauth._models import Credentials
from asyncauth._refresh import Expiring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from asyncauth._runtime.clock import Clock

#: How long a person or a helper program may take: an MFA code, a `credential_process` that opens a browser.
PATIENCE_SECONDS: Final = 60.0

#: boto's methods whose keys change while whom they are for is written in the profile.
_NAMED_BY_THE_PROFILE: Final = frozenset({"assume-role", "assume-role-with-web-identity", "sso", "login"})


@dataclass(frozen=True, slots=True)
class _Found:
    """What gave credentials, to be asked again; `age` tells whether it was told to be forgotten since."""

    age: int
    session: Session
    configuration: Configuration
    credentials: Any = field(repr=False)


class ChainOrigin:
    """What boto finds by itself.

    Args:
        profile: the profile's name; None is the chain as it is, AWS_PROFILE included.
        asked: the partition and region that the caller named.
        allow_http: let the chain's own requests go in the clear to other machines.
    """

    def __init__(
        self,
        profile: str | None,
        asked: SourceRequest,
        *,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        clock: Clock,
        allow_http: bool = False,
    ) -> None:
        self.label = "boto's default chain" if profile is None else f"profile {profile!r}"
        self._profile = profile
        self._asked = asked
        self._clock = clock
        self._allow_http = allow_http
        self._worker: Worker[Loaded | AsyncAuthError] = Worker(self._resolve, spawn)
        self._found: _Found | None = None
        self._forgotten = 0
        self._key: Hashable = None

    async def load(self) -> Loaded:
        """Resolve the chain, or let the credentials found before renew themselves."""
        answer = await self._worker.run()
        if isinstance(answer, AsyncAuthError):
            raise answer
        return answer

    def forget(self) -> None:
        """Resolve from the files again at the next load."""
        self._forgotten += 1

    def _resolve(self) -> Loaded | AsyncAuthError:
        """Run in the thread; an error is returned, since a frame that raises keeps its locals, and they are secret."""
        age = self._forgotten
        found = self._found if self._found is not None and self._found.age == age else None
        context = ErrorContext(self.label, self._profile)
        try:
            session, configuration = self._open() if found is None else (found.session, found.configuration)
            context = ErrorContext(self.label, session.profile)
            credentials = session.get_credentials() if found is None else found.credentials
            if credentials is None:
                return nothing_found(session, self.label)
            loaded = self._read(credentials, configuration)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told as an error of ours, without secrets
            # What never gave credentials is not kept: a file that is mended meanwhile shall be read.
            return error if isinstance(error, AsyncAuthError) else explain(error, context)
        if isinstance(loaded, Loaded):
            self._found = _Found(age, session, configuration, credentials)
        return loaded

    def _open(self) -> tuple[Session, Configuration]:
        configuration = read_configuration(open_session(self._profile), self._asked, self.label)
        session = Session(profile=self._profile)
        settle_region(session, configuration)
        if not self._allow_http:
            session.register("before-send", self._refuse_plain_http)
        return session, configuration

    def _refuse_plain_http(self, request: Any, event_name: str, **_: Any) -> None:
        """Look at each request that the chain sends; where an endpoint may be set is botocore's affair."""
        refuse_plain_http(request.url, event_name.split(".")[1])

    def _read(self, credentials: Any, configuration: Configuration) -> Loaded | AsyncAuthError:
        frozen = credentials.get_frozen_credentials()
        now = self._clock.monotonic()
        lifetime = seconds_left(credentials)
        if lifetime is not None and lifetime <= 0:
            return SourceExpired(f"{self.label}: the credentials that boto found ({credentials.method}) have ended")
        method = credentials.method
        if self._key is None:
            named = configuration.identity if method in _NAMED_BY_THE_PROFILE else ()
            whose = named or fingerprint(frozen.access_key)
            self._key = ("chain", self._profile, method, whose)
        facts = SourceFacts(
            region_name=configuration.region_name,
            partition=configuration.partition,
            long_term=frozen.token is None,
            method=method,
            key=self._key,
        )
        found = Credentials(frozen.access_key, frozen.secret_key, frozen.token, getattr(frozen, "account_id", None))
        return Loaded(Expiring(found, lifetime, now), facts, configuration.session)
