"""Sources of dimensions: an inventory in a store, ListMetrics, and the accounts linked to a monitoring account."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio.to_thread

from asyncauth._errors import ConfigurationError, IncompleteMetrics
from asyncauth.stores._reading import connect_read_only

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from asyncauth import Account, AccountSession
    from asyncauth._models.metric_requests import MetricRequest
    from asyncauth.jobs.metric_presets import MetricPreset

_RESOURCES: Final = """select distinct id, arn from resources
    where kind = ? and partition = ? and account = ? and region = ? and gone_at is null"""
_STATUSES: Final = "select status from scopes where kind = ? and partition = ? and account = ? and region = ?"


#: A scope with this status is empty if it has no resources. A region that is not enabled is skipped.
_KNOWN: Final = ("ok", "skipped")


class MetricSource(Protocol):
    """Source of the metrics that an account has in a region."""

    async def requests(
        self, session: AccountSession, presets: Sequence[MetricPreset], period: int | None
    ) -> list[MetricRequest]:
        """Return the requests for the presets' metrics.

        Args:
            session: the session of the account and region.
            presets: the metrics that are wanted of each resource.
            period: seconds between two points; None: each preset's.
        """
        ...


class ListedMetrics:
    """Metrics that ListMetrics returns: those with a value in the last two weeks.

    A new metric is listed after up to 15 minutes. One call lists 500 metrics.

    Args:
        recently_active: only metrics with a value in about the last three hours.
        linked: also the metrics of the accounts that are linked to this one, a monitoring account of CloudWatch's
            observability access manager. Their points keep the account that owns them.

    Example:
        job = cloudwatch_metrics(["AWS/EC2"], dimensions=ListedMetrics(linked=True))
        await sync_metrics(pool, job, store, ["monitoring account's id"])
    """

    def __init__(self, *, recently_active: bool = False, linked: bool = False) -> None:
        self.linked = linked
        self._parameters: dict[str, Any] = {
            **({"RecentlyActive": "PT3H"} if recently_active else {}),
            **({"IncludeLinkedAccounts": True} if linked else {}),
        }

    async def requests(
        self, session: AccountSession, presets: Sequence[MetricPreset], period: int | None
    ) -> list[MetricRequest]:
        """List the namespaces of the presets; their metrics with exactly the preset's dimension."""
        found: dict[MetricRequest, None] = {}  # a metric can be on two pages
        async with session.client("cloudwatch") as client:
            for preset in presets:
                # One listing of a namespace has fewer calls than one for each metric.
                single: dict[str, Any] = {"MetricName": next(iter(preset.stats))} if len(preset.stats) == 1 else {}
                pages = client.get_paginator("list_metrics").paginate(
                    Namespace=preset.namespace, Dimensions=[{"Name": preset.dimension}], **single, **self._parameters
                )
                async for page in pages:
                    owners = page.get("OwningAccounts") or [session.account.id] * len(page["Metrics"])
                    for metric, owner in zip(page["Metrics"], owners, strict=True):
                        names = [one["Name"] for one in metric["Dimensions"]]
                        if names == [preset.dimension] and metric["MetricName"] in preset.stats:
                            account = None if owner == session.account.id else owner
                            resource = metric["Dimensions"][0]["Value"]
                            found[preset.request(metric["MetricName"], resource, period=period, account=account)] = None
        return list(found)


class StoredResources:
    """Metrics of the resources in an inventory in a SQLite store; no call lists them.

    Resources that are gone are left out, and so are stopped instances and volumes that are not attached: their metrics
    have no values, and CloudWatch charges them all the same.

    Args:
        path: the store's file, which another process may write meanwhile.

    Example:
        job = cloudwatch_metrics(["AWS/EC2", "AWS/EBS"], dimensions=StoredResources("inventory.db"))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    async def requests(
        self, session: AccountSession, presets: Sequence[MetricPreset], period: int | None
    ) -> list[MetricRequest]:
        """Read the account's resources in the region from the store.

        Raises:
            ConfigurationError: the file does not exist, or a preset has no kind.
            IncompleteMetrics: no sync has fetched the account and region completely, so their resources are unknown.
        """
        found: list[MetricRequest] = []
        for preset in presets:
            if preset.kind is None:
                raise ConfigurationError(f"the preset of {preset.namespace} has no kind; list its metrics instead")
            values = await anyio.to_thread.run_sync(self._read, session.account, session.region_name, preset)
            found += [preset.request(metric, value, period=period) for value in values for metric in preset.stats]
        return found

    def _read(self, account: Account, region: str, preset: MetricPreset) -> list[str]:
        if not self._path.exists():
            raise ConfigurationError(f"the store {str(self._path)!r} does not exist; sync an inventory into it first")
        if self._path.is_dir():
            raise ConfigurationError(f"{str(self._path)!r} is a directory; the resources are read from a SQLite store")
        condition = "" if preset.where is None else f" and {preset.where}"
        query = f"{_RESOURCES}{condition} order by id"  # the condition is the preset's own
        with closing(connect_read_only(self._path)) as connection:
            place = (preset.kind, account.partition, account.id, region)
            rows = connection.execute(query, place).fetchall()
            statuses = {status for (status,) in connection.execute(_STATUSES, place)}
        if not rows and statuses.isdisjoint(_KNOWN):
            raise IncompleteMetrics(
                f"the store has no complete inventory of {preset.kind} in {region}; sync it first",
                account=account.id,
                region_name=region,
            )
        return [id_ if preset.from_arn is None else arn.partition(preset.from_arn)[2] for id_, arn in rows]
