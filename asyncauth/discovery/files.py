"""Accounts of a file: TOML, CSV, JSON, JSON lines, or c7n-org's YAML."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from anyio.to_thread import run_sync

from asyncauth._errors import ConfigurationError
from asyncauth._models.account_records import read_account
from asyncauth._models.typed_tables import Location, as_one
from asyncauth.discovery.composition import account_key
from asyncauth.discovery.formats import Record, read_csv, read_json, read_json_lines, read_toml

if TYPE_CHECKING:
    import os
    from collections.abc import Hashable

    from asyncauth._models import Account
    from asyncauth._models.account_records import RoleValue


def file_accounts(path: str | os.PathLike[str]) -> AsyncIterator[Account]:
    """Return the accounts of a file.

    The whole file is read and checked, in a worker thread, before the first account is returned: a mistake in the last
    line is found before a job has run in the first account. An account that is listed twice is returned once; if the
    two differ in more than their order, that is an error.

    Args:
        path: the suffix is the format: `.toml` (an array of tables, `[[accounts]]`), `.json` (an array, or an object
            with the key `accounts`), `.jsonl` or `.ndjson` (an object a line), `.csv` (a line with the names of the
            columns first), `.yaml` or `.yml` (the accounts file of c7n-org; needs the extra `yaml`). Keys and columns
            are `id`, `partition`, `name`, `role`, `external_id`, `profile`, `regions`, `tags`, `facts` and
            `unavailable`. In CSV, regions are separated by spaces, and a tag or fact is a column of its own, `tag:team`
            or `fact:owner`. Ids are strings: a number is an error, since it may have lost its leading zeros.

    Raises:
        ConfigurationError: raised when the accounts are read: the file does not exist, or a value in it is invalid. The
            message has the file and the line, or the path such as `accounts[41].role`, of each mistake.

    Example:
        report = await pool.map(job, file_accounts("accounts.csv"))
    """
    file = Path(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ConfigurationError(
            f"{file}: the format of accounts is taken from the suffix, which must be one of {', '.join(_READERS)}"
        )
    return _iterate(file, reader)


async def _iterate(file: Path, reader: Callable[[bytes, str], Iterable[Record]]) -> AsyncIterator[Account]:
    for account in await run_sync(read_accounts, file, reader):
        yield account


def read_accounts(file: Path, reader: Callable[[bytes, str], Iterable[Record]]) -> list[Account]:
    """Return the accounts of a file.

    Raises:
        ConfigurationError: the file cannot be read, or holds mistakes.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror or error}") from None
    return accounts_of(reader(content, str(file)))


def accounts_of(records: Iterable[Record], roles: Mapping[str, RoleValue] | None = None) -> list[Account]:
    """Return the accounts of records, each once; `roles` are those that a record may refer to by name.

    Raises:
        ConfigurationError: a record is invalid, or contradicts another; one error for all mistakes.
    """
    found: dict[Hashable, tuple[Account, Location]] = {}
    mistakes: list[ConfigurationError] = []
    for value, place in records:
        try:
            account = read_account(value, place, roles or {})
            first, where = found.setdefault(account_key(account), (account, place))
            if first != account:
                raise place.error(f"account {account.id} is listed before, with other values: {where}")
        except ConfigurationError as error:
            mistakes.append(error)
    if mistakes:
        raise as_one(mistakes, "accounts")
    return [account for account, _ in found.values()]


def _read_yaml(content: bytes, file: str) -> Iterator[Record]:
    # Imported at first use: PyYAML is an extra.
    from asyncauth.discovery.c7n import read_c7n

    yield from read_c7n(content, file)


_READERS: Final[dict[str, Callable[[bytes, str], Iterable[Any]]]] = {
    ".toml": read_toml,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}
