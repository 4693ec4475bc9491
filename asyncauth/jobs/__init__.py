"""Jobs that are ready to run: the inventory of resource kinds, as records or into a store."""

from __future__ import annotations

from asyncauth._models.kinds import Detail, Kind, Record, Then
from asyncauth.jobs.fetch import fetch
from asyncauth.jobs.inventory import Records, ec2_inventory, inventory, inventory_records
from asyncauth.jobs.shipped import EC2_INSTANCE, KINDS
from asyncauth.jobs.sync import sync

__all__ = [
    "EC2_INSTANCE",
    "KINDS",
    "Detail",
    "Kind",
    "Record",
    "Records",
    "Then",
    "ec2_inventory",
    "fetch",
    "inventory",
    "inventory_records",
    "sync",
]
