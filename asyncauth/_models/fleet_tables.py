"""Tables of a fleet file: sources, roles, accounts, discovery, regions, limits and options of runs, as dataclasses.

They are the format of the file: the reader checks by them, and the JSON schema beside them is generated from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from asyncauth._errors import ConfigurationError
from asyncauth._models.account_records import AccountRecord, RoleRecord

_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class SourceTable:
    """Base credentials of one partition: one of the keys.

    Args:
        profile: a profile of boto's configuration files.
        environment: prefix of the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, such as
            CN_; with an empty prefix it is these variables themselves.
        function: an async function that returns Keys, as module:function.
    """

    profile: str | None = None
    environment: str | None = None
    function: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__slots__ if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigurationError(
                f"a source has one of profile, environment and function, got {' and '.join(given) or 'none'}"
            )
        if self.function is not None and not _FUNCTION.fullmatch(self.function):
            raise ConfigurationError("function must be module:function")


@dataclass(frozen=True, slots=True)
class PoolTable:
    """Settings of the pool.

    Args:
        region_name: the sources' region, which AssumeRole requests go to.
        max_at_once: how many targets a run works on at the same time by default.
        allow_long_term: allow the direct use of long-term keys.
        allow_http_sts: allow STS over plain http on another machine.
        endpoint_url: the endpoint of every client, a test server.
        ca_bundle: path of a file with CA certificates.
        proxy: URL of the proxy of every client.
    """

    region_name: str | None = None
    max_at_once: int = 100
    allow_long_term: bool = False
    allow_http_sts: bool = False
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class RateLimitTable:
    """Limit on the calls to a service.

    Args:
        service: boto's name of the service.
        per: what is counted separately.
        rate: requests a second.
        burst: how many requests may go at once after a pause.
        action: only this operation, or a pattern.
        account: only in this account.
        region: only in this region, or a pattern.
        max_at_once: requests in flight at the same time.
    """

    service: str
    per: tuple[Literal["account", "region", "action", "source"], ...] = ("account", "region")
    rate: float | None = None
    burst: int | None = None
    action: str | None = None
    account: str | None = None
    region: str | None = None
    max_at_once: int | None = None


@dataclass(frozen=True, slots=True)
class RunTable:
    """Options of runs.

    Args:
        max_at_once: targets at the same time.
        max_at_once_per_account: how many of them in one account.
        max_at_once_per_region: how many of them in one region.
        timeout: seconds for one target.
        deadline: seconds for the whole run.
        failure_tolerance: how many targets may fail; a fraction if it has a decimal point.
        failure_mode: strict never runs more targets than may still fail.
        retry: attempts at a target after transient errors.
        journal: path of the file that a run is resumed from.
        progress: show the progress.
    """

    max_at_once: int | None = None
    max_at_once_per_account: int | None = None
    max_at_once_per_region: int | None = None
    timeout: float | None = None
    deadline: float | None = None
    failure_tolerance: int | float | None = None
    failure_mode: Literal["strict", "soft"] | None = None
    retry: int | None = None
    journal: str | None = None
    progress: bool | None = None

    def keywords(self) -> dict[str, Any]:
        """Return the options that the file has."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}


@dataclass(frozen=True, slots=True)
class OrganizationTable:
    """Accounts of an organization.

    Args:
        account: ARN of a role in the management account or a delegated administrator; by default the source itself.
        partition: the partition of the organization if the source itself lists it.
        parents: ids of organizational units or roots; by default all accounts.
        exclude: ids of organizational units and accounts.
        role: the role to assume in its accounts; a name in roles is that role. By default the file's role.
        tags: AWS tags that an account must have; costs a call for each account.
        states: states in which an account is available.
        organization_id: the id of the expected organization.
        management: what is done with the management account.
    """

    account: str | None = None
    partition: str = "aws"
    parents: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    role: str | None = None
    tags: Mapping[str, str] | None = None
    states: tuple[str, ...] = ("ACTIVE",)
    organization_id: str | None = None
    management: Literal["auto", "skip", "role"] = "auto"


@dataclass(frozen=True, slots=True)
class ProfilesTable:
    """Accounts that profiles name.

    Args:
        config_file: path of the configuration file; by default boto's.
        match: a pattern of profile names.
    """

    config_file: str | None = None
    match: str = "*"


@dataclass(frozen=True, slots=True)
class PortalTable:
    """Accounts of a login of IAM Identity Center.

    Args:
        sso_session: the name of an sso-session section of boto's configuration.
        role: the name of the role; * for every role of every account.
    """

    sso_session: str
    role: str


@dataclass(frozen=True, slots=True)
class FileTable:
    """Accounts of another file.

    Args:
        path: path of the file, relative to the fleet file.
    """

    path: str


@dataclass(frozen=True, slots=True)
class DiscoveryTable:
    """Where accounts are found beside those in the file itself.

    Args:
        organizations: organizations.
        profiles: profiles of boto's configuration files.
        portals: logins of IAM Identity Center.
        files: other files of accounts.
        exclude: accounts that are left out, wherever they are found.
    """

    organizations: tuple[OrganizationTable, ...] = ()
    profiles: tuple[ProfilesTable, ...] = ()
    portals: tuple[PortalTable, ...] = ()
    files: tuple[FileTable, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetFile:
    """Fleet file of asyncauth.

    Args:
        role: the role to assume in each account that has none of its own; a name in roles is that role.
        roles: roles by a name that accounts refer to; a table, whose name is by default the key, or a chain as an array
            of names and ARNs.
        cache: keep tokens in files for the next run; a directory, relative to the fleet file, or true for the default
            one, ~/.cache/asyncauth/tokens.
        regions: the regions of a run: names and patterns.
        sources: base credentials by partition; by default boto's chain.
        pool: settings of the pool.
        rate_limits: limits on the calls to services.
        run: options of runs.
        accounts: accounts.
        discovery: where other accounts are found.
    """

    role: str | RoleRecord = "manage-role"
    roles: Mapping[str, RoleRecord | tuple[str, ...]] = field(default_factory=dict)
    cache: bool | str = False
    regions: tuple[str, ...] | None = None
    sources: Mapping[str, SourceTable] = field(default_factory=dict)
    pool: PoolTable = field(default_factory=PoolTable)
    rate_limits: tuple[RateLimitTable, ...] = ()
    run: RunTable = field(default_factory=RunTable)
    accounts: tuple[str | AccountRecord, ...] = ()
    discovery: DiscoveryTable = field(default_factory=DiscoveryTable)
