"""boto's default chain, or one profile of it, resolved by synchronous botocore in a worker thread.

In a thread, because the chain reads files, starts processes and waits on sockets. Synchronous, because aiobotocore
resolves the chain once for each client, and its profile provider had a race (aiobotocore before 3.7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError

from asyncauth._aws.plain_http import refuse_plain_http
from asyncauth._credentials.sources.configuration import (
    Configuration,
    SourceRequest,
    fingerprint,
    open_blocking_session,
    open_session,
    read_configuration,
    set_region,
)
from asyncauth._credentials.sources.errors import ErrorContext, check_keys, explain
from asyncauth._credentials.sources.expiry import seconds_left
from asyncauth._credentials.sources.not_found import no_credentials_found
from asyncauth._credentials.sources.settings import check_ca_bundle, describe_slow_setting
from asyncauth._credentials.sources.source import Loaded, SourceFacts
from asyncauth._credentials.sources.worker_thread import WorkerThread
from asyncauth._errors import AsyncAuthError, ConfigurationError, SourceExpired
from asyncauth._models import Credentials
from asyncauth._refresh import Expiring
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from botocore.session import Session

    from asyncauth._runtime.clock import Clock

#: The time for an MFA code that is typed, or for a `credential_process` that opens a browser.
INTERACTIVE_LOAD_TIMEOUT_SECONDS: Final = 60.0

#: Providers whose keys change at each load, while the profile names the identity that they belong to.
_IDENTITY_IN_PROFILE: Final = frozenset({"assume-role", "assume-role-with-web-identity", "sso", "login"})


@dataclass(frozen=True, slots=True)
class _ResolvedChain:
    """A session that found credentials, kept so that they renew themselves.

    Args:
        generation: the number of invalidations before it was resolved; it is dropped after another one.
    """

    generation: int
    session: Session
    configuration: Configuration
    credentials: Any = field(repr=False)


class ChainOrigin:
    """Base credentials that boto finds.

    Args:
        profile: the profile's name; None for the default chain, which reads AWS_PROFILE.
        request: the partition and region that the caller requested.
        allow_http: let the chain send its own requests over plain http to other machines.
    """

    def __init__(
        self,
        profile: str | None,
        request: SourceRequest,
        *,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        clock: Clock,
        allow_http: bool = False,
    ) -> None:
        self.label = "boto's default chain" if profile is None else f"profile {printable(profile)!r}"
        self._profile = profile
        self._request = request
        self._clock = clock
        self._allow_http = allow_http
        self._worker: WorkerThread[Loaded | AsyncAuthError] = WorkerThread(
            f"asyncauth {self.label}", self._resolve, spawn
        )
        self._resolved: _ResolvedChain | None = None
        self._invalidations = 0
        self._slow_setting: str | None = None
        self._key: Hashable = None

    async def load(self) -> Loaded:
        """Resolve the chain, or let the credentials that it found before renew themselves."""
        result = await self._worker.run()
        if isinstance(result, AsyncAuthError):
            raise result
        return result

    def invalidate(self) -> bool:
        """Read the files again at the next load."""
        self._invalidations += 1
        return True

    def describe_timeout(self) -> str | None:
        """Return the setting that may take too long: a `credential_process` or an MFA code; None if there is none."""
        return self._slow_setting

    def _resolve(self) -> Loaded | AsyncAuthError:
        """Run in the thread. An error is returned: raised, it would keep this frame's locals, which are secret."""
        generation = self._invalidations
        resolved = self._resolved if self._resolved is not None and self._resolved.generation == generation else None
        context = ErrorContext(self.label, self._profile)
        try:
            session, configuration = self._open() if resolved is None else (resolved.session, resolved.configuration)
            context = ErrorContext(self.label, session.profile)  # AWS_PROFILE is known now
            credentials = session.get_credentials() if resolved is None else resolved.credentials
            if credentials is None:
                return no_credentials_found(session, self.label)
            try:
                loaded = self._read(credentials, configuration, context)
            except ClientError as error:
                if not _is_passing(error):
                    raise
                loaded = self._read(credentials, configuration, context)
        except Exception as error:  # noqa: BLE001 - every error becomes one of asyncauth's, without secrets
            # A session that found no credentials is not kept: a file that is corrected must be read again.
            return error if isinstance(error, AsyncAuthError) else self._explain(error, context)
        if isinstance(loaded, Loaded):
            self._resolved = _ResolvedChain(generation, session, configuration, credentials)
        return loaded

    def _explain(self, error: Exception, context: ErrorContext) -> AsyncAuthError:
        if isinstance(error, OSError | BotoConnectionError | HTTPClientError):
            # The chain's own requests need the bundle; a provider that makes none must not fail for it.
            try:
                check_ca_bundle(open_blocking_session(self._profile), self.label)
            except ConfigurationError as missing:
                return missing
        return explain(error, context)

    def _open(self) -> tuple[Session, Configuration]:
        configuration = read_configuration(open_session(self._profile), self._request, self.label)
        session = open_blocking_session(self._profile)
        self._slow_setting = describe_slow_setting(session)
        set_region(session, configuration)
        if not self._allow_http:
            session.register("before-send", self._refuse_plain_http)
        return session, configuration

    def _refuse_plain_http(self, request: Any, event_name: str, **_: Any) -> None:
        """Check each request that the chain sends; botocore alone knows the places where an endpoint can be set."""
        refuse_plain_http(request.url, event_name.split(".")[1])

    def _read(self, credentials: Any, configuration: Configuration, context: ErrorContext) -> Loaded | AsyncAuthError:
        frozen = credentials.get_frozen_credentials()
        invalid = check_keys(frozen.access_key, frozen.secret_key, context)
        if invalid is not None:
            return invalid
        now = self._clock.monotonic()
        lifetime = seconds_left(credentials)
        if lifetime is not None and lifetime <= 0:
            return SourceExpired(f"{self.label}: the credentials that boto found ({credentials.method}) have expired")
        method = credentials.method
        if self._key is None:
            identity = configuration.identity if method in _IDENTITY_IN_PROFILE else ()
            self._key = ("chain", self._profile, method, identity or fingerprint(frozen.access_key))
        facts = SourceFacts(
            region_name=configuration.region_name,
            partition=configuration.partition,
            long_term=frozen.token is None,
            method=method,
            key=self._key,
            region_variable=configuration.region_variable,
        )
        found = Credentials(frozen.access_key, frozen.secret_key, frozen.token, getattr(frozen, "account_id", None))
        return Loaded(Expiring(found, lifetime, now), facts, configuration.session)


def _is_passing(error: ClientError) -> bool:
    """Whether STS could not fetch the key of an identity provider; the same token is accepted a moment later."""
    refusal = error.response.get("Error", {})
    return refusal.get("Code") == "InvalidIdentityToken" and "verification key" in str(refusal.get("Message"))
