"""Explicit sources: keys, an aiobotocore session with its own credentials, or a callable that returns keys."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from botocore.exceptions import BotoCoreError

from asyncauth._credentials.sources.configuration import (
    Configuration,
    SourceRequest,
    fingerprint,
    open_session,
    read_configuration,
)
from asyncauth._credentials.sources.errors import ErrorContext, check_keys, explain
from asyncauth._credentials.sources.expiry import seconds_left
from asyncauth._credentials.sources.source import Loaded, SourceFacts
from asyncauth._errors import AsyncAuthError, NoSourceCredentials, SourceError, SourceExpired
from asyncauth._models import Credentials, Keys
from asyncauth._refresh import Expiring
from asyncauth._runtime.exceptions import strip_frame_locals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from aiobotocore.session import AioSession

    from asyncauth._runtime.clock import Clock


class ExplicitOrigin:
    """Base class of the origins that boto does not resolve: reads the configuration once, in a thread.

    Args:
        label: what messages call the source.
        request: the settings beside the source itself.
        clock: where all time comes from.
        key: as in SourceFacts.
        session: whose configuration is read; None: a new session's.
    """

    def __init__(
        self, label: str, request: SourceRequest, clock: Clock, key: Hashable, session: AioSession | None = None
    ) -> None:
        self.label = label
        self._request = request
        self._clock = clock
        self._key = key
        self._shared_session = session
        self._configuration: Configuration | None = None

    def invalidate(self) -> bool:
        """Return True: no credentials are kept between loads."""
        return True

    def describe_timeout(self) -> str | None:
        """Return None: the label names all that a load waits for."""
        return None

    def _open(self) -> AioSession:
        return open_session(None) if self._shared_session is None else self._shared_session

    async def _configured(self) -> Configuration:
        if self._configuration is None:
            result = await anyio.to_thread.run_sync(self._read_configuration, abandon_on_cancel=True)
            if isinstance(result, AsyncAuthError):
                raise result
            self._configuration = result
        return self._configuration

    def _read_configuration(self) -> Configuration | AsyncAuthError:
        try:
            return read_configuration(self._open(), self._request, self.label)
        except AsyncAuthError as error:
            return error
        except (BotoCoreError, OSError, ValueError) as error:
            return explain(error, ErrorContext(self.label, None))

    def _loaded(
        self,
        credentials: Credentials,
        lifetime: float | None,
        obtained_at: float,
        configuration: Configuration,
        method: str,
    ) -> Loaded:
        facts = SourceFacts(
            region_name=configuration.region_name,
            partition=configuration.partition,
            long_term=credentials.session_token is None,
            method=method,
            key=self._key,
            region_variable=configuration.region_variable,
        )
        return Loaded(Expiring(credentials, lifetime, obtained_at), facts, configuration.session)

    def _lifetime(self, keys: Keys) -> float | None:
        return None if keys.expiration is None else keys.expiration.timestamp() - self._clock.time()


class KeysOrigin(ExplicitOrigin):
    """Explicit keys; they cannot be renewed."""

    def __init__(self, keys: Keys, request: SourceRequest, *, clock: Clock, session: AioSession | None = None) -> None:
        key = ("keys", fingerprint(keys.access_key_id))
        super().__init__(f"keys ...{keys.access_key_id[-4:]}", request, clock, key, session)
        self._keys = keys

    def invalidate(self) -> bool:
        """Return False: another load returns the same keys."""
        return False

    async def load(self) -> Loaded:
        """Return the keys until they expire."""
        now = self._clock.monotonic()
        configuration = await self._configured()
        lifetime = self._lifetime(self._keys)
        if lifetime is not None and lifetime <= 0:
            raise SourceExpired(
                f"{self.label} expired at {self._keys.expiration:%Y-%m-%dT%H:%M:%SZ}; open a pool with new ones, or "
                "give it a callable that fetches them"
            )
        return self._loaded(_credentials(self._keys), lifetime, now, configuration, "keys")


class CallableOrigin(ExplicitOrigin):
    """The user's async callable, called again before the keys that it returned expire."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Keys]],
        request: SourceRequest,
        *,
        clock: Clock,
        session: AioSession | None = None,
    ) -> None:
        super().__init__(f"the callable {_name(fetch)}", request, clock, ("callable", object()), session)
        self._fetch = fetch

    async def load(self) -> Loaded:
        """Call the callable."""
        configuration = await self._configured()
        now = self._clock.monotonic()
        keys = await self._call()
        lifetime = self._lifetime(keys)
        if lifetime is not None and lifetime <= 0:
            raise SourceExpired(f"{self.label} returned keys that expired at {keys.expiration:%Y-%m-%dT%H:%M:%SZ}")
        return self._loaded(_credentials(keys), lifetime, now, configuration, "callable")

    async def _call(self) -> Keys:
        try:
            returned: Any = self._fetch()
            keys = await returned if inspect.isawaitable(returned) else None
        except AsyncAuthError:
            raise
        except Exception as error:  # noqa: BLE001 - every error of the user's callable is a failure of the source
            raise SourceError(
                f"{self.label} raised {type(error).__name__}; see the cause", code=type(error).__name__
            ) from strip_frame_locals(error)
        if keys is None and not inspect.isawaitable(returned):
            raise SourceError(
                f"{self.label} must be async: it returned {type(returned).__name__} instead of an awaitable "
                "(run a blocking function through anyio.to_thread.run_sync)"
            )
        if not isinstance(keys, Keys):
            raise SourceError(f"{self.label} must return asyncauth.Keys, it returned {type(keys).__name__}")
        return keys


