"""Fleet file: sources, role, accounts, regions and limits as one TOML file, `asyncauth.toml`.

The dataclasses are the format: the reader checks by them, and the JSON schema beside this file is generated from them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from asyncauth._errors import ConfigurationError
from asyncauth._models.account_records import AccountRecord, RoleRecord, read_account
from asyncauth._models.typed_tables import Location, parse_toml, read_table

FILE_NAME: Final = "asyncauth.toml"


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
        tags: AWS tags that an account must have; costs a call for each account.
        states: states in which an account is available.
        organization_id: the id of the expected organization.
        management: what is done with the management account.
    """

    account: str | None = None
    partition: str = "aws"
    parents: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
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
        role: the role to assume in each account that has none of its own.
        regions: the regions of a run: names and patterns.
        sources: base credentials by partition; by default boto's chain.
        pool: settings of the pool.
        rate_limits: limits on the calls to services.
        run: options of runs.
        accounts: accounts.
        discovery: where other accounts are found.
    """

    role: str | RoleRecord = "manage-role"
    regions: tuple[str, ...] | None = None
    sources: Mapping[str, SourceTable] = field(default_factory=dict)
    pool: PoolTable = field(default_factory=PoolTable)
    rate_limits: tuple[RateLimitTable, ...] = ()
    run: RunTable = field(default_factory=RunTable)
    accounts: tuple[str | AccountRecord, ...] = ()
    discovery: DiscoveryTable = field(default_factory=DiscoveryTable)


_FUNCTION: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
#: Key ids of users and of temporary credentials, from the IAM User Guide ("Unique identifiers").
_KEY_ID: Final = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}\b")
_SECRET_KEY: Final = re.compile(
    r"secret|password|passwd|session_token|access_?key|refresh_?token|mfa_?token", re.IGNORECASE
)
_INSTEAD: Final = (
    "no secret belongs in this file; use a profile, variables (environment), or a function that reads them "
    "from where they are kept"
)


@dataclass(frozen=True, slots=True)
class LoadedFleetFile:
    """Fleet file that was read and checked.

    Args:
        path: the file.
        content: its content.
        document: the parsed TOML, for the places of values in messages.
    """

    path: Path
    content: FleetFile
    document: Mapping[str, Any] = field(repr=False)

    def account_records(self) -> Iterator[tuple[Any, Location]]:
        """Return the accounts in the file itself, as parsed, with their places."""
        place = Location(str(self.path), "accounts")
        return ((value, place.item(index)) for index, value in enumerate(self.document.get("accounts", ())))

    def resolve(self, path: str) -> Path:
        """Return a path in the file; a relative one is relative to the file's folder."""
        return self.path.parent / Path(path).expanduser()


def find_fleet_file(start: Path | None = None) -> Path:
    """Return the nearest `asyncauth.toml` in a folder or above it.

    Args:
        start: the folder; None: the current one.

    Raises:
        ConfigurationError: there is none.
    """
    folder = (start or Path.cwd()).resolve()
    for each in (folder, *folder.parents):
        if (each / FILE_NAME).is_file():
            return each / FILE_NAME
    raise ConfigurationError(f"there is no {FILE_NAME} in {folder} or above it")


def load_fleet_file(path: str | os.PathLike[str] | None) -> LoadedFleetFile:
    """Return a fleet file.

    Args:
        path: the file; None: the nearest `asyncauth.toml`. A file that was found, not named, must belong to the user
            and be writable by no other user, and may not set what runs code or sends credentials elsewhere: a function,
            an endpoint, a CA bundle, a proxy, a path outside its folder.

    Raises:
        ConfigurationError: the file cannot be read, holds a mistake or a secret, or breaks the rules for found files.
    """
    file = find_fleet_file() if path is None else Path(path)
    try:
        # The open file is checked, not its name, which another process could give to another file.
        with file.open("rb") as stream:
            if path is None:
                _check_owner(os.fstat(stream.fileno()), file)
            text = stream.read().decode("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: the file is not UTF-8") from None
    document = _parse(text, file)
    place = Location(str(file))
    _refuse_secrets(document, place)
    loaded = LoadedFleetFile(file, read_table(FleetFile, document, place), document)
    for value, at in loaded.account_records():
        read_account(value, at)
    if path is None:
        _check_found(loaded, place)
    return loaded


def _parse(text: str, file: Path) -> Mapping[str, Any]:
    # Comments are searched, too: a key that is commented out is still in the file.
    for number, line in enumerate(text.split("\n"), 1):
        if _KEY_ID.search(line):
            raise Location(str(file), line=number).error(f"holds an access key id; {_INSTEAD}")
    return parse_toml(text, str(file))


def _refuse_secrets(value: object, place: Location) -> None:
    if isinstance(value, Mapping):
        for name, each in value.items():
            # What an account's tags and facts are called is the user's affair.
            if _SECRET_KEY.search(name) and not re.search(r"\.(tags|facts)$", place.path):
                raise place.key(name).error(f"is a secret by its name; {_INSTEAD}")
            _refuse_secrets(each, place.key(name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _refuse_secrets(each, place.item(index))
    elif isinstance(value, str) and "://" in value and _has_password(value):
        raise place.error(f"is a URL with a password; {_INSTEAD}")


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return "@" in url


def _check_owner(status: os.stat_result, file: Path) -> None:
    if os.name != "posix":
        return  # without owners and modes in this form
    if status.st_uid != os.getuid():
        raise ConfigurationError(f"{file} was found, and belongs to another user; name it to use it all the same")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"{file} was found, and other users may write to it: chmod go-w {file}, or name it to use it all the same"
        )


def _check_found(loaded: LoadedFleetFile, place: Location) -> None:
    for where, what in _forbidden(loaded):
        raise place.key(where).error(
            f"a file that was found in a folder may not set {what}; name the file to use it all the same"
        )


def _forbidden(loaded: LoadedFleetFile) -> Iterator[tuple[str, str]]:
    """Return the settings that would let a file in a folder run code, or receive credentials."""
    content = loaded.content
    for partition, source in content.sources.items():
        if source.function is not None:
            yield f"sources.{partition}.function", "a function"
    settings = (("endpoint_url", "an endpoint"), ("ca_bundle", "a CA bundle"), ("proxy", "a proxy"))
    for name, what in settings:
        if getattr(content.pool, name) is not None:
            yield f"pool.{name}", what
    for where, path in _paths(content):
        folder = loaded.path.parent.resolve()
        if not loaded.resolve(path).resolve().is_relative_to(folder):
            yield where, "a path outside of its folder"


def _paths(content: FleetFile) -> Iterator[tuple[str, str]]:
    if content.run.journal is not None:
        yield "run.journal", content.run.journal
    for index, each in enumerate(content.discovery.files):
        yield f"discovery.files[{index}].path", each.path
    for index, profiles in enumerate(content.discovery.profiles):
        if profiles.config_file is not None:
            yield f"discovery.profiles[{index}].config_file", profiles.config_file
