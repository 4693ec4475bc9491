"""Global services: those with one endpoint for all regions of a partition, and the region that it is in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from asyncauth._aws.partitions import get_partition

#: boto3's names of the services that botocore's endpoints.json describes as global in partition `aws`: they have a
#: partition endpoint and `isRegionalized` is false. Reading that file takes longer than a job.
GLOBAL_SERVICES: Final = frozenset(
    {
        "account",
        "billingconductor",
        "budgets",
        "ce",
        "chime",
        "cloudfront",
        "codecatalyst",
        "health",
        "iam",
        "importexport",
        "networkmanager",
        "notificationscontacts",
        "organizations",
        "route53",
        "savingsplans",
        "shield",
        "taxsettings",
        "waf",
    }
)

#: The region of AWS Organizations and Account Management where it is not the partition's default region, from the
#: endpoint rules of both services. Requests are signed for it.
_HOME_REGIONS: Final[Mapping[str, str]] = {"aws-cn": "cn-northwest-1"}


def home_region(partition_name: str) -> str:
    """Return the region in which a partition's AWS Organizations and Account Management are, `us-east-1` of `aws`.

    A client needs it at an endpoint of one's own: botocore's endpoint rules, which have the region, are not used there,
    and the requests would be signed for the region of the session.
    """
    return _HOME_REGIONS.get(partition_name) or get_partition(partition_name).default_region
