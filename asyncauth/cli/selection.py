"""Selection of accounts: given ones and discovered ones, without those that are excluded."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, Role, SsoRole, as_account
from asyncauth.cli.endings import NoMatchError
from asyncauth.cli.source import read_fleet
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from asyncauth import SessionPool
    from asyncauth._models.fleet_file import LoadedFleetFile


@dataclass(frozen=True, slots=True)
class Selection:
    """Options that select accounts and regions.

    Args:
        accounts: ids and role ARNs.
        organization: list the organization of the base credentials.
        parents: ids of its organizational units and roots; empty: all of it.
        tags: AWS tags of its accounts.
        portal: the name of an sso-session and the role in its accounts; None: none is selected.
        fleet: the fleet file whose accounts are taken if no others are selected; None: there is none.
        exclude: ids and names of accounts to leave out, with `*` and `?` as wildcards.
        regions: names and patterns; empty: each account's own.
        partition: the partition of bare ids.
    """

    accounts: tuple[Account, ...]
    organization: bool
    parents: tuple[str, ...]
    tags: Mapping[str, str]
    portal: tuple[str, str] | None
    fleet: LoadedFleetFile | None
    exclude: tuple[str, ...]
    regions: tuple[str, ...]
    partition: str

    @classmethod
    def of(cls, options: dict[str, Any]) -> Selection:
        """Return the options, and remove them from `options`.

        Raises:
            click.UsageError: an account is invalid, or none is given.
            NoMatchError: accounts are given, and there are none in them, such as in an empty file.
        """
        partition, accounts = options.pop("partition") or "aws", options.pop("accounts")
        _check_partition(partition)
        given = list(_expand(accounts))
        if accounts and not given:
            raise NoMatchError("--accounts selects no account: what it reads is empty")
        parents, tags = options.pop("ous"), dict(_tag(text) for text in options.pop("tags"))
        organization = bool(options.pop("organization") or parents or tags)
        portal = _portal(options)
        if not given and not organization and portal is None and options.get("fleet") is None:
            options["fleet"] = _found_fleet()
        options["fleet"] = read_fleet(options.get("fleet"))
        try:
            parsed = dict.fromkeys(parse_account(each, partition) for each in given)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        return cls(
            tuple(parsed),
            organization,
            parents,
            tags,
            portal,
            options["fleet"],
            options.pop("exclude"),
            options.pop("regions"),
            partition,
        )

    @property
    def pool_options(self) -> dict[str, bool]:
        """Arguments of the pool that the selection needs."""
        return {"allow_long_term": True} if self.organization else {}

    async def find(self, pool: SessionPool) -> list[Account]:
        """Return the selected accounts, each once.

        Raises:
            NoMatchError: there is none.
        """
        from asyncauth.discovery import chain, fleet_accounts, organization_accounts, sso_accounts

        parts: list[Any] = [self.accounts]
        if self.organization:
            if self.tags:
                note("--tag costs a ListTagsForResource call for each account")
            # Listing changes nothing, and the user has named these credentials for it.
            session = await pool.source_session(self.partition)
            parts.append(organization_accounts(session, parents=self.parents or None, tags=self.tags or None))
        if self.portal is not None:
            parts.append(sso_accounts(*self.portal))
        if self.fleet is not None and len(parts) == 1 and not self.accounts:
            parts.append(fleet_accounts(self.fleet, pool))
        found = [account async for account in chain(*parts) if not self._is_excluded(account)]
        if not found:
            raise NoMatchError("the selection matches no account")
        return found

    def _is_excluded(self, account: Account) -> bool:
        names = (account.id, account.name or "")
        return any(fnmatchcase(name, pattern) for name in names if name for pattern in self.exclude)


def _check_partition(name: str) -> None:
    from asyncauth._aws.partitions import get_partition

    try:
        get_partition(name)
    except ConfigurationError as error:
        raise click.UsageError(f"--partition: {error}") from None


def parse_account(text: str, partition: str = "aws") -> Account:
    """Return the account of an id, in the given partition, or of a role ARN, which has its own.

    Raises:
        ConfigurationError: it is neither.
    """
    account = as_account(text)
    return account if text.startswith("arn:") or partition == "aws" else replace(account, partition=partition)


def role_arn(account: Account, default: Role) -> str | None:
    """Return the ARN of the role that is assumed in an account; None if it is entered as its source."""
    role = account.effective_role(default)
    return None if role is None else role.arn(account)


def role_shown(account: Account, default: Role) -> str | None:
    """Return the ARN of an account's role, or its role of IAM Identity Center; None if the source itself acts in it."""
    if isinstance(account.source, SsoRole) and account.effective_role(default) is None:
        return f"{account.source.role_name} of sso-session {account.source.session}"
    return role_arn(account, default)


def _expand(given: Iterable[str]) -> Iterator[str]:
    for each in given:
        if each == "-":
            yield from _words(sys.stdin.read().removeprefix("\ufeff"))
        elif each.startswith("@"):
            try:
                yield from _words(Path(each[1:]).read_text(encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError) as error:
                raise click.UsageError(f"--accounts {each}: {type(error).__name__}: {error}") from None
        else:
            yield each


def _tag(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"--tag {text!r} must be KEY=VALUE")
    return name, value


def _portal(options: dict[str, Any]) -> tuple[str, str] | None:
    """Return session and role of a portal, whose role is none to assume; remove them from `options`."""
    session = options.pop("sso_session")
    if session is None:
        return None
    role, options["role"] = options["role"], None
    if role is None:
        raise click.UsageError("--sso-session needs --role NAME, the role in its accounts; '*' is every role")
    return session, role


def _found_fleet() -> LoadedFleetFile:
    from asyncauth._models.fleet_file import load_fleet_file

    try:
        # Read under the rules for found files, which are stricter than those for a named one.
        return load_fleet_file(None)
    except ConfigurationError as error:
        if "there is no" not in str(error):
            raise
        raise click.UsageError(
            "no accounts are selected: give --accounts, --organization, --sso-session or --fleet, or write an "
            "asyncauth.toml"
        ) from None


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from line.partition("#")[0].replace(",", " ").split()
