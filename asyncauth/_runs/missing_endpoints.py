"""Missing endpoints: whether a service has none in a region, by botocore's data, else by the names that resolve."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from botocore.exceptions import EndpointConnectionError

from asyncauth._aws.partitions import get_partition
from asyncauth._errors import EndpointDown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncauth._runs.targets import Target

#: Seconds for the one name that is looked up.
_LOOKUP_SECONDS: Final = 5.0


class MissingEndpoints:
    """The missing endpoints that a run has met.

    After some failures the circuit breaker refuses requests to an endpoint, and its error has no host. Where a job uses
    one service only, that endpoint is known to be the missing one.
    """

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], str] = {}

    async def reason_for(self, target: Target, services: Collection[str] | None, error: Exception) -> str | None:
        """Return the reason to skip a target whose job used `services` and raised `error`; None for a failure."""
        key = (target.region_name, next(iter(services))) if services and len(services) == 1 else None
        if isinstance(error, EndpointDown):
            is_refused = key is not None and error.code == EndpointConnectionError.__name__
            return self._reasons.get(key) if key is not None and is_refused else None
        reason = await skip_reason_for_missing_endpoint(target.account.partition, error)
        if reason is not None and key is not None:
            self._reasons[key] = reason
        return reason


async def skip_reason_for_missing_endpoint(partition_name: str, error: Exception) -> str | None:
    """Return the reason to skip a target whose job met a host that does not exist; None if the error is a failure.

    botocore's data decides where it has the service and the region. It has no regions for a third of the services;
    such a service has no endpoint in a region if its name does not resolve while the name of STS there does.
    """
    host, partition = _unresolved_host(error), get_partition(partition_name)
    suffix = f".{partition.dns_suffix}"
    if host is None or not host.endswith(suffix):
        return None
    service, _, region = host.removesuffix(suffix).rpartition(".")
    if not service or not partition.has_region(region):
        return None
    known = (await anyio.to_thread.run_sync(_regions_by_service, partition_name)).get(service)
    if known and region in partition.regions:
        is_missing = region not in known
    elif "." in service:  # the first word may be the name of a resource, such as a bucket
        return None
    else:
        is_missing = await _resolves(f"sts.{region}.{partition.dns_suffix}")
    return f"no endpoint of {service} in this region" if is_missing else None


def _unresolved_host(error: Any) -> str | None:
    """Return the host of a request whose name did not resolve; None for another error, or behind a proxy.

    A proxy resolves the service's name itself; the name that this process does not find is then the proxy's.
    """
    if type(error) is not EndpointConnectionError:  # not EndpointDown, for which no request was sent
        return None
    details: Mapping[str, Any] = error.kwargs
    cause = details.get("error")
    host = urlsplit(str(details.get("endpoint_url"))).hostname
    is_unresolved = isinstance(getattr(cause, "os_error", cause), socket.gaierror)
    return host if is_unresolved and getattr(cause, "host", None) == host else None


async def _resolves(host: str) -> bool:
    with anyio.move_on_after(_LOOKUP_SECONDS):
        try:
            await anyio.getaddrinfo(host, 443)
        except OSError:
            return False
        return True
    return False


@lru_cache(maxsize=8)
def _regions_by_service(partition_name: str) -> Mapping[str, frozenset[str]]:
    """Return the regions of each endpoint prefix in botocore's data; a service without regions there has none here."""
    # Imported at first use: the file is large, and few runs meet a missing endpoint.
    from botocore.loaders import create_loader

    partitions = create_loader().load_data("endpoints")["partitions"]
    services: Mapping[str, Any] = next(
        (one["services"] for one in partitions if one["partition"] == partition_name), {}
    )
    regions = frozenset(get_partition(partition_name).regions)
    return {
        prefix: regions & service.get("endpoints", {}).keys()
        for prefix, service in services.items()
        if service.get("isRegionalized") is not False
    }
