"""Discovery: accounts as async iterators, from files, profiles, organizations and portals.

async with SessionPool(role="manage-role") as pool:
    report = await pool.map(job, file_accounts("accounts.csv"))
"""

from __future__ import annotations

from asyncauth.discovery.composition import Accounts, chain, exclude, only, unique
from asyncauth.discovery.files import file_accounts
from asyncauth.discovery.fleet import FleetRun, fleet_accounts, fleet_run
from asyncauth.discovery.organizations import organization_accounts
from asyncauth.discovery.portal import sso_accounts
from asyncauth.discovery.profiles import profile_accounts

__all__ = [
    "Accounts",
    "FleetRun",
    "chain",
    "exclude",
    "file_accounts",
    "fleet_accounts",
    "fleet_run",
    "only",
    "organization_accounts",
    "profile_accounts",
    "sso_accounts",
    "unique",
]
