"""Selection of accounts: given ones and discovered ones, without those that are excluded."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account, as_account

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncauth import SessionPool


class NoMatchError(Exception):
    """The selection matches no account."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Options that select accounts and regions.

    Args:
        accounts: ids and role ARNs.
        exclude: ids and names of accounts to leave out, with `*` and `?` as wildcards.
        regions: names and patterns; empty: each account's own.
        partition: the partition of bare ids.
    """

    accounts: tuple[Account, ...]
    exclude: tuple[str, ...]
    regions: tuple[str, ...]
    partition: str

    @classmethod
    def of(cls, options: dict[str, Any]) -> Selection:
        """Return the options, and remove them from `options`.

        Raises:
            click.UsageError: an account is invalid, or none is given.
        """
        partition = options.pop("partition") or "aws"
        given = list(_expand(options.pop("accounts")))
        if not given:
            raise click.UsageError("no accounts are selected: give --accounts")
        try:
            accounts = dict.fromkeys(parse_account(each, partition) for each in given)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        return cls(tuple(accounts), options.pop("exclude"), options.pop("regions"), partition)

    async def find(self, pool: SessionPool) -> list[Account]:
        """Return the selected accounts, each once.

        Raises:
            NoMatchError: there is none.
        """
        found = [account for account in self.accounts if not self._is_excluded(account)]
        if not found:
            raise NoMatchError("the selection matches no account")
        return found

    def _is_excluded(self, account: Account) -> bool:
        names = (account.id, account.name or "")
        return any(fnmatchcase(name, pattern) for name in names if name for pattern in self.exclude)


def parse_account(text: str, partition: str = "aws") -> Account:
    """Return the account of an id, in the given partition, or of a role ARN, which has its own.

    Raises:
        ConfigurationError: it is neither.
    """
    account = as_account(text)
    return account if text.startswith("arn:") or partition == "aws" else replace(account, partition=partition)


def _expand(given: Iterable[str]) -> Iterator[str]:
    for each in given:
        if each == "-":
            yield from _words(sys.stdin.read())
        elif each.startswith("@"):
            try:
                yield from _words(Path(each[1:]).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise click.UsageError(f"--accounts {each}: {type(error).__name__}: {error}") from None
        else:
            yield each


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from line.partition("#")[0].replace(",", " ").split()
