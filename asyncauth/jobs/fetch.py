"""Fetch of one kind in one account and region: every page, as frozen records."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from botocore import xform_name
from botocore.exceptions import ClientError

from asyncauth._aws.error_codes import DENIED, error_code
from asyncauth._aws.partitions import get_partition
from asyncauth._runtime.compute_thread import run_in_compute_thread
from asyncauth.jobs.bounded import map_bounded
from asyncauth.jobs.columns import RecordMaker, compile_path
from asyncauth.jobs.page_turns import PageTurns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping

    from asyncauth import AccountSession
    from asyncauth._models.kinds import Kind, Record, Then

#: Region of the records and scopes of a kind whose scope is the account.
GLOBAL: Final = "global"
#: Fetches of a scope from its beginning, after resources that vanished between two pages.
RESTARTS: Final = 3
#: EC2 answers this in the middle of unfiltered paging when an instance ends between two pages (aws-sdk-java#911).
_VANISHED: Final = "InvalidInstanceID.NotFound"
_TAGS_PER_CALL: Final = 200
#: Calls for the resources of a page at the same time. EC2 refills the bucket of an operation with 20 calls a second in
#: an account and region, so that a few, each with the delay of a distant region, are as many as it lets through.
_CALLS_AT_ONCE: Final = 8
_FIRST_MEMBER: Final = re.compile(r"\w+", re.ASCII)
#: Records that are made on the event loop: about 2 ms.
_RECORDS_INLINE: Final = 20
#: Records of a larger page that are made before the event loop runs: about 1 ms.
_RECORDS_PER_SLICE: Final = 10
#: Answers of a region or an endpoint that does not have the operation.
_UNKNOWN_OPERATION: Final = frozenset({"InvalidAction", "UnsupportedOperation", "NotImplemented"})


async def fetch(
    session: AccountSession,
    kind: Kind,
    *,
    raw: bool = True,
    notes: list[str] | None = None,
    turns: PageTurns | None = None,
) -> AsyncGenerator[list[Record], None]:
    """Yield the pages of a kind.

    Args:
        session: the session of the account and region. A kind whose scope is the account is fetched in its
            partition's default region.
        kind: the kind.
        raw: whether records keep the answer of AWS.
        notes: list that gets a sentence for each detail that AWS did not answer; its columns are None.
        turns: limit of the pages that are in memory at once, over several fetches; None: no limit.

    Raises:
        botocore.exceptions.ClientError: AWS refused a page; the pages before it are incomplete.
        ConfigurationError: a resource lacks a member that the kind names.

    Example:
        async for page in fetch(session, EC2_INSTANCE): ...
    """
    home = get_partition(session.account.partition).default_region
    region = session.region_name if kind.scope == "region" else GLOBAL
    maker = RecordMaker(kind, session.account, region, raw=raw)
    async with session.client(kind.service, home if kind.scope == "account" else None) as client:
        images = await _images(client, notes) if kind.name == "ec2:instance" else {}
        async for page in _pages(client, kind) if turns is None else turns.over(_pages(client, kind)):
            resources = _take(page, kind)
            if kind.name == "ec2:instance":
                await _add_tags(client, resources)
                for each in resources:
                    each["ImageMetadata"] = images.get(each.get("ImageId"))
            for then in kind.then:
                resources = await _describe(client, kind, then, resources)
            if resources:
                records = _records(maker, resources)
                del resources  # while the next page is on its way, nothing of this one is needed
                yield await records


def _take(page: Mapping[str, Any], kind: Kind) -> list[Any]:
    """Return the resources of a page, and remove them from it: the paginator keeps each page until it has the next one.

    The last element stays, because some paginators' tokens are a part of it.
    """
    resources = [*(compile_path(kind.result)(page) or ())]
    member = _FIRST_MEMBER.match(kind.result)
    listed = None if member is None else page.get(member[0])
    if isinstance(listed, list):
        del listed[:-1]
    return resources


def has_vanished(error: BaseException) -> bool:
    """Return whether a resource vanished during the fetch, so that the scope must be fetched from its beginning."""
    return error_code(error) == _VANISHED


async def _records(maker: RecordMaker, resources: list[Any]) -> list[Record]:
    """Return the records of a page. Those of a large one are made in a thread: 1,000 take a tenth of a second."""
    if len(resources) <= _RECORDS_INLINE:
        return [maker.make(each) for each in resources]

    def make(let_run: Callable[[], None]) -> list[Record]:
        records: list[Record] = []
        for start in range(0, len(resources), _RECORDS_PER_SLICE):
            records += map(maker.make, resources[start : start + _RECORDS_PER_SLICE])
            let_run()
        return records

    return await run_in_compute_thread(make, goes_on=True)


async def _images(client: Any, notes: list[str] | None) -> dict[str, Any]:
    """Return the images in use by id: DescribeImages fails as a whole if one image is gone."""
    images: dict[Any, Any] = {}
    try:
        pages = client.get_paginator("describe_instance_image_metadata").paginate(PaginationConfig={"PageSize": 1000})
        async for page in pages:
            for each in page.get("InstanceImageMetadata", ()):
                image: Mapping[str, Any] = each.get("ImageMetadata") or {}
                images.setdefault(image.get("ImageId"), image)
    except ClientError as error:
        # A role that was made before this operation existed does not allow it; the instances are worth having.
        if error_code(error) not in DENIED | _UNKNOWN_OPERATION:
            raise
        if notes is not None:
            notes.append(f"images are unknown: DescribeInstanceImageMetadata answered {error_code(error)}")
    return images


async def _describe(client: Any, kind: Kind, then: Then, resources: list[Any]) -> list[Any]:
    """Return the resources with the details of a further operation, requested in batches, a few at the same time."""
    method = getattr(client, xform_name(then.operation))
    search = compile_path(then.result)

    async def describe(batch: list[Any]) -> Iterable[Any]:
        ids = [each if isinstance(each, str) else each[kind.id] for each in batch]
        try:
            answer = await method(**then.parameters, **{then.parameter: ids[0] if then.batch == 1 else ids})
        except ClientError as error:
            if error_code(error) not in then.absent:
                raise
            found = None
        else:
            found = search(answer)
        return _joined(batch, ids, found, then)

    batches = [resources[start : start + then.batch] for start in range(0, len(resources), then.batch)]
    described = await map_bounded(describe, batches, _CALLS_AT_ONCE)
    return [each for some in described for each in some]


def _joined(batch: list[Any], ids: list[str], found: Any, then: Then) -> Iterable[Any]:
    """Return the batch with the descriptions that were found, or these in its place."""
    if then.into is None:
        return found if isinstance(found, list) else [] if found is None else [found]
    if then.key is None:
        return [{**batch[0], then.into: found}]
    by_id = {each[then.key]: each for each in found or ()}
    return [{**each, then.into: by_id.get(id_)} for each, id_ in zip(batch, ids, strict=True)]


async def _pages(client: Any, kind: Kind) -> AsyncIterator[Mapping[str, Any]]:
    method = xform_name(kind.operation)
    parameters: dict[str, Any] = dict(kind.parameters)
    shape = client.meta.service_model.operation_model(kind.operation).input_shape
    if shape is not None and "IncludeManagedResources" in shape.members:
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
    untagged = [each for each in resources if not each.get("Tags")]
    ids = list(dict.fromkeys(each["InstanceId"] for each in untagged))
    tags: dict[str, list[dict[str, str]]] = {id_: [] for id_ in ids}
    for start in range(0, len(ids), _TAGS_PER_CALL):
        filters = [{"Name": "resource-id", "Values": ids[start : start + _TAGS_PER_CALL]}]
        async for page in client.get_paginator("describe_tags").paginate(Filters=filters):
            for tag in page["Tags"]:
                tags[tag["ResourceId"]].append({"Key": tag["Key"], "Value": tag["Value"]})
    for each in untagged:
        each["Tags"] = tags[each["InstanceId"]]
