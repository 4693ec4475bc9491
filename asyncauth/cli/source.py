"""Source options: the base credentials, the role and the token cache that a command works with."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth._models import Role, as_role
from asyncauth.caches import FileTokenCache, configured_source
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth import SessionPool
    from asyncauth._models.fleet_file import LoadedFleetFile

#: Switches the cache on for every command, as `--cache` does for one.
CACHE_VARIABLE = "ASYNCAUTH_CACHE"
_PARTITION_PREFIX = "aws"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options of the base credentials and the role.

    Args:
        profiles: profile by partition; the partition None is all of them.
        role: the role to assume where there is no fleet file.
        has_role: the role was given by name, so it replaces that of a fleet file.
        role_changes: other arguments of the role that were given, in place of those of a fleet file's role.
        fleet: the fleet file; None: there is none.
        endpoint_url: endpoint of every service; None: AWS's.
        cache: whether tokens are kept in files; None: as the fleet file has it, else not.
    """

    profiles: Mapping[str | None, str]
    role: Role
    has_role: bool
    role_changes: Mapping[str, Any]
    fleet: LoadedFleetFile | None
    endpoint_url: str | None
    cache: bool | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> SourceOptions:
        """Return the options, and remove them from `options`.

        Raises:
            click.UsageError: a value is invalid.
        """
        given = options.pop("role")
        arguments = ("external_id", "via", "role_session_name", "duration_seconds")
        changes = {name: options.pop(name, None) for name in arguments}
        changes = {name: value for name, value in changes.items() if value not in (None, ())}
        for arn in changes.get("via", ()):
            if not arn.startswith("arn:"):
                raise click.UsageError(f"--via {arn!r} must be the ARN of a role")
        try:
            name = as_role("manage-role" if given is None else given)
            role = Role(name.name, name.path, **changes)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        cache = options.pop("cache")
        if cache is None and os.environ.get(CACHE_VARIABLE, "") not in ("", "0"):
            cache = True
        return cls(
            profiles=_profiles(options.pop("profiles")),
            role=role,
            has_role=given is not None,
            role_changes=changes,
            fleet=read_fleet(options.pop("fleet")),
            endpoint_url=options.pop("endpoint_url"),
            cache=cache,
        )

    @property
    def region_name(self) -> str | None:
        """The region in AWS_REGION, which other SDKs read and botocore does not; None if botocore finds one itself."""
        if os.environ.get("AWS_DEFAULT_REGION") or len(self.profiles) > 1:
            return None
        return os.environ.get("AWS_REGION") or None

    @property
    def default_role(self) -> Role:
        """The role of accounts without one of their own.

        Raises:
            ConfigurationError: the fleet file's role is invalid.
        """
        if self.fleet is None or self.has_role:
            return self.role
        return replace(self.fleet.default_role(), **self.role_changes)

    def token_cache(self) -> FileTokenCache | None:
        """Return the cache of tokens in files; None if it is off.

        Raises:
            ConfigurationError: its directory is refused, or the fleet file holds a mistake.
        """
        if self.cache is False or (self.cache is None and self.fleet is None):
            return None
        loaded = self.fleet
        if loaded is not None and self.cache is None and not loaded.content.cache:
            return None
        try:
            if loaded is None:
                return FileTokenCache(configured=self._digests())
            return FileTokenCache(loaded.cache_directory, configured=self._digests_over(loaded))
        except (OSError, RuntimeError) as error:  # pathlib finds no home with the latter
            why = getattr(error, "strerror", None) or error
            note(f"tokens are not kept in files: the directory of the cache cannot be used ({why})")
            return None

    def _digests(self) -> Mapping[str, str | None] | str | None:
        """Return what identifies the sources of the command line without resolving them."""
        if None in self.profiles or not self.profiles:
            return configured_source(self.profiles.get(None), region_name=self.region_name)
        return {name: configured_source(profile) for name, profile in self.profiles.items() if name is not None}

    def _digests_over(self, loaded: LoadedFleetFile) -> Mapping[str, str | None] | str | None:
        """Return what identifies the sources of a fleet file, or those of the command line in their place."""
        region_name = loaded.content.pool.region_name
        if self.profiles:
            return self._digests() if region_name is None else None
        if not loaded.content.sources:
            return configured_source(region_name=region_name)
        # Functions and variables with a prefix have no stable digest, so they are resolved first.
        tables = loaded.content.sources.items()
        return {
            name: None if table.profile is None else configured_source(table.profile, region_name=region_name)
            for name, table in tables
        }

    def pool(self, **options: Any) -> SessionPool:
        """Return the pool, which is not open yet.

        Raises:
            ConfigurationError: a setting is invalid.
        """
        from asyncauth import Profile, SessionPool

        if "token_cache" not in options:
            options["token_cache"] = self.token_cache()

        sources: dict[str, Any] = {}
        if None in self.profiles:
            sources |= {"profile": self.profiles[None], "sources": None}  # in place of those of a fleet file
        elif self.profiles:
            sources["sources"] = {name: Profile(profile) for name, profile in self.profiles.items()}
        options |= sources
        if self.endpoint_url is not None:
            options["endpoint_url"] = self.endpoint_url
        if self.fleet is not None:
            if self.has_role or self.role_changes:
                options["role"] = self.default_role
            return SessionPool.from_file(self.fleet, **options)
        return SessionPool(self.role, region_name=self.region_name, **options)


def read_fleet(given: str | LoadedFleetFile | None) -> LoadedFleetFile | None:
    """Return the fleet file of an option, which is read once.

    Raises:
        ConfigurationError: it holds a mistake.
    """
    if not isinstance(given, str):
        return given
    from asyncauth._models.fleet_file import load_fleet_file

    return load_fleet_file(given)


def _profiles(values: tuple[str, ...]) -> dict[str | None, str]:
    found: dict[str | None, str] = {}
    for value in values:
        before, separator, after = value.partition("=")
        is_partition = bool(separator) and (before == _PARTITION_PREFIX or before.startswith(f"{_PARTITION_PREFIX}-"))
        partition, name = (before, after) if is_partition else (None, value)
        if partition in found:
            raise click.UsageError(f"--profile is given twice for {partition or 'all partitions'}")
        found[partition] = name
    if None in found and len(found) > 1:
        raise click.UsageError("--profile NAME is for all partitions; with several, write --profile PARTITION=NAME")
    return found
