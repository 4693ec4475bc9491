"""Pool of a fleet file: the arguments of a `SessionPool`."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig

from asyncauth._errors import ConfigurationError
from asyncauth._models import Keys, Profile
from asyncauth._models.typed_tables import Location
from asyncauth._resilience import RateLimit
from asyncauth.caches import FileTokenCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncauth._models.fleet_file import LoadedFleetFile
    from asyncauth._models.fleet_tables import PoolTable, SourceTable


def pool_arguments(loaded: LoadedFleetFile) -> dict[str, Any]:
    """Return the arguments of a pool.

    Raises:
        ConfigurationError: a limit or the role is invalid, or a function cannot be imported.
    """
    content, place = loaded.content, Location(str(loaded.path))
    arguments: dict[str, Any] = {"role": loaded.default_role(), **_pool(content.pool, loaded)}
    if content.sources:
        at = place.key("sources")
        arguments["sources"] = {name: _source(table, at.key(name)) for name, table in content.sources.items()}
    if content.cache:
        arguments["token_cache"] = _token_cache(loaded)
    return {**arguments, "rate_limits": rate_limits(loaded)}


def rate_limits(loaded: LoadedFleetFile) -> list[RateLimit]:
    """Return the limits of the file.

    Raises:
        ConfigurationError: a limit is invalid.
    """
    limits, place = [], Location(str(loaded.path), "rate_limits")
    for index, table in enumerate(loaded.content.rate_limits):
        try:
            limits.append(RateLimit(**asdict(table)))
        except ConfigurationError as error:
            raise place.item(index).error(error) from None
    return limits


def _token_cache(loaded: LoadedFleetFile) -> FileTokenCache:
    try:
        return FileTokenCache(loaded.cache_directory)
    except ConfigurationError as error:
        raise Location(str(loaded.path), "cache").error(error) from None


def _pool(table: PoolTable, loaded: LoadedFleetFile) -> dict[str, Any]:
    names = ("region_name", "max_at_once", "allow_long_term", "allow_http_sts", "endpoint_url")
    arguments = {name: getattr(table, name) for name in names}
    if table.ca_bundle is not None:
        arguments["verify"] = str(loaded.resolve(table.ca_bundle))
    if table.proxy is not None:
        arguments["config"] = AioConfig(proxies={"http": table.proxy, "https": table.proxy})
    return arguments


def _source(table: SourceTable, place: Location) -> Profile | Keys | Callable[[], Awaitable[Keys]]:
    if table.profile is not None:
        return Profile(table.profile)
    if table.function is not None:
        return _function(table.function, place.key("function"))
    assert table.environment is not None
    source = _EnvironmentKeys(table.environment, place.key("environment"))
    keys = source.read()
    # Keys that do not end identify the source, so that tokens in files are found again.
    return keys if keys.expiration is None else source


def _function(name: str, place: Location) -> Callable[[], Awaitable[Keys]]:
    module, _, attribute = name.partition(":")
    try:
        found: Callable[[], Awaitable[Keys]] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise place.error(f"{name} cannot be imported: {error}") from None
    if not callable(found):
        raise place.error(f"{name} is no function")
    return found


class _EnvironmentKeys:
    """Source that reads keys from variables, at each renewal: another process may have renewed them by then."""

    def __init__(self, prefix: str, place: Location) -> None:
        self._prefix = prefix
        self._place = place

    async def __call__(self) -> Keys:
        return self.read()

    def read(self) -> Keys:
        """Return the keys.

        Raises:
            ConfigurationError: a variable is missing, or holds no key.
        """
        required = {name: f"{self._prefix}AWS_{name.upper()}" for name in ("access_key_id", "secret_access_key")}
        missing = [variable for variable in required.values() if not os.environ.get(variable)]
        if missing:
            raise self._place.error(f"the variable {' and '.join(missing)} is not set")
        expiration = os.environ.get(f"{self._prefix}AWS_CREDENTIAL_EXPIRATION")
        try:
            return Keys(
                **{name: os.environ[variable] for name, variable in required.items()},
                session_token=os.environ.get(f"{self._prefix}AWS_SESSION_TOKEN") or None,
                expiration=datetime.fromisoformat(expiration) if expiration else None,
            )
        except ValueError as error:
            raise self._place.error(error) from None
