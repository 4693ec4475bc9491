"""Listings of EC2 as AWS answers them, in place of moto's: pages, troubles on request, and metadata of images.

moto pages few listings, accepts any page size, and returns instances in pages of 100 if none is named. It reads the
tags of all resources for those of one, which makes a listing quadratic.
"""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from asyncauth.testing._server import instances_xml
from asyncauth.testing._server.images import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: "MaxResults" of the listings in the EC2 API reference.
MIN_PAGE_SIZE: Final = 5
MAX_PAGE_SIZE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Listing:
    """Listing: the operation, the list in its answer, the parameter that names resources, and its page sizes.

    `default` is the page size without MaxResults; None: all in one page. `xml_set` and `render` are the list's element
    and the function that renders its items, for a listing whose answer moto does not render.
    """

    action: str
    member: str
    ids: str | None
    smallest: int = MIN_PAGE_SIZE
    default: int | None = None
    xml_set: str = ""
    render: Callable[[Sequence[Any], Any], str] | None = None


#: Listings whose items are moto's, by the name of moto's method.
LISTINGS: Final[Mapping[str, Listing]] = {
    "describe_volumes": Listing("DescribeVolumes", "Volumes", "VolumeIds"),
    "describe_snapshots": Listing("DescribeSnapshots", "Snapshots", "SnapshotIds"),
    "describe_network_interfaces": Listing(
        "DescribeNetworkInterfaces", "NetworkInterfaces", "NetworkInterfaceIds"
    ),
    "describe_security_groups": Listing("DescribeSecurityGroups", "SecurityGroups", None),
    "describe_vpcs": Listing("DescribeVpcs", "Vpcs", None),
    "describe_subnets": Listing("DescribeSubnets", "Subnets", None),
    "describe_tags": Listing("DescribeTags", "Tags", None),
}  # fmt: skip


def install(troubles: Mapping[str, Any]) -> None:
    """Replace moto's listings by the fleet's; a second call changes nothing.

    Args:
        troubles: the troubles of the fleet's specification.
    """
    from moto.ec2.models.tags import TagBackend
    from moto.ec2.responses import EC2Response

    response: Any = EC2Response
    if hasattr(response, "describe_instance_image_metadata"):
        return
    for name, listing in LISTINGS.items():
        setattr(response, name, _paged(listing, _items_of(getattr(response, name), listing.member)))
    response.describe_instances = _paged(INSTANCES, _reservations, troubles)
    response.describe_instance_image_metadata = _paged(IMAGE_METADATA, _image_metadata)
    tags: Any = TagBackend
    tags.describe_tags = _tags_by_resource(tags.describe_tags)


# Pages


def _paged(
    listing: Listing, items: Callable[[Any], Sequence[Any]], troubles: Mapping[str, Any] | None = None
) -> Callable[[Any], Any]:
    def answer(self: Any) -> Any:
        from moto.core.responses import ActionResult

        named = bool(listing.ids and self._get_param(listing.ids))
        size = _page_size(listing, self._get_param("MaxResults"), named=named)
        start, number = _read_token(listing.action, self._get_param("NextToken"))
        found = items(self)
        applied = troubles if troubles is not None and not named else {}
        is_empty = size is not None and number in applied.get("empty_pages", ()) and start < len(found)
        end = start if is_empty else start + (len(found) if size is None else size)
        repeats = size is not None and start > 0 and not is_empty and number in applied.get("repeating_pages", ())
        page = list(found[start - repeats : end])
        if number in applied.get("untagged_pages", ()):
            page = [_without_tags(reservation) for reservation in page]
        token = _token(listing.action, end, number + 1) if end < len(found) else None
        if listing.render is None:
            return ActionResult({listing.member: page, "NextToken": token})
        return _rendered(listing, page, token)

    return answer


def _rendered(listing: Listing, page: Sequence[Any], token: str | None) -> Any:
    """Return a page whose items are rendered without moto."""
    from moto.core.responses import ActionResult

    class Rendered(ActionResult):
        def execute_result(self, context: Any) -> Any:
            def by_moto(item: Any) -> str:
                _, _, body = ActionResult({listing.member: [item]}).execute_result(context)
                return str(body).partition(f"<{listing.xml_set}>")[2].rpartition(f"</{listing.xml_set}>")[0]

            assert listing.render is not None
            status, headers, body = ActionResult({listing.member: [], "NextToken": token}).execute_result(context)
            items = f"<{listing.xml_set}>{listing.render(page, by_moto)}</{listing.xml_set}>"
            return status, headers, str(body).replace(f"<{listing.xml_set}/>", items)

    return Rendered(None)


