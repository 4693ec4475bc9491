"""Jobs of the engine tests: importable in worker processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio

from asyncauth import Keys
from asyncauth.engines._dask_worker import RunPlugin

if TYPE_CHECKING:
    from distributed import Worker

    from asyncauth import AccountSession, RateLimit


async def worker_of(session: AccountSession) -> int:
    """Call AWS once, and return the process id of the worker."""
    async with session.client("sts") as sts:
        assert (await sts.get_caller_identity())["Account"] == session.account.id
    return os.getpid()


async def slowly(session: AccountSession) -> int:
    """Call AWS once, wait for up to half a second, and return the process id of the worker."""
    process_id = await worker_of(session)
    await anyio.sleep(0.1 * (1 + int(session.account.id) % 5))
    return process_id


async def without_end(session: AccountSession) -> None:
    """Call AWS again and again, until cancelled."""
    while True:
        await worker_of(session)
        await anyio.sleep(0.02)


async def mixed(session: AccountSession) -> Any:
    """Succeed, fail, or return a large or an unpicklable value, by the last digit of the account."""
    await worker_of(session)
    match int(session.account.id[-1]):
        case 1:
            raise LookupError("no such thing")
        case 2:
            return b"x" * 200_000
        case 3:
            return lambda: "a function is pickled by value"
        case 4:
            return (each for each in "a generator")
    return session.account.id


def plain(session: AccountSession) -> str:
    """Return the account as boto3 sees it."""
    return str(session.boto3().client("sts").get_caller_identity()["Account"])


async def keys_of_this_worker() -> Keys:
    """Return the keys in this process's environment."""
    return Keys(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])


async def china_keys_of_this_worker() -> Keys:
    """Return the keys for China in this process's environment."""
    return Keys(os.environ["CHINA_AWS_ACCESS_KEY_ID"], os.environ["CHINA_AWS_SECRET_ACCESS_KEY"])


def share_here(rate_limit: RateLimit, dask_worker: Worker) -> tuple[int, float] | None:
    """Return a worker's part of a limit: requests in flight, and the rate; None if its pool has not used it."""
    runners = [each._runner for each in dask_worker.plugins.values() if isinstance(each, RunPlugin)]
    pools = [runner._opened[0] for runner in runners if runner._opened is not None]
    for (rule, _), queue in (pair for pool in pools for pair in pool._check_open().guard.rate_limiters._queues.items()):
        if rule.rate_limit == rate_limit and queue.bucket is not None and queue._max_at_once is not None:
            return queue._max_at_once, queue.bucket.rate
    return None