class SessionOrigin(ExplicitOrigin):
    """The user's aiobotocore session, whose credentials object renews itself.

    A session resolves its credentials once and keeps them. So after AWS rejected them, and if the user has not set
    other ones, the session's own chain is resolved again. Its result is used only if the same provider found it: keys
    that the user set on the session must not give way to those of another identity.
    """

    def __init__(self, session: AioSession, request: SourceRequest, *, clock: Clock) -> None:
        super().__init__(f"the {type(session).__name__}", request, clock, ("session", object()))
        self._session = session
        self._last_key_id: str | None = None
        self._rejected_key_id: str | None = None
        #: The session's credentials object, and the one that replaces it since a rejection.
        self._renewed: tuple[Any, Any] | None = None

    def invalidate(self) -> bool:
        """Resolve the session's chain at the next load, unless the session has other keys by then."""
        self._rejected_key_id = self._last_key_id
        return True

    def _open(self) -> AioSession:
        return self._session

    async def load(self) -> Loaded:
        """Return the credentials of the session."""
        configuration = await self._configured()
        result = await self._read_credentials(configuration)
        if isinstance(result, AsyncAuthError):
            raise result
        return result

    async def _read_credentials(self, configuration: Configuration) -> Loaded | AsyncAuthError:
        try:
            credentials = await self._credentials_object()
            if credentials is None:
                return NoSourceCredentials(f"{self.label} that was given as source has no credentials")
            frozen: Any = await credentials.get_frozen_credentials()
            self._last_key_id = frozen.access_key
            invalid = check_keys(frozen.access_key, frozen.secret_key, ErrorContext(self.label, None))
            if invalid is not None:
                return invalid
            now = self._clock.monotonic()
            lifetime = seconds_left(credentials)
        except AsyncAuthError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a session of the user's may hold any class of credentials
            return explain(error, ErrorContext(self.label, self._session.profile))
        if lifetime is not None and lifetime <= 0:
            return SourceExpired(f"the credentials of {self.label} that was given as source have expired")
        found = Credentials(frozen.access_key, frozen.secret_key, frozen.token, getattr(frozen, "account_id", None))
        return self._loaded(found, lifetime, now, configuration, "session")

    async def _credentials_object(self) -> Any:
        own = await self._session.get_credentials()
        current = self._renewed[1] if self._renewed is not None and self._renewed[0] is own else own
        if current is None or self._rejected_key_id is None:
            return current
        if (await current.get_frozen_credentials()).access_key != self._rejected_key_id:
            return current
        found = await self._session.get_component("credential_provider").load_credentials()
        if found is None or found.method != getattr(own, "method", None):
            return current
        self._renewed = own, found
        return found


def _credentials(keys: Keys) -> Credentials:
    return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token, expiration=keys.expiration)


def _name(fetch: object) -> str:
    inner = getattr(fetch, "func", fetch)
    return getattr(inner, "__qualname__", type(inner).__qualname__)
