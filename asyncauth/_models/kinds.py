"""Kinds of resources as data: how AWS lists them, and which columns a record of one has."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from asyncauth._errors import ConfigurationError
from asyncauth._models.frozen_mapping import FrozenMapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KindScope: TypeAlias = Literal["region", "account"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*:[a-z][a-z0-9-]*")
_COLUMN: Final = re.compile(r"[a-z][a-z0-9_]*")
#: Columns that every record has, or every view of a store.
_COMMON: Final = frozenset(
    ("rid", "kind", "partition", "account", "account_name", "region", "id", "arn", "name", "tags", "first_seen")
) | {"last_seen", "sync", "stale"}


@dataclass(frozen=True, slots=True)
class Then:
    """Further operation that describes listed resources.

    Args:
        operation: the API operation, `DescribeClusters`.
        parameter: the parameter of the ids.
        result: JMESPath of the descriptions in the answer.
        batch: ids in a call; 1: the parameter is a single id, not a list.
        into: new member of each resource for the result. None: the descriptions replace the resources.
        key: member of a description that holds its resource's id, to join the descriptions of a batch; required with
            `into` and a batch of more than one.
        parameters: further parameters.
        absent: error codes that mean that a resource has no such detail, or is gone; `into` is then None.

    Raises:
        ConfigurationError: the batch is below 1, or `into` is given with a larger one and no `key`.

    Example:
        Then("DescribeClusters", "clusters", "clusters[]", batch=100)
    """

    operation: str
    parameter: str
    result: str
    batch: int = 1
    into: str | None = None
    key: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch < 1 or (self.into is not None and self.batch != 1 and self.key is None):
            raise ConfigurationError(
                f"{self.operation}: batch={self.batch} must be at least 1, and needs `key` with `into` if it is more"
            )
        object.__setattr__(self, "parameters", FrozenMapping(self.parameters))


@dataclass(frozen=True, slots=True)
class Detail:
    """Detail of a kind that is fetched only if it is named, because it costs further calls or may hold secrets.

    Args:
        then: the operation that describes it; it needs `into`.
        columns: its columns, each with the JMESPath of its value in a resource.
        is_secret: whether its values may be secrets, so that no report may hold them.

    Raises:
        ConfigurationError: the operation has no `into`.

    Example:
        Detail(Then("GetBucketVersioning", "Bucket", "@", into="Versioning"), {"versioning": "Versioning.Status"})
    """

    then: Then
    columns: Mapping[str, str]
    is_secret: bool = False

    def __post_init__(self) -> None:
        if self.then.into is None:
            raise ConfigurationError(f"{self.then.operation}: the operation of a detail needs `into`")
        object.__setattr__(self, "columns", FrozenMapping(self.columns))


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of resource: one operation that lists it, and the paths of its columns in the answer.

    Args:
        name: service and resource, `ec2:instance`; the view of a store is named after it, `ec2_instance`.
        service: boto3's name of the service.
        operation: the API operation, `DescribeInstances`.
        result: JMESPath of the resources in a page, `Reservations[].Instances[]`.
        id: member that identifies the resource in its account and region.
        arn: member that holds the ARN, or a template with {partition}, {region}, {account} and {id}.
        name_from: member that holds the name; None: the tag `Name`.
        tags: member with the list of Key and Value; None if the answer has none.
        columns: further columns, each with the JMESPath of its value in a resource.
        parameters: parameters of the operation besides the page size.
        page_size: resources in a page; None: the service's own number.
        page_limit: the parameter of the page size.
        then: further operations that describe what was listed, in their order.
        details: details that are fetched only if they are named, by name.
        scope: `region`, or `account` for a service that is the same in all regions.
        calls_per_resource: calls for each resource besides those of the listing, so that they can be counted in
            advance. None: those of `then`, 1 for a bucket, 0.01 for a batch of 100.

    Raises:
        ConfigurationError: the kind's or a column's name cannot be the name of a view or column, the column is one that
            every kind has, the ARN's template or the scope is none of these, or the number of calls is negative.

    Example:
        Kind("ec2:key-pair", "ec2", "DescribeKeyPairs", result="KeyPairs[]", id="KeyPairId",
             arn="arn:{partition}:ec2:{region}:{account}:key-pair/{id}", name_from="KeyName", tags="Tags")
    """

    name: str
    service: str
    operation: str
    result: str
    id: str
    arn: str
    name_from: str | None = None
    tags: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    page_size: int | None = None
    page_limit: str = "MaxResults"
    then: tuple[Then, ...] = ()
    details: Mapping[str, Detail] = field(default_factory=dict)
    scope: KindScope = "region"
    calls_per_resource: float = None  # type: ignore[assignment]  # None is the number of `then`, set below

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(f"kind {self.name!r} must be named service:resource in lower case, ec2:instance")
        if self.scope not in get_args(KindScope):
            raise ConfigurationError(f"kind {self.name}: scope={self.scope!r} must be one of region, account")
        try:
            self.arn.format(partition="", region="", account="", id="")
        except (LookupError, ValueError):
            raise ConfigurationError(
                f"kind {self.name}: arn={self.arn!r} must be a member, or a template with {{partition}}, {{region}}, "
                "{account} and {id}"
            ) from None
        for column in self.columns:
            if not _COLUMN.fullmatch(column):
                raise ConfigurationError(f"kind {self.name}: {column!r} cannot be the name of a column")
            if column in _COMMON:
                raise ConfigurationError(f"kind {self.name}: every kind has a column {column!r}; choose another name")
        if self.calls_per_resource is None:
            object.__setattr__(self, "calls_per_resource", _calls_for_each(self.then))
        if self.calls_per_resource < 0:
            raise ConfigurationError(f"kind {self.name}: calls_per_resource={self.calls_per_resource} must not be < 0")
        object.__setattr__(self, "columns", FrozenMapping(self.columns))
        object.__setattr__(self, "details", FrozenMapping(self.details))
        object.__setattr__(self, "parameters", FrozenMapping(self.parameters))

    @property
    def view(self) -> str:
        """Name of the kind's view in a store, `ec2_instance`."""
        return self.name.replace(":", "_").replace("-", "_")

    def with_details(self, names: Iterable[str]) -> Kind:
        """Return the kind with the details of these names; names of other kinds' details are ignored."""
        chosen = [self.details[name] for name in dict.fromkeys(names) if name in self.details]
        columns = dict(self.columns)
        for detail in chosen:
            columns |= detail.columns
        further = tuple(detail.then for detail in chosen if detail.then not in self.then)
        calls = self.calls_per_resource + _calls_for_each(further)
        then = (*self.then, *further)
        return replace(self, then=then, columns=columns, calls_per_resource=calls) if chosen else self


def _calls_for_each(then: Iterable[Then]) -> float:
    return sum(1 / each.batch for each in then)


@dataclass(frozen=True, slots=True)
class Record:
    """Record of one resource.

    Args:
        kind: the kind's name.
        partition: the partition's name.
        account: the account's id.
        account_name: the account's name; None if unknown.
        region: the region's name; `global` for a kind whose scope is the account.
        id: identifies the resource within kind, account and region.
        arn: the resource's ARN.
        name: the resource's name; None if it has none.
        columns: the kind's columns. Times are ISO 8601 in UTC; `tags` is a mapping. They are not in the repr, because
            a detail such as `user_data` may hold secrets.
        raw: the answer of AWS; None if it is not kept.
    """

    kind: str
    partition: str
    account: str
    account_name: str | None
    region: str
    id: str
    arn: str
    name: str | None
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
    raw: Mapping[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", FrozenMapping(self.columns))
