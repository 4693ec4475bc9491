"""Jobs that are ready to run: inventories and metrics, as values or into a store."""

from __future__ import annotations

from asyncauth._models.kinds import Detail, Kind, Record, Then
from asyncauth._models.metric_requests import MetricMath, MetricRequest
from asyncauth._models.metrics import Points, Series
from asyncauth.jobs.fetch import fetch
from asyncauth.jobs.inventory import Records, ec2_inventory, inventory, inventory_records
from asyncauth.jobs.metric_fetch import MetricQuota
from asyncauth.jobs.metric_plan import Estimate
from asyncauth.jobs.metric_presets import PRESETS, MetricPreset
from asyncauth.jobs.metric_sources import ListedMetrics, MetricSource, StoredResources
from asyncauth.jobs.metric_sync import sync_metrics
from asyncauth.jobs.metrics import MetricsJob, cloudwatch_metrics
from asyncauth.jobs.shipped import EC2_INSTANCE, KINDS
from asyncauth.jobs.sync import sync

__all__ = [
    "EC2_INSTANCE",
    "KINDS",
    "PRESETS",
    "Detail",
    "Estimate",
    "Kind",
    "ListedMetrics",
    "MetricMath",
    "MetricPreset",
    "MetricQuota",
    "MetricRequest",
    "MetricSource",
    "MetricsJob",
    "Points",
    "Record",
    "Records",
    "Series",
    "StoredResources",
    "Then",
    "cloudwatch_metrics",
    "ec2_inventory",
    "fetch",
    "inventory",
    "inventory_records",
    "sync",
    "sync_metrics",
]
