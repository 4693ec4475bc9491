"""File token cache: tokens in files of the user, shared by processes, each refreshed by one process at a time.

Each entry is one file. Its name is a digest of the source, the partition, the account, the role with all its
arguments, and the endpoint, so no part of a key is ever part of a path. An entry is written to a temporary file in the
same directory, synced and renamed: a reader sees a whole entry or none. Whatever cannot be read, has another shape or
belongs to another key counts as absent.

One configuration can lead to another identity later: a login of another person, another program behind
`credential_process`. So an entry holds the ARN of the caller that requested its token, and a file for each source has
the caller of the last refresh. Entries of a former caller count as absent.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import secrets
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from asyncauth._errors import ConfigurationError
from asyncauth._models import Credentials, Keys
from asyncauth._runtime.validation import check_count
from asyncauth.caches.protocol import CachedToken, TokenKey

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth._models import Account, Role
    from asyncauth.caches.encryption import EntryCipher

__all__ = ["FileTokenCache", "default_directory"]

_VERSION: Final = 2
_MAX_ENTRY_BYTES: Final = 64 * 1024
#: The longest lifetime that STS issues. An entry that was written earlier has expired, whatever it holds.
_MAX_AGE_SECONDS: Final = 43_200.0
#: The file of a source's caller is written when the caller changes. Without it, entries are absent: one more refresh.
_MAX_CALLER_AGE_SECONDS: Final = 30 * 86_400.0
#: A temporary file of this age belongs to a process that ended while it wrote.
_TEMPORARY_SECONDS: Final = 600.0
#: Stores between two sweeps of a process; the first store sweeps, too.
_STORES_PER_SWEEP: Final = 500
_FIRST_POLL_SECONDS: Final = 0.01
_MAX_POLL_SECONDS: Final = 0.2

_ENTRY: Final = ".token"
_CALLER: Final = ".caller"
_LOCK: Final = ".lock"
_TEMPORARY: Final = ".tmp"


class _NotCacheableError(Exception):
    """A key has a part without a stable text, such as a callable as its source, so no other process can have it."""


def default_directory() -> Path:
    """Return this user's directory: `$XDG_CACHE_HOME/asyncauth/tokens`, else `~/.cache/asyncauth/tokens`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "asyncauth" / "tokens"


