"""Regions and zones of the fleet in moto."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def set_regions(regions: Mapping[str, Sequence[str]]) -> None:
    """Make boto3, which moto reads its regions from, return those of the fleet.

    By default boto3 reads the endpoints of every service, and moto makes backends for all their regions: 0.6 s of CPU
    and 50 MB.

    Args:
        regions: region names by partition.
    """
    from boto3 import session

    boto_session: Any = session.Session
    boto_session.get_available_partitions = lambda _: list(regions)
    boto_session.get_available_regions = lambda _, service_name, partition_name="aws", allow_non_regional=False: list(
        regions.get(partition_name, ())
    )


def add_zones(regions: Mapping[str, Sequence[str]]) -> None:
    """After the import of EC2, add zones to every region without them; cheap enough for a call before every request.

    moto has no zones, and therefore no subnets, in partitions other than aws, aws-cn and aws-us-gov.
    """
    module = sys.modules.get("moto.ec2.models.availability_zones_and_regions")
    zones = getattr(getattr(module, "RegionsAndZonesBackend", None), "zones", None)
    if module is None or zones is None:  # not imported yet, or while it is being imported
        return
    for region in (region for names in regions.values() for region in names):
        if region not in zones:
            zones[region] = [module.Zone(f"{region}{letter}", region, f"{region}-az{letter}") for letter in "abc"]
