"""Accounts of a fleet file, those in it and those that its discovery section finds, and the settings of its runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, cast

from anyio.to_thread import run_sync

from asyncauth._errors import ConfigurationError
from asyncauth._models.account_records import role_in
from asyncauth._models.fleet_file import LoadedFleetFile, load_fleet_file
from asyncauth.discovery.composition import chain, exclude, iterate
from asyncauth.discovery.files import accounts_of, file_accounts
from asyncauth.discovery.organizations import organization_accounts
from asyncauth.discovery.portal import sso_accounts
from asyncauth.discovery.profiles import profile_accounts

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from asyncauth._models import Account
    from asyncauth._models.fleet_tables import OrganizationTable
    from asyncauth._pool import SessionPool
    from asyncauth._resilience import RateLimit
    from asyncauth._runs import RunKeywords
    from asyncauth.discovery.composition import Accounts


def fleet_accounts(
    path: str | os.PathLike[str] | None = None, pool: SessionPool | None = None
) -> AsyncIterator[Account]:
    """Return the accounts of a fleet file, `asyncauth.toml`, each account and role once.

    Args:
        path: the file; None: the nearest one, under the rules of `SessionPool.from_file`.
        pool: the open pool that lists organizations; needed only if the file has organizations.

    Raises:
        ConfigurationError: raised when the accounts are read: the file holds a mistake, or has organizations and `pool`
            is None.

    Example:
        async with SessionPool.from_file("asyncauth.toml") as pool:
            report = await pool.map(job, fleet_accounts("asyncauth.toml", pool), **pool.run_options)
    """
    return _iterate(path, pool)


@dataclass(frozen=True, slots=True)
class FleetRun:
    """Settings of a fleet file for its runs: what `pool.map` takes beside the job and the accounts.

    Args:
        path: the file that was read.
        regions: the regions of a run; None: each account's own, else its partition's default region.
        options: the options of a run that the file sets, with the journal's path resolved.
        rate_limits: the limits on the calls to services. A pool of `SessionPool.from_file` has them already.
        cache: whether the file keeps tokens in files (`FileTokenCache`). A pool of `SessionPool.from_file` does so.
        cache_directory: the directory of these files; None: the default one.

    Example:
        run = fleet_run("asyncauth.toml")
        async with SessionPool.from_file(run.path) as pool:
            report = await pool.map(job, fleet_accounts(run.path, pool), run.regions, **run.options)
    """

    path: Path
    regions: tuple[str, ...] | None
    options: RunKeywords
    rate_limits: tuple[RateLimit, ...]
    cache: bool
    cache_directory: Path | None


def fleet_run(path: str | os.PathLike[str] | None = None) -> FleetRun:
    """Return the settings of a fleet file, `asyncauth.toml`, for its runs.

    Args:
        path: the file; None: the nearest one, under the rules of `SessionPool.from_file`.

    Raises:
        ConfigurationError: there is no file, or it holds a mistake.

    Example:
        timeout = fleet_run("asyncauth.toml").options.get("timeout")
    """
    loaded = load_fleet_file(path)
    return FleetRun(
        path=loaded.path,
        regions=loaded.content.regions,
        options=cast("RunKeywords", loaded.run_keywords()),
        rate_limits=_rate_limits(loaded),
        cache=bool(loaded.content.cache),
        cache_directory=loaded.cache_directory,
    )


def _rate_limits(loaded: LoadedFleetFile) -> tuple[RateLimit, ...]:
    if not loaded.content.rate_limits:
        return ()
    # Imported if there are limits: it imports aiobotocore.
    from asyncauth._pool.from_file import rate_limits

    return tuple(rate_limits(loaded))


async def _iterate(path: str | os.PathLike[str] | None, pool: SessionPool | None) -> AsyncGenerator[Account, None]:
    loaded = path if isinstance(path, LoadedFleetFile) else await run_sync(load_fleet_file, path)
    found = loaded.content.discovery
    if found.organizations and pool is None:
        raise ConfigurationError(f"{loaded.path} has organizations: fleet_accounts() needs the open pool to list them")
    accounts = exclude(chain(*_parts(loaded, pool)), found.exclude)
    async with aclosing(iterate(accounts)) as given:
        async for account in given:
            yield account


def _parts(loaded: LoadedFleetFile, pool: SessionPool | None) -> list[Accounts]:
    found = loaded.content.discovery
    parts: list[Accounts] = [accounts_of(loaded.account_records(), loaded.roles)]
    parts += [file_accounts(loaded.resolve(each.path)) for each in found.files]
    for table in found.profiles:
        config_file = None if table.config_file is None else loaded.resolve(table.config_file)
        parts.append(profile_accounts(config_file, table.match))
    parts += [sso_accounts(table.sso_session, table.role) for table in found.portals]
    if pool is not None:
        parts += [_organization(table, pool, loaded) for table in found.organizations]
    return parts


async def _organization(
    table: OrganizationTable, pool: SessionPool, loaded: LoadedFleetFile
) -> AsyncGenerator[Account, None]:
    if table.account is None:
        session = await pool.source_session(table.partition)
    else:
        session = await pool.session(table.account)
    others = {"account", "partition", "role"}
    options = {name: value for name, value in asdict(table).items() if name not in others}
    async with aclosing(iterate(organization_accounts(session, **options))) as accounts:
        async for account in accounts:
            # The management account can have a role already: that of the session, or SELF.
            if table.role is None or account.role is not None:
                yield account
            else:
                yield replace(account, role=role_in(loaded.role_named(table.role), account.id, account.partition))
