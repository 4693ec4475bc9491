"""Jobs that are ready to run: the inventory of resource kinds, as records or into a store."""

from __future__ import annotations

from asyncauth._models.kinds import Kind, Record, Then
from asyncauth.jobs.fetch import fetch
from asyncauth.jobs.inventory import ec2_inventory, inventory
from asyncauth.jobs.shipped import EC2_INSTANCE, KINDS
from asyncauth.jobs.sync import sync

__all__ = ["EC2_INSTANCE", "KINDS", "Kind", "Record", "Then", "ec2_inventory", "fetch", "inventory", "sync"]
