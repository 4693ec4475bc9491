"""Fleet file: reads `asyncauth.toml`, refuses secrets in it, and what a file that was only found may not set."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from asyncauth._errors import ConfigurationError
from asyncauth._models.account_records import RoleRecord, RoleValue, read_account, role_in
from asyncauth._models.accounts import Role, as_role
from asyncauth._models.fleet_tables import FleetFile
from asyncauth._models.typed_tables import Location, parse_toml, read_table

FILE_NAME: Final = "asyncauth.toml"

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
    """Fleet file that was read and checked. It can be given where its path can, and is not read again then.

    Args:
        path: the file.
        content: its content.
        document: the parsed TOML, for the places of values in messages.
    """

    path: Path
    content: FleetFile
    document: Mapping[str, Any] = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def roles(self) -> Mapping[str, RoleValue]:
        """The roles that accounts refer to by name; one without a name has that of its key."""
        given = self.document.get("roles", {})
        return {
            key: replace(role, name=key) if isinstance(role, RoleRecord) and "name" not in given[key] else role
            for key, role in self.content.roles.items()
        }

    def role_named(self, name: str) -> RoleValue:
        """Return the role of the file that has this name, else the name itself, which is then AWS's."""
        return self.roles.get(name, name)

    def default_role(self) -> Role:
        """Return the role of accounts that have none of their own.

        Raises:
            ConfigurationError: it is invalid.
        """
        given = self.content.role
        role = self.role_named(given) if isinstance(given, str) else given
        try:
            if isinstance(role, tuple):
                *via, name = role
                role = RoleRecord(name, via=tuple(via))
            return role.as_role() if isinstance(role, RoleRecord) else as_role(role)
        except ConfigurationError as error:
            raise Location(str(self.path), "role").error(error) from None

    @property
    def cache_directory(self) -> Path | None:
        """The directory of the token cache; None for the default one, or if `content.cache` is false."""
        return self.resolve(self.content.cache) if isinstance(self.content.cache, str) else None

    def run_keywords(self) -> dict[str, Any]:
        """Return the options of a run that the file has, without its regions."""
        options = self.content.run.keywords()
        return options | ({"journal": self.resolve(options["journal"])} if "journal" in options else {})

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
    for name, role in loaded.roles.items():
        _check_role(role, place.key("roles").key(name))
    for value, at in loaded.account_records():
        read_account(value, at, loaded.roles)
    if path is None:
        _check_found(loaded, place)
    return loaded


def _check_role(role: RoleValue, place: Location) -> None:
    """Check a named role, with an account as good as any other."""
    try:
        chain = role if isinstance(role, tuple) else ()
        if chain and chain[-1].startswith("arn:"):
            raise ConfigurationError(
                "the last role of a chain is a name, because it is in the account that refers to it"
            )
        role_in(role, "123456789012", "aws")
    except ConfigurationError as error:
        raise place.error(error) from None


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
    if isinstance(content.cache, str):
        yield "cache", content.cache
    if content.run.journal is not None:
        yield "run.journal", content.run.journal
    for index, each in enumerate(content.discovery.files):
        yield f"discovery.files[{index}].path", each.path
    for index, profiles in enumerate(content.discovery.profiles):
        if profiles.config_file is not None:
            yield f"discovery.profiles[{index}].config_file", profiles.config_file
