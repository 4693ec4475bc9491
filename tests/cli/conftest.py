"""Fixtures of the command line: one fleet of both partitions for a module, and the program against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncauth import Account
from asyncauth.testing import SimulatedFleet
from tests.support.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DENIED = "100000000003"


@pytest.fixture(scope="module")
def module_fleet() -> Iterator[SimulatedFleet]:
    accounts = [
        Account("100000000001", name="billing"),
        Account("100000000002", name="data-platform-production"),
        Account(DENIED, name="sandbox"),
        Account("200000000001", "aws-cn", name="china"),
    ]
    with SimulatedFleet(accounts, denied=[DENIED], preload=("ec2",)) as fleet:
        yield fleet


@pytest.fixture
def cli(module_fleet: SimulatedFleet, tmp_path: Path) -> Iterator[CommandLine]:
    module_fleet.blocking.reset_counts()
    yield CommandLine(module_fleet, tmp_path)
    module_fleet.blocking.clear_faults()
