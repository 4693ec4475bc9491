"""Sources that were handed over: keys, a session that resolves its own, a callable that is asked."""

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
from asyncauth._credentials.sources.errors import ErrorContext, explain
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


class _Given:
    """What the three have in common: a session for configuration, whose files are read once, in a thread."""

    def __init__(self, label: str, asked: SourceRequest, clock: Clock, key: Hashable) -> None:
        self.label = label
        self._asked = asked
        self._clock = clock
        self._key = key
        self._configuration: Configuration | None = None

    def forget(self) -> None:
        """Nothing is kept between loads."""

    def _open(self) -> AioSession:
        return open_session(None)

    async def _configured(self) -> Configuration:
        if self._configuration is None:
            read = await anyio.to_thread.run_sync(self._read_configuration, abandon_on_cancel=True)
            if isinstance(read, AsyncAuthError):
                raise read
            self._configuration = read
        return self._configuration

    def _read_configuration(self) -> Configuration | AsyncAuthError:
        try:
            return read_configuration(self._open(), self._asked, self.label)
        except AsyncAuthError as error:
            return error
        except (BotoCoreError, OSError, ValueError) as error:
            return explain(error, ErrorContext(self.label, None))

    def _loaded(
        self,
        credentials: Credentials,
        lifetime: float | None,
        asked_at: float,
        configuration: Configuration,
        method: str,
    ) -> Loaded:
        facts = SourceFacts(
            region_name=configuration.region_name,
            partition=configuration.partition,
            long_term=credentials.session_token is None,
            method=method,
            key=self._key,
        )
        return Loaded(Expiring(credentials, lifetime, asked_at), facts, configuration.session)

    def _lifetime(self, keys: Keys) -> float | None:
        return None if keys.expiration is None else keys.expiration.timestamp() - self._clock.time()


class KeysOrigin(_Given):
    """Keys that were handed over; they cannot be renewed."""

    def __init__(self, keys: Keys, asked: SourceRequest, *, clock: Clock) -> None:
        super().__init__(f"keys ...{keys.access_key_id[-4:]}", asked, clock, ("keys", fingerprint(keys.access_key_id)))
        self._keys = keys

    async def load(self) -> Loaded:
        """Return the keys, as long as they are good."""
        now = self._clock.monotonic()
        configuration = await self._configured()
        lifetime = self._lifetime(self._keys)
        if lifetime is not None and lifetime <= 0:
            raise SourceExpired(
                f"{self.label} ended at {self._keys.expiration:%Y-%m-%dT%H:%M:%SZ}; open a pool with new ones, or give "
                "it a callable that fetches them"
            )
        return self._loaded(_credentials(self._keys), lifetime, now, configuration, "keys")


class CallableOrigin(_Given):
    """An async callable of the user's; it is asked again when what it gave nears its end."""

    def __init__(self, fetch: Callable[[], Awaitable[Keys]], asked: SourceRequest, *, clock: Clock) -> None:
        super().__init__(f"the callable {_name(fetch)}", asked, clock, ("callable", object()))
        self._fetch = fetch

    async def load(self) -> Loaded:
        """Ask the callable."""
        configuration = await self._configured()
        now = self._clock.monotonic()
        keys = await self._ask()
        lifetime = self._lifetime(keys)
        if lifetime is not None and lifetime <= 0:
            raise SourceExpired(f"{self.label} returned keys that ended at {keys.expiration:%Y-%m-%dT%H:%M:%SZ}")
        return self._loaded(_credentials(keys), lifetime, now, configuration, "callable")

    async def _ask(self) -> Keys:
        try:
            returned: Any = self._fetch()
            keys = await returned if inspect.isawaitable(returned) else None
        except AsyncAuthError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a user's callable raises, it is the source that failed
            raise SourceError(
                f"{self.label} raised {type(error).__name__}; see the cause", code=type(error).__name__
            ) from strip_frame_locals(error)
        if keys is None and not inspect.isawaitable(returned):
            raise SourceError(
                f"{self.label} must be async: it returned {type(returned).__name__} instead of something to await "
                "(a function that blocks goes through anyio.to_thread.run_sync)"
            )
        if not isinstance(keys, Keys):
            raise SourceError(f"{self.label} must return asyncauth.Keys, it returned {type(keys).__name__}")
        return keys


class SessionOrigin(_Given):
    """An aiobotocore session, the user's own: its credentials object is asked, and renews itself.

    After AWS rejected its credentials it is asked again, but what it then says is its own affair.
    """

    def __init__(self, session: AioSession, asked: SourceRequest, *, clock: Clock) -> None:
        super().__init__(f"the {type(session).__name__}", asked, clock, ("session", object()))
        self._session = session

    def _open(self) -> AioSession:
        return self._session

    async def load(self) -> Loaded:
        """Ask the session's credentials object."""
        configuration = await self._configured()
        answer = await self._ask(configuration)
        if isinstance(answer, AsyncAuthError):
            raise answer
        return answer

    async def _ask(self, configuration: Configuration) -> Loaded | AsyncAuthError:
        try:
            credentials = await self._session.get_credentials()
            if credentials is None:
                return NoSourceCredentials(f"{self.label} that was given as source has no credentials")
            frozen: Any = await credentials.get_frozen_credentials()
            now = self._clock.monotonic()
            lifetime = seconds_left(credentials)
        except AsyncAuthError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a session of the user's may hold any class of credentials
            return explain(error, ErrorContext(self.label, self._session.profile))
        if lifetime is not None and lifetime <= 0:
            return SourceExpired(f"the credentials of {self.label} that was given as source have ended")
        found = Credentials(frozen.access_key, frozen.secret_key, frozen.token, getattr(frozen, "account_id", None))
        return self._loaded(found, lifetime, now, configuration, "session")


def _credentials(keys: Keys) -> Credentials:
    return Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token, expiration=keys.expiration)


def _name(fetch: object) -> str:
    inner = getattr(fetch, "func", fetch)
    return getattr(inner, "__qualname__", type(inner).__qualname__)
