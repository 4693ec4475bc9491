"""Accounts of a fleet file: those in it, and those that its discovery section finds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING

from anyio.to_thread import run_sync

from asyncauth._errors import ConfigurationError
from asyncauth._models.fleet_file import load_fleet_file
from asyncauth.discovery.composition import chain, exclude, iterate
from asyncauth.discovery.files import accounts_of, file_accounts
from asyncauth.discovery.organizations import organization_accounts
from asyncauth.discovery.portal import sso_accounts
from asyncauth.discovery.profiles import profile_accounts

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator

    from asyncauth._models import Account
    from asyncauth._models.fleet_file import LoadedFleetFile, OrganizationTable
    from asyncauth._pool import SessionPool
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


async def _iterate(path: str | os.PathLike[str] | None, pool: SessionPool | None) -> AsyncGenerator[Account, None]:
    loaded = await run_sync(load_fleet_file, path)
    found = loaded.content.discovery
    if found.organizations and pool is None:
        raise ConfigurationError(f"{loaded.path} has organizations: fleet_accounts() needs the open pool to list them")
    accounts = exclude(chain(*_parts(loaded, pool)), found.exclude)
    async with aclosing(iterate(accounts)) as given:
        async for account in given:
            yield account


def _parts(loaded: LoadedFleetFile, pool: SessionPool | None) -> list[Accounts]:
    found = loaded.content.discovery
    parts: list[Accounts] = [accounts_of(loaded.account_records())]
    parts += [file_accounts(loaded.resolve(each.path)) for each in found.files]
    for table in found.profiles:
        config_file = None if table.config_file is None else loaded.resolve(table.config_file)
        parts.append(profile_accounts(config_file, table.match))
    parts += [sso_accounts(table.sso_session, table.role) for table in found.portals]
    if pool is not None:
        parts += [_organization(table, pool) for table in found.organizations]
    return parts


async def _organization(table: OrganizationTable, pool: SessionPool) -> AsyncGenerator[Account, None]:
    if table.account is None:
        session = await pool.source_session(table.partition)
    else:
        session = await pool.session(table.account)
    options = {name: value for name, value in asdict(table).items() if name not in {"account", "partition"}}
    async with aclosing(iterate(organization_accounts(session, **options))) as accounts:
        async for account in accounts:
            yield account