def _page_size(listing: Listing, size: int | None, *, named: bool) -> int | None:
    from moto.ec2.exceptions import EC2ClientError

    if size is None:
        return None if named else listing.default
    if named:
        ids = (listing.ids or "").replace("Ids", "sSet")
        message = f"The parameter {ids[0].lower()}{ids[1:]} cannot be used with the parameter maxResults"
        raise EC2ClientError("InvalidParameterCombination", message)
    if not listing.smallest <= int(size) <= MAX_PAGE_SIZE:
        bound = f"greater than {listing.smallest}" if int(size) < listing.smallest else f"less than {MAX_PAGE_SIZE}"
        message = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value {bound}."
        raise EC2ClientError("InvalidParameterValue", message)
    return int(size)


def _token(action: str, start: int, number: int) -> str:
    return base64.b64encode(json.dumps([action, start, number]).encode()).decode()


def _read_token(action: str, token: str | None) -> tuple[int, int]:
    """Return the offset and the number of the page."""
    from moto.ec2.exceptions import EC2ClientError

    if token is None:
        return 0, 1
    try:
        issued_for, start, number = json.loads(base64.b64decode(token, validate=True))
    except ValueError:
        issued_for, start, number = None, 0, 1
    if issued_for != action:
        raise EC2ClientError("InvalidPaginationToken", "The specified pagination token is not valid or is expired.")
    return start, number


# Items


def _items_of(method: Callable[[Any], Any], member: str) -> Callable[[Any], Sequence[Any]]:
    return lambda self: list(method(self).result[member])


def _reservations(self: Any) -> Sequence[Any]:
    self.error_on_dryrun()
    filters = self._filters_from_querystring()
    if ids := self._get_param("InstanceIds", []):
        found: Sequence[Any] = self.ec2_backend.get_reservations_by_instance_ids(ids, filters=filters)
        return found
    reservations: Sequence[Any] = self.ec2_backend.describe_instances(filters=filters)
    if self._get_param("IncludeManagedResources"):
        return reservations
    return [one for one in reservations if not all(is_hidden(instance) for instance in one.instances)]


def is_hidden(instance: Any) -> bool:
    """Return whether an instance is listed only on request."""
    return bool(getattr(instance, "operator", {}).get("HiddenByDefault"))


def _image_metadata(self: Any) -> Sequence[Any]:
    self.error_on_dryrun()
    backend = self.ec2_backend
    filters = self._filters_from_querystring()
    ids = self._get_param("InstanceIds", [])
    found = backend.get_multi_instances_by_id(ids, filters) if ids else backend.all_instances(filters)
    return [
        {"instance": instance, "image": metadata(instance.image_id, backend.amis.get(instance.image_id))}
        for instance in found
    ]


INSTANCES: Final = Listing(
    "DescribeInstances",
    "Reservations",
    "InstanceIds",
    xml_set="reservationSet",
    render=instances_xml.reservation_items,
)
IMAGE_METADATA: Final = Listing(
    "DescribeInstanceImageMetadata",
    "InstanceImageMetadata",
    "InstanceIds",
    smallest=1,
    default=MAX_PAGE_SIZE,
    xml_set="instanceImageMetadataSet",
    render=lambda entries, _: instances_xml.image_metadata_items(entries),
)


def _without_tags(reservation: Any) -> Any:
    changed = copy.copy(reservation)
    changed.instances = [_Untagged(instance) for instance in reservation.instances]
    return changed


class _Untagged:
    """View of an instance without its tags. A copy would free the instance's addresses at its end."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance
        self.tag_list: list[Any] = []
        self.tag_set: list[Any] = []

    @property  # type: ignore[misc]  # read-only: a view is assigned no class
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # as above
        # moto's serializer derives names of attributes from the name of the class.
        return type(self._instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)


def _tags_by_resource(describe_tags: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return moto's function of tags, so that it reads those of the named resources only."""

    def answer(self: Any, filters: Mapping[str, Any] | None = None) -> Any:
        ids = [str(one) for one in (filters or {}).get("resource-id", ())]
        if filters is None or not ids or any(set(one) & set("*?\\") for one in ids):
            return describe_tags(self, filters)
        chosen = {one: self.tags[one] for one in dict.fromkeys(ids) if one in self.tags}
        rest = {name: values for name, values in filters.items() if name != "resource-id"}
        return describe_tags(SimpleNamespace(tags=chosen, VALID_TAG_FILTERS=self.VALID_TAG_FILTERS), rest)

    return answer
