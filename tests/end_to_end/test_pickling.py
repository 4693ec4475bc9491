"""Pickling: reports and statistics go to other processes, and what belongs to one process refuses to."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import botocore.exceptions
import pytest
from aiohttp.client_reqrep import ConnectionKey

import asyncauth
from asyncauth import Account, AsyncAuthError, Outcome, Report, TargetTimeout
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import pool_over, who_am_i

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from asyncauth import AccountSession

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


@pytest.fixture(scope="module")
def running_fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet({"aws": 8, "aws-cn": 1}, regions=["us-east-1", "cn-north-1"], instances_per_region=0) as fleet:
        yield fleet


@pytest.fixture
async def fleet(running_fleet: SimulatedFleet) -> AsyncIterator[SimulatedFleet]:
    yield running_fleet
    await running_fleet.clear_faults()


class NeedsTwo(Exception):
    """Exception that can be pickled, and whose pickle cannot be loaded: its arguments are not those of its class."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"{bucket}/{key} is missing")

    def __reduce__(self) -> tuple[Any, ...]:
        # As exceptions do by default; written out because distributed registers another way for those that do not.
        return type(self), self.args


class HoldsLock(Exception):
    """Exception that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("a lock\nis held")
        self.lock = threading.Lock()


def travel(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def outcome(error: BaseException, **fields: Any) -> Outcome[None]:
    return Outcome(Account("123456789012", tags={"team": "ops"}), "us-east-1", "failed", "job", error=error, **fields)


async def test_what_belongs_to_one_process_is_not_pickled(fleet: SimulatedFleet) -> None:
    """The message has what to hand over instead; copying is refused for the same reason."""
    async with pool_over(fleet) as pool:
        session = await pool.session(fleet.accounts[0])
        async with session.client("sts") as client, session.client("sts", isolated=True) as isolated:
            run = pool.as_completed(who_am_i, fleet.accounts)
            for value, message in (
                (pool, r"SessionPool cannot be pickled.*hand over its arguments"),
                (session, r"session cannot be pickled.*hand over its account and region_name"),
                (client, r"client cannot be pickled.*hand over the account"),
                (isolated, r"client cannot be pickled.*hand over the account"),
                (session.client("sts"), r"client cannot be pickled"),
                (pool.client("sts", fleet.accounts[0]), r"client cannot be pickled"),
                (run, r"run cannot be pickled.*hand over its outcomes"),
            ):
                for refuse in (pickle.dumps, copy.deepcopy):
                    with pytest.raises(TypeError, match=message):
                        refuse(value)


async def test_a_report_travels_with_errors_of_each_kind(fleet: SimulatedFleet) -> None:
    """Errors of AWS, of this library, of the job and of time have the same class, text, code and fields afterwards."""
    denied, throttled, *others = fleet.accounts[:7]
    await fleet.fault(service="sts", action="AssumeRole", account=denied.id, code="AccessDenied", status=403)
    await fleet.fault(service="sts", action="AssumeRole", account=throttled.id, code="ValidationError", status=400)

    async def job(session: AccountSession) -> str:
        match others.index(session.account):
            case 0:
                async with session.client("s3") as s3:
                    await s3.get_object(Bucket="missing-bucket", Key="x")
            case 1:
                raise ExceptionGroup("two", [KeyError("one"), OSError(2, "two")])
            case 2:
                await anyio.sleep_forever()
            case 3:
                raise botocore.exceptions.ParamValidationError(report="no such parameter")
        return session.account.id

    async with pool_over(fleet) as pool:
        report = await pool.map(job, fleet.accounts[:7], regions=["us-east-1"], timeout=2, retry=None)
    again = travel(report)

    assert isinstance(again, Report)
    assert repr(again) == repr(report)
    assert again.summary().count("(first ") == report.summary().count("(first ")
    assert [row | {"error": None} for row in again.rows()] == [row | {"error": None} for row in report.rows()]
    assert again.values() == [others[4].id]
    assert [one.account for one in again] == list(fleet.accounts[:7])
    for before, after in zip(report, again, strict=True):
        if before.error_code == "NoSuchBucket":  # botocore makes this class at run time
            assert type(after.error) is botocore.exceptions.ClientError
        else:
            assert type(after.error) is type(before.error)
            assert str(after.error) == str(before.error)
        if isinstance(before.error, AsyncAuthError):
            assert vars(after.error) == vars(before.error)
    assert isinstance(again[4].error, TargetTimeout)


@pytest.mark.parametrize(
    "kind",
    [each for each in vars(asyncauth._errors).values() if isinstance(each, type) and issubclass(each, AsyncAuthError)],
)
def test_every_error_of_this_library_travels(kind: type[AsyncAuthError]) -> None:
    """Its message, fields and notes are the same."""
    error = kind("a message", account="123456789012", role_arn="arn", region_name="us-east-1", code="X", attempts=2)
    error.add_note("a note")
    after = travel(outcome(error, error_code="X")).error

    assert type(after) is kind
    assert (str(after), vars(after)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NeedsTwo("bucket", "key"), "NeedsTwo: bucket/key is missing (it could not be pickled)"),
        (HoldsLock(), "HoldsLock: a lock (it could not be pickled)"),
        (
            ExceptionGroup("group", [HoldsLock()]),
            "ExceptionGroup: group (1 sub-exception): HoldsLock: a lock (it could not be pickled)",
        ),
    ],
)
def test_an_error_that_cannot_be_pickled_is_replaced(error: Exception, message: str) -> None:
    """It becomes an AsyncAuthError with its class, the first line of its text and its code; the rest travels."""
    before = Report((outcome(error, error_code="Code", attempts=3, elapsed=1.5), outcome(KeyError("x"))))
    after = travel(before)

    assert type(after[0].error) is AsyncAuthError
    assert (str(after[0].error), after[0].error.code, after[0].attempts) == (message, "Code", 3)
    assert repr(after[1].error) == "KeyError('x')"
    assert before[0].error is error


def test_an_error_of_the_transport_travels() -> None:
    """The error of a TLS connection holds an SSL context, which cannot be pickled; its text and code travel."""
    import ssl

    from aiohttp import ClientConnectorError

    where = ConnectionKey("sts.us-east-1.amazonaws.com", 443, True, ssl.create_default_context(), None, None, None)
    cause = ClientConnectorError(where, OSError(111, "refused"))
    error = botocore.exceptions.EndpointConnectionError(endpoint_url="https://sts", error=cause)

    row = travel(outcome(error, error_code="EndpointConnectionError")).row()
    assert row["error_code"] == "EndpointConnectionError"
    assert "EndpointConnectionError: Could not connect to the endpoint URL" in row["error"]


async def test_statistics_travel(fleet: SimulatedFleet) -> None:
    """Counters and gauges are equal afterwards, in another process as well."""
    async with pool_over(fleet) as pool:
        (await pool.map(who_am_i, fleet.accounts)).raise_for_failures()
        statistics = pool.statistics()
    assert statistics.targets == {"succeeded": 9}
    assert statistics.rate_limits
    assert statistics.clients

    assert travel(statistics) == statistics
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert await anyio.to_thread.run_sync(executor.submit(repr, statistics).result) == repr(statistics)
