"""Global services: the list agrees with botocore's data."""

from __future__ import annotations

import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.loaders import create_loader

from asyncauth._aws.global_services import GLOBAL_SERVICES, home_region
from asyncauth._aws.partitions import partitions


def test_the_global_services_are_those_of_botocore() -> None:
    """Every service of the list that the installed botocore knows is global there, and none of its own is missing."""
    loader = create_loader()
    described = loader.load_data("endpoints")["partitions"][0]["services"]
    prefixes = {
        prefix
        for prefix, service in described.items()
        if service.get("partitionEndpoint") and service.get("isRegionalized") is False
    }
    available = set(loader.list_available_services("service-2"))
    by_name = {
        name: loader.load_service_model(name, "service-2")["metadata"]["endpointPrefix"]
        for name in GLOBAL_SERVICES & available
    }

    assert {"iam", "organizations", "route53", "cloudfront"} <= GLOBAL_SERVICES
    assert set(by_name.values()) == prefixes


@pytest.mark.parametrize("service", ["organizations", "account"])
def test_the_home_regions_are_those_of_botocores_endpoint_rules(service: str) -> None:
    """The region for which botocore signs at AWS's own endpoint, from any region of each partition."""
    loader = create_loader()
    rules = EndpointProvider(loader.load_service_model(service, "endpoint-rule-set-1"), loader.load_data("partitions"))

    for partition in partitions().values():
        for region in partition.regions:
            endpoint = rules.resolve_endpoint(Region=region, UseDualStack=False, UseFIPS=False)
            schemes = endpoint.properties.get("authSchemes", [{}])
            assert schemes[0].get("signingRegion", region) == home_region(partition.name)
