"""Accounts of profiles: those that boto's own configuration files already name."""

from __future__ import annotations

import configparser
import logging
import os
import shlex
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from anyio.to_thread import run_sync

from asyncauth._errors import ConfigurationError
from asyncauth._models import SELF, Account, Profile, Role, SsoRole
from asyncauth._models.typed_tables import Location, as_one
from asyncauth.discovery.composition import unique

logger: Final = logging.getLogger("asyncauth.discovery")

#: First words of sections, each followed by a name.
_PREFIXES: Final = ("profile", "sso-session", "services")
#: Sections without a prefix that have a meaning of their own for boto or the AWS CLI.
_PLAIN_SECTIONS: Final = frozenset({"default", "plugins", "preview", "toplevel"})
#: How many names a warning lists.
_MAX_LISTED: Final = 5


def profile_accounts(config_file: str | os.PathLike[str] | None = None, match: str = "*") -> AsyncIterator[Account]:
    """Return the accounts that the profiles of boto's configuration files name, one for each account and role.

    boto parses the files, so a profile means what it means to boto. The account's name is the profile's.

    - `role_arn` with `source_profile`: the role, assumed with the source profile's credentials. Profiles with the same
      source profile share them, so its chain is resolved once.
    - `role_arn` with `credential_source`, `web_identity_token_file` or `mfa_serial`: boto assumes the role, and the
      account acts as the profile.
    - `sso_session` with `sso_account_id` and `sso_role_name`: the role of IAM Identity Center, requested at its first
      use.
    - `sso_start_url`, `login_session` and `aws_account_id`: the account acts as the profile.
    - A profile that names no account (keys or a `credential_process` alone) is left out.

    A section that boto ignores, such as `[name]` in place of `[profile name]`, is logged as a warning.

    Args:
        config_file: the configuration file; None: boto's, `~/.aws/config` or the one in `AWS_CONFIG_FILE`. The
            credentials file is boto's in either case. Credentials are resolved by boto from its own files, so the
            source profiles of another file must be there as well.
        match: a pattern of profile names, such as `prod-*`.

    Raises:
        ConfigurationError: raised when the accounts are read: boto cannot parse a file (the message has the line), or a
            profile's account, partition or role is invalid.

    Example:
        report = await pool.map(job, profile_accounts(match="prod-*"))
    """
    if not isinstance(match, str):
        raise ConfigurationError(f"match= must be a pattern of profile names, got {match!r}")
    return unique(_iterate(None if config_file is None else Path(config_file), match))


@dataclass(frozen=True, slots=True)
class _Profiles:
    """Profiles of boto's files, by name, and the sections that boto ignores."""

    config_file: str
    by_name: Mapping[str, Mapping[str, Any]]
    ignored: tuple[str, ...]


async def _iterate(config_file: Path | None, match: str) -> AsyncIterator[Account]:
    profiles = await run_sync(_read, config_file)
    if profiles.ignored:
        named = ", ".join(f"[{name}]" for name in profiles.ignored[:_MAX_LISTED])
        more = len(profiles.ignored) - _MAX_LISTED
        logger.warning(
            "%s: boto ignores the sections %s%s; a profile's section is [profile NAME]",
            profiles.config_file,
            named,
            f" and {more} more" if more > 0 else "",
        )
    for account in _accounts(profiles, match):
        yield account


def _accounts(profiles: _Profiles, match: str) -> list[Account]:
    """Return the accounts of the profiles that match, all of them checked before the first is used.

    Raises:
        ConfigurationError: profiles are invalid; one error for all of them.
    """
    accounts: list[Account | None] = []
    mistakes: list[ConfigurationError] = []
    for name, settings in profiles.by_name.items():
        if fnmatchcase(name, match):
            try:
                accounts.append(account_of_profile(name, settings, Location(profiles.config_file, f"profile {name}")))
            except ConfigurationError as error:
                mistakes.append(error)
    if mistakes:
        raise as_one(mistakes, "profiles")
    return [account for account in accounts if account is not None]


def account_of_profile(name: str, settings: Mapping[str, Any], place: Location) -> Account | None:
    """Return the account that a profile names; None if it names none.

    Raises:
        ConfigurationError: the account, partition or role is invalid.
    """
    if "role_arn" in settings:
        return _account_of_role(name, settings, place)
    for key in ("sso_account_id", "aws_account_id"):
        if key in settings:
            account_id = str(settings[key])
            try:
                Account(account_id)
            except ConfigurationError as error:
                raise place.key(key).error(f"{error}{_lost_zero(account_id)}") from None
            try:
                return Account(account_id, **_fields_of_account(name, account_id, settings))
            except ConfigurationError as error:
                raise place.error(error) from None
    if str(settings.get("login_session", "")).startswith("arn:"):
        _, partition, _, _, account_id, *_ = f"{settings['login_session']}:::::".split(":")
        try:
            return Account(account_id, partition=partition, name=name, source=Profile(name), role=SELF)
        except ConfigurationError as error:
            raise place.key("login_session").error(error) from None
    return None


