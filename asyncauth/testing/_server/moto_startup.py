"""Lighter import of moto's EC2: data that moto reads at import and a fleet rarely needs is read at first use.

This module changes private parts of moto. If a part no longer exists, the import is slow and still correct. Measured
with moto 5.2.5, import up to the first EC2 backend: 2.0 s of CPU and 188 MB without, 0.8 s and 102 MB with.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OFFERINGS: Final = "instance_type_offerings"
#: moto's own loader, until `complete_ec2` has replaced the lists.
_loader: list[Any] = []


def lighten_boto(regions: Mapping[str, Sequence[str]]) -> None:
    """Make boto3 return the fleet's regions; by default it reads the endpoints of every service.

    Args:
        regions: region names by partition.
    """
    from boto3 import session

    boto_session: Any = session.Session
    boto_session.get_available_partitions = lambda _: list(regions)
    boto_session.get_available_regions = lambda _, service_name, partition_name="aws", allow_non_regional=False: list(
        regions.get(partition_name, ())
    )


def postpone_offerings() -> None:
    """Make moto's EC2 import without its lists of instance types by region and zone."""
    from moto.utilities import utils

    load = utils.load_resource

    def load_resource(resource: str) -> Any:
        return [] if _OFFERINGS in resource else load(resource)

    utils.load_resource = load_resource
    _loader.append(load)


def complete_ec2(regions: Mapping[str, Sequence[str]]) -> None:
    """After the import of EC2: make the omitted lists load at first use, and add zones to every region without them.

    moto has no zones, and therefore no subnets, in partitions other than aws, aws-cn and aws-us-gov. Cheap enough for
    a call before every request.
    """
    module = sys.modules.get("moto.ec2.models.instance_types")
    if module is None or not _loader:
        return
    load = _loader.pop()
    _complete_zones(regions)
    offerings = getattr(module, "INSTANCE_TYPE_OFFERINGS", {})
    for location_type, by_region in list(offerings.items()):
        offerings[location_type] = _Offerings(location_type, by_region, load)


def _complete_zones(regions: Mapping[str, Sequence[str]]) -> None:
    from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend, Zone

    zones = RegionsAndZonesBackend.zones
    for region in (region for names in regions.values() for region in names):
        if region not in zones:
            zones[region] = [Zone(f"{region}{letter}", region, f"{region}-az{letter}") for letter in "abc"]


class _Offerings(dict[str, Any]):
    """Offered instance types by region; a region's list is read at first use."""

    def __init__(self, location_type: str, known: Mapping[str, Any], load: Any) -> None:
        super().__init__(dict.fromkeys(known))
        self._location_type = location_type
        self._load = load

    def __getitem__(self, region: str) -> Any:
        offered = super().__getitem__(region)
        if offered is None:
            path = os.path.join("ec2", "resources", _OFFERINGS, self._location_type, f"{region}.json")
            offered = self._load(path)
            for one in offered:
                one["LocationType"] = self._location_type
            self[region] = offered
        return offered

    def get(self, region: str, default: Any = None) -> Any:
        """Return the offers of a region, or `default` for an unknown region."""
        return self[region] if region in self else default  # noqa: SIM401 - dict.get would not read it
