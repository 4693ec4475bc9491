"""Fetch of one kind in one account and region: every page, as frozen records."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import jmespath
from botocore import xform_name

from asyncauth._models.kinds import Record

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from asyncauth import AccountSession
    from asyncauth._models.kinds import Kind

_TAGS_PER_CALL: Final = 200
_compiled = lru_cache(maxsize=None)(jmespath.compile)


async def fetch(session: AccountSession, kind: Kind) -> AsyncGenerator[list[Record], None]:
    """Yield the pages of a kind.

    Args:
        session: the session of the account and region.
        kind: the kind.

    Raises:
        botocore.exceptions.ClientError: AWS refused a page; the pages before it are incomplete.

    Example:
        async for page in fetch(session, EC2_INSTANCE): ...
    """
    async with session.client(kind.service) as client:
        async for page in _pages(client, kind):
            resources = _compiled(kind.result).search(page) or []
            if kind.name == "ec2:instance":
                await _add_tags(client, resources)
            if resources:
                yield [_record(session, kind, each) for each in resources]


async def _pages(client: Any, kind: Kind) -> AsyncIterator[Mapping[str, Any]]:
    method = xform_name(kind.operation)
    parameters: dict[str, Any] = dict(kind.parameters)
    members = client.meta.service_model.operation_model(kind.operation).input_shape.members
    if "IncludeManagedResources" in members:
        parameters["IncludeManagedResources"] = True  # instances of EKS Auto Mode and the like are hidden otherwise
    if client.can_paginate(method):
        async for page in client.get_paginator(method).paginate(
            **parameters, PaginationConfig={"PageSize": kind.page_size}
        ):
            yield page
        return
    token: str | None = None
    while True:
        page = await getattr(client, method)(**parameters, **({"NextToken": token} if token else {}))
        yield page
        token = page.get("NextToken")
        if not token:
            return


async def _add_tags(client: Any, resources: list[dict[str, Any]]) -> None:
    """Fill in the tags of instances that have none: AWS does not promise tags in DescribeInstances."""
    untagged = {each["InstanceId"]: each for each in resources if not each.get("Tags")}
    ids = list(untagged)
    for start in range(0, len(ids), _TAGS_PER_CALL):
        filters = [{"Name": "resource-id", "Values": ids[start : start + _TAGS_PER_CALL]}]
        async for page in client.get_paginator("describe_tags").paginate(Filters=filters):
            for tag in page["Tags"]:
                untagged[tag["ResourceId"]].setdefault("Tags", []).append({"Key": tag["Key"], "Value": tag["Value"]})


def _record(session: AccountSession, kind: Kind, resource: dict[str, Any]) -> Record:
    account = session.account
    region = session.region_name if kind.scope == "region" else "global"
    id_ = str(resource[kind.id])
    names = {"partition": account.partition, "region": region, "account": account.id, "id": id_}
    arn = kind.arn.format(**names) if "{" in kind.arn else resource[kind.arn]
    columns = {name: _plain(_compiled(path).search(resource)) for name, path in kind.columns.items()}
    tags = {each["Key"]: each["Value"] for each in resource.get(kind.tags) or ()} if kind.tags else {}
    if kind.tags:
        columns["tags"] = tags
    name = tags.get("Name") if kind.name_from is None else resource.get(kind.name_from)
    return Record(
        kind.name, account.partition, account.id, account.name, region, id_, arn, name, columns, _plain(resource)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
