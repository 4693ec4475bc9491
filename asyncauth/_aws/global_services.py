"""Global services: those with one endpoint for all regions of a partition."""

from __future__ import annotations

from typing import Final

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
