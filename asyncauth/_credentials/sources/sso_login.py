"""Login of IAM Identity Center: the access token that `aws sso login` cached, refreshed once for all processes.

The cache is boto's and the AWS CLI's own. No browser is opened and no process is started: a login that cannot be
refreshed is an error that names the command.

Refreshes exclude each other by a lock on a file beside the cache, which ends with its process. Windows has no such
lock: two processes may refresh at the same time there; the refresh token of the second is refused, and it uses what the
first has written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import threading
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from anyio.to_thread import run_sync
from botocore import UNSIGNED
from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._aws.error_codes import error_code
from asyncauth._errors import ConfigurationError, SourceExpired
from asyncauth._runtime.clock import SYSTEM_CLOCK, Clock

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: see the docstring of this module
    fcntl = None  # type: ignore[assignment]

#: A token is refreshed from this long before its end, as boto does.
REFRESH_WINDOW_SECONDS: Final = 15 * 60
_POLL_SECONDS: Final = 0.2
#: A refresh that got no answer is not repeated sooner: all roles of a login wait for it, one after the other.
_REPEAT_SECONDS: Final = 5

#: What flock(2) answers where another process has the lock.
_TAKEN: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)

#: CreateToken's answers that stay the same for the same refresh token ("Errors" of CreateToken in the API reference).
_REFUSALS: Final = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidClientException",
        "InvalidGrantException",
        "UnauthorizedClientException",
    }
)

_NEEDED_TO_REFRESH: Final = ("refreshToken", "clientId", "clientSecret", "registrationExpiresAt")


@dataclass(frozen=True, slots=True)
class _FailedRefresh:
    """Refresh that failed: with which token, why, and until when it is not repeated."""

    refresh_token: str = field(repr=False)
    reason: str
    until: float


@dataclass(slots=True)
class SsoLogin:
    """Login of one `sso-session` of boto's configuration.

    Args:
        name: the name of the session.
        region_name: the region of its portal.
        start_url: the address of its portal.
        session: the session whose clients call the portal.
        clock: the source of time.
    """

    name: str
    region_name: str
    start_url: str
    session: AioSession = field(repr=False)
    clock: Clock = field(default=SYSTEM_CLOCK, repr=False)
    _lock: anyio.Lock = field(default_factory=anyio.Lock, repr=False)
    _failed: _FailedRefresh | None = field(default=None, repr=False)

    @property
    def cache_file(self) -> Path:
        """The file in which boto and the AWS CLI keep the login."""
        digest = hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()
        return Path("~/.aws/sso/cache").expanduser() / f"{digest}.json"

    def client(self, service: str) -> AbstractAsyncContextManager[Any]:
        """Return a client of `sso` or `sso-oidc`, whose requests carry a token in place of a signature."""
        # The standard mode waits out 429 with back-off: other programs of the user share the portal's rate.
        config = AioConfig(signature_version=UNSIGNED, retries={"mode": "standard", "total_max_attempts": 8})
        made: AbstractAsyncContextManager[Any] = self.session.create_client(
            service, region_name=self.region_name, config=config
        )
        return made

    async def access_token(self) -> str:
        """Return a valid access token, after a refresh if its end is near.

        Raises:
            SourceExpired: there is no login, or it has expired and cannot be refreshed.
        """
        login = await self._read()
        if self._remaining(login) > REFRESH_WINDOW_SECONDS:
            return str(login["accessToken"])
        async with self._lock:
            login = await self._refresh(await self._read())
        if self._remaining(login) > 0:
            return str(login["accessToken"])
        raise self.expired()

    def expired(self) -> SourceExpired:
        """Return the error for a login that has ended."""
        reason = f" and could not be refreshed ({self._failed.reason})" if self._failed and self._failed.reason else ""
        return SourceExpired(
            f"the login of the sso-session {self.name!r} has expired{reason}; "
            f"run: aws sso login --sso-session {self.name}"
        )

    def _may_refresh(self, login: Mapping[str, Any]) -> bool:
        """Return whether a login has what a refresh requires, and none failed with it just now."""
        if any(name not in login for name in _NEEDED_TO_REFRESH):
            return False
        if self._remaining(login, "registrationExpiresAt") <= 0:
            return False
        failed = self._failed
        return failed is None or failed.refresh_token != login["refreshToken"] or self.clock.time() >= failed.until

    async def _read(self) -> Mapping[str, Any]:
        """Return the cached login; an empty one if there is none."""
        try:
            login = json.loads(await run_sync(self.cache_file.read_bytes))
        except (OSError, ValueError):
            return {}
        return login if isinstance(login, Mapping) else {}

    def _remaining(self, login: Mapping[str, Any], name: str = "expiresAt") -> float:
        """Return the seconds until a login, or another date in it, ends; 0 if it has no date or token."""
        try:
            ends = datetime.fromisoformat(str(login[name]).replace("UTC", "+00:00"))
        except (KeyError, ValueError):
            return 0
        if not isinstance(login.get("accessToken"), str):
            return 0
        ends = ends if ends.tzinfo is not None else ends.replace(tzinfo=UTC)
        return ends.timestamp() - self.clock.time()

    async def _refresh(self, login: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the login after a refresh by this process or another; the old one if it cannot be refreshed."""
        path = self.cache_file.with_suffix(".json.lock")
        while self._remaining(login) <= REFRESH_WINDOW_SECONDS:
            if not self._may_refresh(login):
                return login
            lock = _RefreshLock(path)
            try:
                if await run_sync(lock.take):
                    login = await self._read()  # another process may have refreshed it before this one had the lock
                    if self._remaining(login) <= REFRESH_WINDOW_SECONDS and self._may_refresh(login):
                        login = await self._create_token(login)
                    return login
            finally:
                lock.release()
            # Another process refreshes. A refresh token is accepted once, so its result is the only one.
            await self.clock.sleep(_POLL_SECONDS)
            login = await self._read()
        return login

    async def _create_token(self, login: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            # Shielded: a token that was created and not kept ends the login, since the old refresh token is used up.
            with anyio.CancelScope(shield=True), anyio.fail_after(30):
                async with self.client("sso-oidc") as oidc:
                    answer = await oidc.create_token(
                        grantType="refresh_token",
                        clientId=login["clientId"],
                        clientSecret=login["clientSecret"],
                        refreshToken=login["refreshToken"],
                    )
                ends = datetime.fromtimestamp(self.clock.time() + answer["expiresIn"], UTC)
                renewed = {
                    **login,
                    "accessToken": answer["accessToken"],
                    "expiresAt": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "refreshToken": answer.get("refreshToken", login["refreshToken"]),
                }
                await run_sync(_write, self.cache_file, json.dumps(renewed))
        except (ClientError, BotoCoreError, TimeoutError) as error:
            # Another process may have refreshed it all the same. Else the old token is used to its end; past it, the
            # caller raises SourceExpired.
            self._note_failure(str(login["refreshToken"]), error)
            return await self._read() or login
        self._failed = None
        return renewed

    def _note_failure(self, refresh_token: str, error: Exception) -> None:
        """Keep the other roles of the login from the same request: all of them would get the same answer."""
        code = error_code(error) if isinstance(error, ClientError) else None
        if code in _REFUSALS:
            self._failed = _FailedRefresh(refresh_token, "", math.inf)
        else:
            reason = code or type(error).__name__
            self._failed = _FailedRefresh(refresh_token, reason, self.clock.time() + _REPEAT_SECONDS)


async def open_login(name: str, clock: Clock = SYSTEM_CLOCK) -> SsoLogin:
    """Return the login of an `sso-session` section of boto's configuration.

    Raises:
        ConfigurationError: there is no such section, or it lacks the region or address of the portal.
    """
    session = AioSession()
    config: Mapping[str, Any] = await run_sync(lambda: session.full_config)
    sections = config.get("sso_sessions", {})
    if name not in sections:
        known = ", ".join(sorted(sections)) or "none"
        raise ConfigurationError(
            f"boto's configuration has no section [sso-session {name}]; its sessions: {known}; "
            "aws configure sso-session makes one"
        )
    for key in ("sso_region", "sso_start_url"):
        if not sections[name].get(key):
            raise ConfigurationError(f"the section [sso-session {name}] of boto's configuration lacks {key}")
    return SsoLogin(name, sections[name]["sso_region"], sections[name]["sso_start_url"], session, clock)


class _RefreshLock:
    """Lock on a file that is kept: another process may wait for it, so a file that was removed would be two locks.

    The operating system ends the lock when its process ends, however it ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.Lock()
        self._descriptor: int | None = None
        self._is_released = False

    def take(self) -> bool:
        """Return whether this has the lock now; also True where files cannot be locked. Runs in a worker thread."""
        with self._mutex:
            if self._is_released:  # the caller was cancelled before this thread began
                return False
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_FOLLOW, 0o600)
            except OSError:
                return True  # a folder that is read-only: the refresh is still worth the attempt
            try:
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                return error.errno not in _TAKEN
            self._descriptor = descriptor
            return True

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        with self._mutex:
            self._is_released = True
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None


def _write(file: Path, content: str) -> None:
    """Replace a file as a whole, with access for its owner alone."""
    temporary = file.with_suffix(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
