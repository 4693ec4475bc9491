"""Settings of a worker's pool: what it needs to open one, without credentials."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, Keys, Role
from asyncauth._pool import WorkerPool
from asyncauth._runtime.printable import describe_error
from asyncauth.caches.file import FileTokenCache, default_directory
from asyncauth.engines._pickling import describe_secret, dump, is_secret

logger: Final = logging.getLogger("asyncauth.engines")

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncauth._pool.settings import Settings


@dataclass(frozen=True, slots=True, repr=False)
class ShippedKeys:
    """Keys on their way to a worker. Unlike `Keys` they can be pickled, which `ship_tokens=True` chooses."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None
    expiration: datetime | None

    @classmethod
    def of(cls, keys: Keys) -> ShippedKeys:
        """Return keys that can be pickled."""
        return cls(keys.access_key_id, keys.secret_access_key, keys.session_token, keys.expiration)

    def unpack(self) -> Keys:
        """Return the keys at the worker."""
        return Keys(self.access_key_id, self.secret_access_key, self.session_token, self.expiration)


@dataclass(frozen=True, slots=True, repr=False)
class CacheSettings:
    """The arguments of a `FileTokenCache` for a worker.

    Args:
        directory: where its entries are; None: the default folder of the worker's user.
        configured: as there: digests.
        max_entries: as there.
    """

    directory: str | None
    configured: Mapping[str, str | None] | str | None
    max_entries: int

    @classmethod
    def of(cls, cache: object) -> CacheSettings | None:
        """Return the settings of a pool's cache; None, with a warning, if it cannot be sent."""
        if cache is None:
            return None
        if isinstance(cache, FileTokenCache) and not cache.is_encrypted:
            is_default = cache.directory == default_directory()
            return cls(None if is_default else str(cache.directory), cache.configured, cache.max_entries)
        kind = "encrypted" if isinstance(cache, FileTokenCache) else f"a {type(cache).__name__}"
        logger.warning("the pool's token_cache= is %s, which stays in this process: workers go on without it", kind)
        return None

    def open(self) -> FileTokenCache | None:
        """Return the cache at a worker; None, with a warning, if the worker cannot use its directory."""
        try:
            return FileTokenCache(self.directory, configured=self.configured, max_entries=self.max_entries)
        except (ConfigurationError, OSError) as error:
            logger.warning("this worker goes on without the pool's token_cache=: %s", describe_error(error))
            return None


@dataclass(frozen=True, slots=True, repr=False)
class PoolSettings:
    """The arguments of a worker's pool.

    Args:
        role: the role to assume.
        sources: the source by partition; the partition None is every one.
        arguments: the other arguments of `SessionPool`.
        cache: the token cache; None: none, or one that belongs to the client.
    """

    role: Role
    sources: Mapping[str | None, Any]
    arguments: Mapping[str, Any]
    cache: CacheSettings | None = None

    @classmethod
    def of(cls, settings: Settings, role: Role, *, ship_tokens: bool = False) -> PoolSettings:
        """Return the settings of workers' pools, from those of the client's pool.

        Args:
            settings: the client's.
            role: the client's pool's role.
            ship_tokens: send `Keys`, instead of a refusal.

        Raises:
            ConfigurationError: a source holds credentials, or a setting cannot be pickled; the message names it.
        """
        sources = {
            partition: sendable_source(source, _name_of(partition), ship_tokens=ship_tokens)
            for partition, source in settings.sources.items()
        }
        arguments = {
            "region_name": settings.region_name,
            "endpoint_url": settings.endpoint_url,
            "max_at_once": settings.max_at_once,
            "allow_long_term": settings.allow_long_term,
            "allow_http_sts": settings.allow_http_sts,
            "rate_limits": settings.rate_limits,
            "refresh": settings.policy,
            "config": settings.config,
            "verify": settings.verify,
        }
        for name, value in (("role", role), *arguments.items()):
            dump(value, f"the pool's {name}=")
        return cls(role, sources, arguments, CacheSettings.of(settings.cache))

    def pool(self) -> WorkerPool:
        """Return a pool with these settings, which is not open."""
        sources = {partition: unpack_source(source) for partition, source in self.sources.items()}
        cache = None if self.cache is None else self.cache.open()
        if None in sources:
            return WorkerPool(self.role, source=sources[None], token_cache=cache, **self.arguments)
        return WorkerPool(self.role, sources=sources, token_cache=cache, **self.arguments)  # type: ignore[arg-type]  # no None among them


def sendable_source(source: Any, name: str, *, ship_tokens: bool) -> Any:
    """Return a source as it can be sent.

    Raises:
        ConfigurationError: it holds credentials, or cannot be pickled.
    """
    if isinstance(source, Keys) and ship_tokens:
        return ShippedKeys.of(source)
    if is_secret(source) and not isinstance(source, Keys):
        raise ConfigurationError(
            f"{name} is {describe_secret(source)}, which holds credentials and belongs to one process; give a profile, "
            "or an async callable that each worker can call"
        )
    dump(source, name)
    return source


def unpack_source(source: Any) -> Any:
    """Return a source at the worker."""
    return source.unpack() if isinstance(source, ShippedKeys) else source


def sendable_account(account: Account, *, ship_tokens: bool) -> Account:
    """Return an account as it can be sent.

    Raises:
        ConfigurationError: its own source holds credentials, or cannot be pickled.
    """
    if account.source is None:
        return account
    name = f"the source of account {account.id}"
    return replace(account, source=sendable_source(account.source, name, ship_tokens=ship_tokens))


def _name_of(partition: str | None) -> str:
    return "the pool's source=" if partition is None else f"the pool's sources[{partition!r}]"
