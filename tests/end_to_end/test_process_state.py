"""A pool and its runs leave the rest of the process as it was; what they change can be switched off."""

from __future__ import annotations

import asyncio
import gc
import locale
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from asyncauth import AccountSession
from asyncauth._aws.log_redaction import LOGGERS_WITH_SECRETS
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(1, regions=["us-east-1"]) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _without_filters() -> Iterator[None]:
    """Other tests of this process have added the filters."""
    loggers = [logging.getLogger(name) for name in LOGGERS_WITH_SECRETS]
    before = [list(logger.filters) for logger in loggers]
    for logger in loggers:
        logger.filters.clear()
    yield
    for logger, filters in zip(loggers, before, strict=True):
        logger.filters[:] = filters


def state() -> dict[str, Any]:
    """Settings that belong to the process, with those of every logger."""
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook, sys.stdout, sys.stderr),
        "switch interval": sys.getswitchinterval(),
        "recursion limit": sys.getrecursionlimit(),
        "garbage collector": (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled(), gc.get_debug()),
        "locale": locale.setlocale(locale.LC_ALL),
        "socket timeout": socket.getdefaulttimeout(),
        "directory": os.getcwd(),
        "log records": logging.getLogRecordFactory(),
        "root logger": (
            logging.root.level,
            list(logging.root.handlers),
            list(logging.root.filters),
            logging.root.disabled,
        ),
        "levels": {name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers)) for name in _LOGGERS},
        "loop": asyncio.get_running_loop().get_exception_handler(),
    }


_LOGGERS = ("asyncauth", "botocore", "aiobotocore", "boto3", "aiohttp", "urllib3", "asyncio")


async def threshold_of_a_run(fleet: SimulatedFleet) -> int:
    """Run a job in a pool and return the threshold of the collector inside of the job."""

    async def job(session: AccountSession) -> int:
        async with session.client("ec2") as ec2:
            await ec2.describe_instances()
        return gc.get_threshold()[0]

    async with pool_over(fleet) as pool:
        return (await pool.map(job, list(fleet.accounts)))[0].value or 0


def filtered() -> set[str]:
    return {name for name in LOGGERS_WITH_SECRETS if logging.getLogger(name).filters}


async def test_a_pool_changes_nothing_else(fleet: SimulatedFleet) -> None:
    """After a run all settings are as before; only the loggers with secrets have a filter more.

    Inside of the run the collector's threshold is higher.
    """
    before = state()

    inside = await threshold_of_a_run(fleet)

    assert state() == before
    assert inside > gc.get_threshold()[0]
    assert filtered() == set(LOGGERS_WITH_SECRETS)


async def test_the_collector_can_be_left_alone(fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `ASYNCAUTH_GC=off` the collector keeps its threshold during a run."""
    monkeypatch.setenv("ASYNCAUTH_GC", "off")

    assert await threshold_of_a_run(fleet) == gc.get_threshold()[0]


async def test_logs_can_be_left_alone(fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `ASYNCAUTH_LOG_REDACTION=off` no logger has a filter."""
    monkeypatch.setenv("ASYNCAUTH_LOG_REDACTION", "off")

    async with pool_over(fleet):
        assert filtered() == set()
