"""Accounts file of c7n-org, read with PyYAML; every scalar stays the string that the file has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import ConfigurationError
from asyncauth._models import Account
from asyncauth._models.typed_tables import Location, Table, check_repeated, describe, key_place
from asyncauth.discovery.formats import decode

if TYPE_CHECKING:
    from asyncauth.discovery.formats import Record

#: Sections for other clouds.
_OTHER_CLOUDS: Final = {"subscriptions": "Azure", "projects": "Google Cloud", "tenancies": "Oracle Cloud"}

#: Keys of an account whose value is only known, and has no effect.
_FACTS: Final = ("display_name", "email", "org_id")


def read_c7n(content: bytes, file: str) -> Iterator[Record]:
    """Return the records of c7n-org's accounts file.

    A list of roles is a chain. `key:value` tags are split at the first colon. `display_name`, `email`, `org_id` and
    `vars` become facts, the latter as `vars.NAME`. The partition is that of the role's ARN, else `aws`.

    Raises:
        ConfigurationError: the file is not valid YAML, lists resources of another cloud, or PyYAML is not installed.
    """
    document = _parse(decode(content, file), file)
    place = Location(file)
    if not isinstance(document, Mapping):
        raise place.error(f"must be a mapping with the key accounts, got {describe(document)}")
    check_repeated(document, place)
    for name, cloud in _OTHER_CLOUDS.items():
        if name in document:
            raise key_place(document, name, place).error(f"these are {cloud}'s; only AWS accounts can be read")
    accounts = document.get("accounts", ())
    at = key_place(document, "accounts", place)
    if not isinstance(accounts, list | tuple):
        raise at.error(f"must be a list of accounts, got {describe(accounts)}")
    shared = document.get("vars") or {}
    for index, account in enumerate(accounts):
        yield _record(account, at.item(index), shared)


def _record(account: object, place: Location, shared: object) -> Record:
    if not isinstance(account, Table):
        raise place.error(f"must be a mapping, got {describe(account)}")
    check_repeated(account, place)
    line = min(account.lines.values(), default=place.line)
    place = Location(place.file, place.path, line)
    if "account_id" not in account:
        raise place.error("account_id is missing")
    if not account.get("role") and not account.get("profile"):
        raise place.error("role or profile is missing")
    role = account.get("role")
    record = {
        "id": account["account_id"],
        "partition": _partition(role),
        "name": account.get("name"),
        "role": role,
        "external_id": account.get("external_id"),
        "profile": account.get("profile"),
        "regions": account.get("regions"),
        "tags": _tags(account, place),
        "facts": _facts(account, place, shared),
    }
    given = [(name, value) for name, value in record.items() if value not in (None, "", {}, [])]
    lines = account.lines | {"id": account.lines["account_id"]}
    return Table(given, lines), place


def _partition(role: object) -> str | None:
    """Return the partition of the last role's ARN; None without one: another place reports a malformed ARN."""
    last = role[-1] if isinstance(role, list) and role else role
    if isinstance(last, str) and last.startswith("arn:"):
        try:
            return Account.from_role_arn(last).partition
        except ConfigurationError:
            return None
    return None


def _tags(account: Table, place: Location) -> Table | None:
    tags = account.get("tags")
    if not tags:
        return None
    at = key_place(account, "tags", place)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise at.error("must be a list of strings such as key:value")
    return Table([(key, value) for key, _, value in (tag.partition(":") for tag in tags)])


def _facts(account: Table, place: Location, shared: object) -> dict[str, str]:
    facts: dict[str, Any] = {name: account[name] for name in _FACTS if account.get(name)}
    own = account.get("vars") or {}
    for each, at in ((shared, Location(place.file, "vars")), (own, key_place(account, "vars", place))):
        if not isinstance(each, Mapping):
            raise at.error(f"must be a mapping, got {describe(each)}")
        for name, value in each.items():
            facts[f"vars.{name}"] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return facts


def _parse(text: str, file: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigurationError(f"{file}: YAML needs PyYAML: pip install 'asyncauth[yaml]'") from None
    try:
        # The base loader: with any other, the unquoted id 012345670123 would be an octal number.
        root = yaml.compose(text, Loader=yaml.BaseLoader)
        return None if root is None else _Values(file).value(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise Location(file, line=line).error(f"not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise Location(file, line=line).error(f"not valid YAML: {getattr(error, 'reason', error)}") from None
    except RecursionError:
        raise Location(file).error("not valid YAML: too many levels") from None


class _Values:
    """Values of YAML nodes: strings, lists and tables with the lines of their keys."""

    def __init__(self, file: str) -> None:
        self._file = file
        # By node: an alias is the node itself, so values that refer to each other many times are built once.
        self._built: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: Any) -> Any:
        """Return the value of a node.

        Raises:
            ConfigurationError: the node contains itself, or a key of a mapping is no scalar.
        """
        if id(node) in self._open:
            raise self._place(node).error("not valid here: an alias of what contains it")
        if id(node) not in self._built:
            self._open.add(id(node))
            self._built[id(node)] = self._build(node)
            self._open.remove(id(node))
        return self._built[id(node)]

    def _build(self, node: Any) -> Any:
        if node.id == "scalar":
            return node.value
        if node.id == "sequence":
            return [self.value(each) for each in node.value]
        pairs: list[tuple[str, Any]] = []
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.id != "scalar":
                raise self._place(key).error("a key must be a string")
            if key.value == "<<":
                merged = self._merged(value) | merged
                continue
            pairs.append((key.value, self.value(value)))
            lines[key.value] = key.start_mark.line + 1
        own = {name for name, _ in pairs}
        line = node.start_mark.line + 1
        inherited = [(name, value) for name, value in merged.items() if name not in own]
        return Table([*inherited, *pairs], {name: line for name, _ in inherited} | lines)

    def _merged(self, node: Any) -> dict[str, Any]:
        """Return the mapping, or the mappings of a list, that the key `<<` merges into its own."""
        value = self.value(node)
        merged: dict[str, Any] = {}
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, Mapping):
                raise self._place(node).error("the key << merges a mapping, or a list of them")
            merged = {**each, **merged}
        return merged

    def _place(self, node: Any) -> Location:
        return Location(self._file, line=node.start_mark.line + 1)
