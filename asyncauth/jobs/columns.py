"""Columns of records: the paths of a kind, compiled, and the values of an answer as JSON has them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.visitor import TreeInterpreter

from asyncauth._errors import ConfigurationError
from asyncauth._models.kinds import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth import Account
    from asyncauth._models.kinds import Kind

_MEMBERS: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_TRANSITION: Final = re.compile(r"\((\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}) (?:GMT|UTC)\)")

#: It keeps no state but the methods that it has found.
_interpreter: Final = TreeInterpreter()


@cache
def compile_path(path: str) -> Callable[[Any], Any]:
    """Return a function that evaluates a JMESPath.

    Most columns are members of members. For them jmespath's visitor takes ten times as long as two look-ups, and the
    columns of an instance would take three times as long as its fetch. The others share one interpreter: `search` makes
    a new one for each call, which is a cycle of objects: 66,000 for a page of 1,000 instances, left to the collector.

    Raises:
        ConfigurationError: the path is no JMESPath.
    """
    if _MEMBERS.fullmatch(path) is None:
        try:
            return partial(_interpreter.visit, jmespath.compile(path).parsed)
        except JMESPathError as error:
            raise ConfigurationError(f"{path!r} is no JMESPath: {error}") from None
    members = path.split(".")

    def search(value: Any) -> Any:
        for member in members:
            if not isinstance(value, dict):
                return None
            value = value.get(member)
        return value

    return search


def make_plain(value: Any) -> Any:
    """Replace the times in an answer by text in ISO 8601 and UTC, and return it.

    In place: a copy of a page of 1,000 instances would be 36,000 more objects, which the garbage collector traverses.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            if type(each) is not str:
                value[key] = make_plain(each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            if type(each) is not str:
                value[index] = make_plain(each)
    return as_text(value) if isinstance(value, datetime) else value


def as_text(time: datetime) -> str:
    """Return a time as text in ISO 8601 and UTC, with as many digits as it has."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


class RecordMaker:
    """Maker of the records of one kind in one account and region.

    Args:
        kind: the kind.
        account: the account.
        region: the region of the records.
        raw: whether records keep the answer of AWS.
    """

    def __init__(self, kind: Kind, account: Account, region: str, *, raw: bool) -> None:
        self._kind = kind
        self._account = account
        self._region = region
        self._raw = raw
        self._paths = [(name, compile_path(path)) for name, path in kind.columns.items()]
        self._names = {"partition": account.partition, "region": region, "account": account.id}

    def make(self, resource: Mapping[str, Any]) -> Record:
        """Return the record of a resource as AWS answered it, whose times are replaced by text.

        Raises:
            ConfigurationError: the resource has no member that the kind names as id or ARN.
        """
        kind, account = self._kind, self._account
        id_ = str(self._member(resource, kind.id))
        arn = kind.arn.format(**self._names, id=id_) if "{" in kind.arn else self._member(resource, kind.arn)
        answer = make_plain(resource)
        columns = {name: search(answer) for name, search in self._paths}
        tags = self._tags(answer) if kind.tags else {}
        if kind.tags:
            columns["tags"] = tags
        name = tags.get("Name") if kind.name_from is None else answer.get(kind.name_from)
        if kind.name == "ec2:instance":
            columns["state_changed_at"] = state_changed_at(answer.get("StateTransitionReason"))
        name = name if name is None else str(name)
        kept = answer if self._raw else None
        return Record(
            kind.name, account.partition, account.id, account.name, self._region, id_, arn, name, columns, kept
        )

    def _tags(self, answer: Mapping[str, Any]) -> dict[str, str]:
        tags = answer.get(self._kind.tags or "")
        try:
            return as_mapping(tags)
        except (AttributeError, TypeError):
            raise ConfigurationError(f"kind {self._kind.name}: {self._kind.tags!r} has no tags, but {tags!r}") from None

    def _member(self, resource: Mapping[str, Any], member: str) -> Any:
        try:
            return resource[member]
        except (KeyError, TypeError):
            found = ", ".join(sorted(resource)) if isinstance(resource, dict) else repr(resource)
            raise ConfigurationError(f"kind {self._kind.name}: a resource has no {member!r}, but {found}") from None


def as_mapping(tags: Any) -> dict[str, str]:
    """Return tags as a mapping; most services have a list of Key and Value, ECS one of key and value."""
    if isinstance(tags, dict):
        return tags
    return {each.get("Key", each.get("key")): each.get("Value", each.get("value")) for each in tags or ()}


def state_changed_at(reason: str | None) -> str | None:
    """Return the time in "User initiated (2026-09-12 16:38:34 GMT)"; None if there is none."""
    found = _TRANSITION.search(reason or "")
    return None if found is None else f"{found[1]}T{found[2]}Z"
