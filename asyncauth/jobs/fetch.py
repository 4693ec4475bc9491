"""Fetch of one kind in one account and region: every page, as frozen records."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import jmespath
from botocore import xform_name
from botocore.exceptions import ClientError

from asyncauth._aws.error_codes import DENIED, error_code
from asyncauth._aws.partitions import get_partition
from asyncauth._models.kinds import Record

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from asyncauth import AccountSession
    from asyncauth._models.kinds import Kind, Then

#: Region of the records and scopes of a kind whose scope is the account.
GLOBAL: Final = "global"
_TAGS_PER_CALL: Final = 200
#: Answers of a region or an endpoint that does not have the operation.
_UNKNOWN_OPERATION: Final = frozenset({"InvalidAction", "UnsupportedOperation", "NotImplemented"})
_TRANSITION: Final = re.compile(r"\((\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}) (?:GMT|UTC)\)")
_compiled = lru_cache(maxsize=None)(jmespath.compile)


async def fetch(
    session: AccountSession, kind: Kind, *, raw: bool = True, notes: list[str] | None = None
) -> AsyncGenerator[list[Record], None]:
    """Yield the pages of a kind.

    Args:
        session: the session of the account and region. A kind whose scope is the account is fetched in its
            partition's default region.
        kind: the kind.
        raw: whether records keep the answer of AWS.
        notes: list that gets a sentence for each detail that AWS did not answer; its columns are None.

    Raises:
        botocore.exceptions.ClientError: AWS refused a page; the pages before it are incomplete.

    Example:
        async for page in fetch(session, EC2_INSTANCE): ...
    """
    home = get_partition(session.account.partition).default_region
    async with session.client(kind.service, home if kind.scope == "account" else None) as client:
        images = await _images(client, notes) if kind.name == "ec2:instance" else {}
        async for page in _pages(client, kind):
            resources = _compiled(kind.result).search(page) or []
            if kind.name == "ec2:instance":
                await _add_tags(client, resources)
                for each in resources:
                    each["ImageMetadata"] = images.get(each["InstanceId"])
            for then in kind.then:
                resources = await _describe(client, kind, then, resources)
            if resources:
                yield [_record(session, kind, each, raw=raw) for each in resources]


async def _images(client: Any, notes: list[str] | None) -> dict[str, Any]:
    """Return the image of each instance: DescribeImages fails as a whole if one image is gone."""
    images = {}
    try:
        pages = client.get_paginator("describe_instance_image_metadata").paginate(PaginationConfig={"PageSize": 1000})
        async for page in pages:
            for each in page.get("InstanceImageMetadata", ()):
                images[each["InstanceId"]] = each.get("ImageMetadata")
    except ClientError as error:
        # A role that was made before this operation existed does not allow it; the instances are worth having.
        if error_code(error) not in DENIED | _UNKNOWN_OPERATION:
            raise
        if notes is not None:
            notes.append(f"images are unknown: DescribeInstanceImageMetadata answered {error_code(error)}")
    return images


async def _describe(client: Any, kind: Kind, then: Then, resources: list[Any]) -> list[Any]:
    """Return the resources with the details of a further operation, requested in batches."""
    method = getattr(client, xform_name(then.operation))
    described: list[Any] = []
    for start in range(0, len(resources), then.batch):
        batch = resources[start : start + then.batch]
        ids = [each if isinstance(each, str) else each[kind.id] for each in batch]
        try:
            answer = await method(**then.parameters, **{then.parameter: ids[0] if then.batch == 1 else ids})
        except ClientError as error:
            if error_code(error) not in then.absent:
                raise
            found = None
        else:
            found = _compiled(then.result).search(answer)
        if then.into is None:
            described += found if isinstance(found, list) else [] if found is None else [found]
        else:
            described.append({**batch[0], then.into: found})
    return described


async def _pages(client: Any, kind: Kind) -> AsyncIterator[Mapping[str, Any]]:
    method = xform_name(kind.operation)
    parameters: dict[str, Any] = dict(kind.parameters)
    members = client.meta.service_model.operation_model(kind.operation).input_shape.members
    if "IncludeManagedResources" in members:
        parameters["IncludeManagedResources"] = True  # instances of EKS Auto Mode and the like are hidden otherwise
    if client.can_paginate(method):
        size = {} if kind.page_size is None else {"PaginationConfig": {"PageSize": kind.page_size}}
        async for page in client.get_paginator(method).paginate(**parameters, **size):
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


def _record(session: AccountSession, kind: Kind, resource: dict[str, Any], *, raw: bool) -> Record:
    account = session.account
    region = session.region_name if kind.scope == "region" else GLOBAL
    id_ = str(resource[kind.id])
    names = {"partition": account.partition, "region": region, "account": account.id, "id": id_}
    arn = kind.arn.format(**names) if "{" in kind.arn else resource[kind.arn]
    resource = _plain(resource)
    columns = {name: _compiled(path).search(resource) for name, path in kind.columns.items()}
    tags = _as_mapping(resource.get(kind.tags)) if kind.tags else {}
    if kind.tags:
        columns["tags"] = tags
    name = tags.get("Name") if kind.name_from is None else resource.get(kind.name_from)
    if kind.name == "ec2:instance":
        columns["state_changed_at"] = _state_changed_at(resource.get("StateTransitionReason"))
    kept = resource if raw else None
    return Record(kind.name, account.partition, account.id, account.name, region, id_, arn, name, columns, kept)


def _as_mapping(tags: Any) -> dict[str, str]:
    """Return tags as a mapping; most services have a list of Key and Value, ECS one of key and value."""
    if isinstance(tags, dict):
        return tags
    return {each.get("Key", each.get("key")): each.get("Value", each.get("value")) for each in tags or ()}


def _state_changed_at(reason: str | None) -> str | None:
    """Return the time in "User initiated (2026-09-12 16:38:34 GMT)"; None if there is none."""
    found = _TRANSITION.search(reason or "")
    return None if found is None else f"{found[1]}T{found[2]}Z"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
