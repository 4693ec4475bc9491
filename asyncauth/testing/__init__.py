"""Tools for tests of a fleet: a simulated fleet, a clock that the test moves, and pytest fixtures for both."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncauth.testing._blocking import BlockingControls
    from asyncauth.testing._clock import FakeClock
    from asyncauth.testing._cloudwatch import CloudWatch
    from asyncauth.testing._ec2 import Ec2Troubles
    from asyncauth.testing._fleet import SimulatedFleet
    from asyncauth.testing._handles import BlockingFault, Fault
    from asyncauth.testing._identity_center import IdentityCenter, SsoLogin
    from asyncauth.testing._organization import Organization, OrganizationalUnit
    from asyncauth.testing._process import FleetError
    from asyncauth.testing._records import AssumedRole, CallCount, Counts

__all__ = [
    "AssumedRole",
    "BlockingControls",
    "BlockingFault",
    "CallCount",
    "CloudWatch",
    "Counts",
    "Ec2Troubles",
    "FakeClock",
    "Fault",
    "FleetError",
    "IdentityCenter",
    "Organization",
    "OrganizationalUnit",
    "SimulatedFleet",
    "SsoLogin",
]

_MODULE_OF = {
    "AssumedRole": "_records",
    "BlockingControls": "_blocking",
    "BlockingFault": "_handles",
    "CallCount": "_records",
    "CloudWatch": "_cloudwatch",
    "Counts": "_records",
    "Ec2Troubles": "_ec2",
    "FakeClock": "_clock",
    "Fault": "_handles",
    "FleetError": "_process",
    "IdentityCenter": "_identity_center",
    "Organization": "_organization",
    "OrganizationalUnit": "_organization",
    "SimulatedFleet": "_fleet",
    "SsoLogin": "_identity_center",
}


def __getattr__(name: str) -> object:
    # Imported at first use: pytest loads this package for its plugin in every run, used or not.
    if name in _MODULE_OF:
        from importlib import import_module

        return getattr(import_module(f"asyncauth.testing.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