class FileTokenCache:
    """Token cache in files that only this user can read, for programs that start anew for each request.

    It is off unless a program gives it to its pool. The directory has mode 0700 and the files 0600, whatever the umask;
    a directory that another user owns or can read is refused, and no symbolic link is followed. A lock on a token ends
    with the process that holds it.

    Args:
        directory: where the entries are; None: `$XDG_CACHE_HOME/asyncauth/tokens`, else `~/.cache/asyncauth/tokens`.
        configured: the digest of the source as configured (see `configured_source`), by partition or one for all. With
            it, `peek` returns a token before the source is resolved. None: an entry depends on the resolved source.
        max_entries: how many tokens are kept at most; the ones that were written first are removed first.
        encryption_key: 32 bytes, or `"keyring"` for a key in the system's keyring (extra `keyring`), with which entries
            are encrypted; None: they are not.

    Raises:
        ConfigurationError: the directory is refused, `max_entries` is no integer from 1 on, the key has another length,
            an extra is missing, or this is Windows, whose files have no modes.

    Example:
        async with SessionPool("manage-role", token_cache=FileTokenCache()) as pool:
            ...
    """

    #: Each stored token must have the ARN of its caller.
    needs_caller: Final = True

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        configured: Mapping[str, str | None] | str | None = None,
        max_entries: int = 10_000,
        encryption_key: bytes | str | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise ConfigurationError(
                "FileTokenCache is refused on Windows: modes of files do not keep other users from reading tokens there"
            )
        check_count("max_entries", max_entries)
        self.directory = default_directory() if directory is None else Path(directory)
        self.max_entries = max_entries
        self._configured = configured
        self._stores = 0
        self._cipher: EntryCipher | None = None
        if encryption_key is not None:
            from asyncauth.caches.encryption import EntryCipher

            self._cipher = EntryCipher.of(encryption_key)
        # Checked now, so that a refusal is an error of the program and no line in its log.
        with self._opened():
            pass

    @property
    def configured(self) -> Mapping[str, str | None] | str | None:
        """The digest of the source as configured, by partition or one for all."""
        return self._configured

    @property
    def is_encrypted(self) -> bool:
        """Whether entries are encrypted."""
        return self._cipher is not None

    # -- protocol --------------------------------------------------------------------------------------------------

    async def load(self, key: TokenKey) -> CachedToken | None:
        """Return the stored token; None if there is none for this key, or its entry is corrupt or has expired."""
        name = self._name(key)
        return None if name is None else await anyio.to_thread.run_sync(partial(self._load, name, key))

    async def store(self, key: TokenKey, token: CachedToken) -> None:
        """Store a token in place of any other for this key; entries of another caller of its source are absent then.

        A token without its caller is not stored.

        Raises:
            OSError: the disk is full, or the directory cannot be written. The former entry is still complete.
        """
        name = self._name(key)
        if name is not None and token.caller is not None:
            await anyio.to_thread.run_sync(partial(self._store, name, key, token))

    async def discard(self, key: TokenKey) -> None:
        """Remove the token for this key, if there is one."""
        name = self._name(key)
        if name is not None:
            await anyio.to_thread.run_sync(partial(self._discard, name))

    @asynccontextmanager
    async def lock(self, key: TokenKey) -> AsyncIterator[None]:
        """Admit one refresh of a token at a time, in all processes of this machine."""
        name = self._name(key)
        if name is None:
            yield
            return
        descriptor, pause = None, _FIRST_POLL_SECONDS
        while descriptor is None:
            descriptor = self._try_lock(name)
            if descriptor is None:
                await anyio.sleep(pause)
                pause = min(pause * 1.5, _MAX_POLL_SECONDS)
        try:
            yield
        finally:
            self._unlock(name, descriptor)

    def peek(
        self, account: Account, role: Role, *, endpoint_url: str | None = None, now: float | None = None
    ) -> CachedToken | None:
        """Return a valid token by the configured source alone: no source is resolved, and botocore is not imported.

        Args:
            account: the account.
            role: the role with all its parameters.
            endpoint_url: the pool's endpoint; None: AWS's.
            now: Unix time; None: the time of the machine.

        Returns:
            The token; None if there is none, it has expired, or the source has no stable digest.
        """
        digest = self._digest(account.partition)
        if digest is None:
            return None
        name = _hash([_VERSION, digest, account.partition, account.id, _canonical(role), endpoint_url])
        found = self._read(name)
        if found is None or found.get("account") != account.id:
            return None
        if found.get("caller") != self._last_caller(_hash([_VERSION, digest, account.partition, endpoint_url])):
            return None
        token = _token(found)
        return token if token is not None and token.expires_at > (time.time() if now is None else now) else None

    # -- names -----------------------------------------------------------------------------------------------------

    def _digest(self, partition: str) -> str | None:
        return self._configured.get(partition) if isinstance(self._configured, Mapping) else self._configured

    def _name(self, key: TokenKey) -> str | None:
        """Return the name of a key's entry; None if another process cannot have the same key."""
        try:
            role = _canonical(key.role)
            return _hash(
                [_VERSION, self._configured_or_resolved(key), key.partition, key.account_id, role, key.endpoint_url]
            )
        except _NotCacheableError:
            return None

    def _name_of_source(self, key: TokenKey) -> str:
        return _hash([_VERSION, self._configured_or_resolved(key), key.partition, key.endpoint_url])

    def _configured_or_resolved(self, key: TokenKey) -> Any:
        return self._digest(key.partition) or [_canonical(key.source), key.region_name]

    def _source_of(self, key: TokenKey) -> str:
        return _hash([_canonical(key.source)])

    # -- entries ---------------------------------------------------------------------------------------------------

    def _load(self, name: str, key: TokenKey) -> CachedToken | None:
        found = self._read(name)
        if found is None:
            return None
        token = _token(found)
        try:
            is_of_source = found.get("source") == self._source_of(key)
        except _NotCacheableError:
            is_of_source = False
        if (
            token is None
            or not is_of_source
            or found.get("account") != key.account_id
            or token.expires_at <= time.time()
            or token.caller != self._last_caller(self._name_of_source(key))
        ):
            self._discard(name)
            return None
        return token

    def _last_caller(self, name: str) -> str | None:
        """Return the caller of a source's last refresh; None if there was none."""
        found = self._read(name, _CALLER)
        return None if found is None else found.get("caller")

    def _read(self, name: str, suffix: str = _ENTRY) -> dict[str, Any] | None:
        """Return what an entry holds; None if there is none, or it is not this user's own, private, regular file."""
        try:
            with self._opened() as directory:
                # O_NONBLOCK: a named pipe in the place of an entry must not stop the program.
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name + suffix, flags, dir_fd=directory)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if _why_refused(os.fstat(descriptor), stat.S_ISREG) is not None:
                return None
            content = file.read(_MAX_ENTRY_BYTES + 1)
        if len(content) > _MAX_ENTRY_BYTES:
            return None
        if self._cipher is not None:
            opened = self._cipher.decrypt(content, name)
            if opened is None:
                return None
            content = opened
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("name") == name else None

    def _store(self, name: str, key: TokenKey, token: CachedToken) -> None:
        credentials = token.credentials
        entry = {
            "name": name,
            "source": self._source_of(key),
            "account": key.account_id,
            "caller": token.caller,
            "access_key_id": credentials.access_key_id,
            "secret_access_key": credentials.secret_access_key,
            "session_token": credentials.session_token,
            "obtained_at": token.obtained_at,
            "expires_at": token.expires_at,
        }
        source = self._name_of_source(key)
        if self._last_caller(source) != token.caller:
            # Before the entry: until both are written, no entry of the source is served.
            self._write_entry(source, _CALLER, {"name": source, "caller": token.caller})
        self._write_entry(name, _ENTRY, entry)

    def _write_entry(self, name: str, suffix: str, entry: Mapping[str, Any]) -> None:
        content = json.dumps(entry).encode()
        if self._cipher is not None:
            content = self._cipher.encrypt(content, name)
        with self._opened() as directory:
            if self._stores % _STORES_PER_SWEEP == 0:
                self._sweep(directory)
            self._stores += 1
            temporary = f"{secrets.token_hex(16)}{_TEMPORARY}"
            try:
                _write(directory, temporary, content)
                os.rename(temporary, name + suffix, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            os.fsync(directory)

    def _discard(self, name: str) -> None:
        with suppress(FileNotFoundError), self._opened() as directory:
            os.unlink(name + _ENTRY, dir_fd=directory)

    def _sweep(self, directory: int) -> None:
        """Remove temporary files of processes that ended, expired entries, and the oldest beyond the largest number."""
        now, entries = time.time(), []
        for name in os.listdir(directory):
            try:
                age = now - os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
            except FileNotFoundError:
                continue
            if name.endswith(_ENTRY):
                entries.append((age, name))
            elif (name.endswith(_TEMPORARY) and age > _TEMPORARY_SECONDS) or (
                name.endswith(_CALLER) and age > _MAX_CALLER_AGE_SECONDS
            ):
                _remove(directory, name)
        entries.sort()
        for position, (age, name) in enumerate(entries):
            if position >= self.max_entries or age > _MAX_AGE_SECONDS:
                _remove(directory, name)

    # -- locks -----------------------------------------------------------------------------------------------------

    def _try_lock(self, name: str) -> int | None:
        """Return the descriptor of a lock that this call holds; None while another process or task holds it."""
        with self._opened() as directory:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name + _LOCK, flags, 0o600, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder removes the file when it unlocks. A lock on a removed file excludes no other.
                current = os.stat(name + _LOCK, dir_fd=directory, follow_symlinks=False)
                if os.path.samestat(current, os.fstat(descriptor)):
                    return descriptor
            except (BlockingIOError, FileNotFoundError):
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
            return None

    def _unlock(self, name: str, descriptor: int) -> None:
        try:
            with suppress(OSError, ConfigurationError), self._opened() as directory:
                os.unlink(name + _LOCK, dir_fd=directory)
        finally:
            os.close(descriptor)  # releases the lock, as the end of the process does

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Provide a descriptor of the directory, which is made if it does not exist.

        All files are opened relative to it, so a directory that is replaced after the check changes nothing.

        Raises:
            ConfigurationError: it is a symbolic link, no directory, of another user, or others can read it.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(self.directory, flags)
            except FileNotFoundError:
                self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    os.mkdir(self.directory, 0o700)
                descriptor = os.open(self.directory, flags)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ConfigurationError(
                    f"the token cache {self.directory} is refused: it is a symbolic link, or no directory"
                ) from None
            raise
        try:
            why = _why_refused(os.fstat(descriptor), stat.S_ISDIR)
            if why is not None:
                raise ConfigurationError(f"the token cache {self.directory} is refused: {why}")
            yield descriptor
        finally:
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"<FileTokenCache {str(self.directory)!r}>"


def _write(directory: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # a umask of 0777 removes the owner's bits, too
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _remove(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _why_refused(found: os.stat_result, is_kind: Any) -> str | None:
    if not is_kind(found.st_mode):
        return "it is of another kind"
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}, not to this one ({os.geteuid()})"
    if found.st_mode & 0o077:
        return f"other users can read it (mode {found.st_mode & 0o777:04o}); run chmod 700 on it"
    return None


def _token(found: Mapping[str, Any]) -> CachedToken | None:
    """Return the token of an entry; None if a field is missing or has another type."""
    texts = [found.get(name) for name in ("access_key_id", "secret_access_key", "session_token", "caller")]
    times = [found.get(name) for name in ("obtained_at", "expires_at")]
    if not all(isinstance(text, str) and text for text in texts):
        return None
    if not all(type(moment) in (int, float) and math.isfinite(moment) for moment in times):  # type: ignore[arg-type]
        return None
    account = found.get("account")
    if not isinstance(account, str | None) or not 0 < times[1] - times[0] <= _MAX_AGE_SECONDS + 60:  # type: ignore[operator]
        return None
    credentials = Credentials(texts[0], texts[1], texts[2], account)  # type: ignore[arg-type]
    return CachedToken(credentials, float(times[0]), float(times[1]), texts[3])  # type: ignore[arg-type]


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _canonical(value: object) -> Any:
    """Return a value as JSON has it, the same in every process.

    Raises:
        _NotCacheableError: it has a part whose text differs between processes, such as a function.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Keys):
        return ["Keys", hashlib.sha256(value.access_key_id.encode()).hexdigest()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # The function that provides an MFA code does not change the token that the code leads to.
        names = [each.name for each in dataclasses.fields(value) if each.name != "mfa_token"]
        return [type(value).__name__, *([name, _canonical(getattr(value, name))] for name in names)]
    if isinstance(value, Mapping):
        return {"": sorted([str(name), _canonical(each)] for name, each in value.items())}
    if isinstance(value, tuple | list | frozenset):
        return [_canonical(each) for each in value]
    raise _NotCacheableError(type(value).__name__)
