"""Global services: the list agrees with botocore's data."""

from __future__ import annotations

from botocore.loaders import create_loader

from asyncauth._aws.global_services import GLOBAL_SERVICES


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