def _fields_of_account(name: str, account_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    source: Profile | SsoRole = Profile(name)
    if "sso_session" in settings and "sso_account_id" in settings and "sso_role_name" in settings:
        source = SsoRole(str(settings["sso_session"]), account_id, str(settings["sso_role_name"]))
    return {"name": name, "partition": _partition(settings), "source": source, "role": SELF, **_regions(settings)}


def _account_of_role(name: str, settings: Mapping[str, Any], place: Location) -> Account:
    try:
        base = Account.from_role_arn(str(settings["role_arn"]))
        fields: dict[str, Any] = {"name": name, "partition": base.partition, **_regions(settings, base.partition)}
        source = settings.get("source_profile")
        if source is None or source == name or "mfa_serial" in settings:
            # What boto alone can do here: the environment's or the instance's credentials, a web identity, a code that
            # is typed, a profile's own keys.
            return Account(base.id, source=Profile(name), role=SELF, **fields)
        return Account(base.id, source=Profile(str(source)), role=_role(base, settings), **fields)
    except ConfigurationError as error:
        raise place.error(error) from None


def _role(base: Account, settings: Mapping[str, Any]) -> Role:
    assert isinstance(base.role, str)
    before, _, name = base.role.rpartition("/")
    fields: dict[str, Any] = {"name": name, "path": f"/{before}/" if before else "/"}
    if "external_id" in settings:
        fields["external_id"] = str(settings["external_id"])
    if "role_session_name" in settings:
        fields["role_session_name"] = str(settings["role_session_name"])
    if "duration_seconds" in settings:
        text = str(settings["duration_seconds"])
        if not (text.isascii() and text.isdigit()):
            raise ConfigurationError(f"duration_seconds must be a whole number, got {text!r}")
        fields["duration_seconds"] = int(text)
    return Role(**fields)


def _regions(settings: Mapping[str, Any], partition: str | None = None) -> dict[str, Any]:
    """Return the profile's region as the account's regions; nothing if it is in another partition than the role."""
    from asyncauth._aws.partitions import partition_of_region

    region = settings.get("region")
    if not isinstance(region, str) or not region:
        return {}
    if partition is not None and partition_of_region(region).name != partition:
        return {}
    return {"regions": (region,)}


def _partition(settings: Mapping[str, Any]) -> str:
    """Return the partition of a profile that has no role's ARN: its region's, else that of its portal."""
    from asyncauth._aws.partitions import partition_of_region

    region = settings.get("region") or settings.get("sso_region")
    return partition_of_region(region).name if isinstance(region, str) else "aws"


def _lost_zero(account_id: str) -> str:
    if account_id.isascii() and account_id.isdigit() and 8 <= len(account_id) < 12:
        return f"; {len(account_id)} digits can be an id that lost its leading zeros, {account_id.zfill(12)}"
    return ""


def _read(config_file: Path | None) -> _Profiles:
    from botocore.configloader import raw_config_parse
    from botocore.exceptions import ConfigNotFound, ConfigParseError
    from botocore.session import Session

    session = Session()
    if config_file is not None:
        if not config_file.is_file():
            raise ConfigurationError(f"{config_file}: cannot be read: no such file")
        session.set_config_variable("config_file", str(config_file))
    path = str(session.get_config_variable("config_file"))
    try:
        profiles = session.full_config["profiles"]
        sections = raw_config_parse(path)
    except ConfigNotFound:
        return _Profiles(path, session.full_config["profiles"], ())
    except ConfigParseError as error:
        files = (path, str(session.get_config_variable("credentials_file")))
        raise _parse_error(error, [Path(os.path.expandvars(each)).expanduser() for each in files]) from None
    sso_sessions = session.full_config.get("sso_sessions", {})
    merged = {name: _with_portal(settings, sso_sessions) for name, settings in profiles.items()}
    return _Profiles(path, merged, tuple(name for name in sections if _is_ignored(name)))


def _with_portal(settings: Mapping[str, Any], sso_sessions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a profile's settings with the portal's region, which is in the section of its sso-session."""
    portal = sso_sessions.get(settings.get("sso_session", ""), {})
    return {**({"sso_region": portal["sso_region"]} if "sso_region" in portal else {}), **settings}


def _is_ignored(section: str) -> bool:
    if section in _PLAIN_SECTIONS:
        return False
    try:
        words = shlex.split(section)
    except ValueError:
        return True
    return len(words) != 2 or words[0] not in _PREFIXES


def _parse_error(error: Exception, files: list[Path]) -> ConfigurationError:
    """Return an error with the line that boto could not parse; the line itself may hold a secret."""
    for file in files:
        found = find_mistake(file)
        if found is not None:
            line, problem = found
            return Location(str(file), line=line).error(f"boto cannot parse this file: {problem}")
    return ConfigurationError(f"boto cannot parse its configuration: {error}")


def find_mistake(file: Path) -> tuple[int | None, str] | None:
    """Return the line and the mistake that make boto refuse a configuration file; None if it has none."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return file.read_bytes().count(b"\n", 0, error.start) + 1, "it is not UTF-8"
    except OSError:
        return None
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.DuplicateSectionError as error:
        return error.lineno, f"the section [{error.section}] is there twice"
    except configparser.DuplicateOptionError as error:
        return error.lineno, f"{error.option} is there twice in [{error.section}]"
    except configparser.MissingSectionHeaderError as error:
        return error.lineno, "a line before the first [section]"
    except configparser.ParsingError as error:
        return error.errors[0][0], "neither a [section] nor a key = value"
    return _find_nested_mistake(parser, text)


def _find_nested_mistake(parser: configparser.RawConfigParser, text: str) -> tuple[int | None, str] | None:
    """Return the first indented line without `=` below a key that has no value of its own."""
    lines = text.splitlines()
    for section in parser.sections():
        for key, value in parser.items(section):
            if not value.startswith("\n"):
                continue
            wrong = next((each.strip() for each in value.splitlines() if each.strip() and "=" not in each), None)
            if wrong is not None:
                start = next((n for n, each in enumerate(lines) if each.strip() == f"[{section}]"), 0)
                line = next((n for n, each in enumerate(lines[start:], start + 1) if each.strip() == wrong), None)
                return line, f"a line below {key} in [{section}] has no ="
    return None
