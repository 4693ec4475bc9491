"""Costs of single operations: what do binding a client, a cached token and the import cost?

Each operation is repeated many times in one warm process. A client is bound through the public `session.client("ec2")`,
entered and left, as in a job. Bytes are Python's allocations for clients of different accounts that all stay open.

What would make the answer wrong:
- a first call in the loop: models, classes and tables are made before (the very first client takes about 200 ms);
- the client of one account bound again: the bytes are those of clients of 1,000 accounts;
- a garbage collection during a round: the result is the median of several rounds;
- an import whose modules are loaded already: each is timed in its own interpreter, with compiled byte code, by the CPU
  time that it takes, in turn with the others.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import time
import tracemalloc
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from benchmarks._bodies import account_ids
from benchmarks._processes import ROOT, ChildFailed, Stack, environment, interpreter, measure, missing_packages
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_OURS: Final = "from asyncauth import SessionPool"
_AIOBOTOCORE: Final = "import aiobotocore.session"
_IMPORTS: Final[tuple[tuple[str, Stack], ...]] = (
    (_OURS, "new"),
    (_AIOBOTOCORE, "new"),
    ("import boto3", "new"),
    ("import aioboto3", "aioboto3"),
)


async def _microseconds(call: Callable[[], Awaitable[object]], times: int, rounds: int = 5) -> float:
    """Return the median over `rounds` of the mean time of a call, in microseconds."""
    took = []
    for _ in range(rounds):
        gc.collect()
        started = time.perf_counter()
        for _ in range(times):
            await call()
        took.append((time.perf_counter() - started) / times * 1e6)
    return statistics.median(took)


def measure_asyncauth(accounts: int = 1_000, times: int = 2_000) -> dict[str, Any]:
    """Measure the operations of asyncauth (runs in a measured process)."""
    return asyncio.run(_measure_asyncauth(accounts, times))


async def _measure_asyncauth(accounts: int, times: int) -> dict[str, Any]:
    from benchmarks._variants import asyncauth

    async with asyncauth.open_variant(20) as running:
        pool = running.pool
        await running.work(account_ids(20), lambda _account, _answer: None)
        session = await pool.session(account_ids(1)[0])

        async def bind() -> None:
            async with session.client("ec2"):
                pass

        result = {
            "bind_us": await _microseconds(bind, times),
            "credentials_hit_us": await _microseconds(session.credentials, times),
            "session_hit_us": await _microseconds(lambda: pool.session(account_ids(1)[0]), times),
        }
        sessions = [await pool.session(account) for account in account_ids(accounts)]
        async with AsyncExitStack() as stack:
            kept: list[object] = [None] * accounts
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for index, one in enumerate(sessions):
                kept[index] = await stack.enter_async_context(one.client("ec2"))
            gc.collect()
            # This includes about 200 bytes per client of the exit stack itself.
            result["bind_bytes"] = (tracemalloc.get_traced_memory()[0] - before) / accounts
            tracemalloc.stop()
        return result


def measure_stock(times: int = 20) -> dict[str, float]:
    """Measure a stock session that builds the same client again (runs in a measured process)."""
    return asyncio.run(_measure_stock(times))


async def _measure_stock(times: int) -> dict[str, float]:
    from aiobotocore.session import AioSession

    session = AioSession()

    async def build() -> None:
        async with session.create_client("ec2"):
            pass

    await build()
    return {"create_client_us": await _microseconds(build, times, rounds=3)}


def import_milliseconds(times: int) -> dict[str, list[float]]:
    """Return the CPU times of each import in new interpreters, in milliseconds; the first round is not counted."""
    took: dict[str, list[float]] = {
        statement: []
        for statement, stack in _IMPORTS
        if not missing_packages(stack, (statement.split()[1].split(".")[0],))
    }
    for _ in range(times + 1):
        for statement, stack in _IMPORTS:
            if statement in took:
                took[statement].append(_import_once(statement, stack))
    return {statement: values[1:] for statement, values in took.items()}


def _import_once(statement: str, stack: Stack) -> float:
    python = interpreter(stack)
    assert python is not None
    code = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1000)"
    done = subprocess.run(
        [python, "-c", code], env=environment({}), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def run(
    *, accounts: int = 1_000, times: int = 2_000, imports: int = 15, log: Callable[[str], None] = print
) -> dict[str, Any]:
    """Measure all operations and imports."""
    result: dict[str, Any] = {"problems": {}}
    with CannedServer() as server:
        for function, arguments in (
            ("measure_asyncauth", {"accounts": accounts, "times": times}),
            ("measure_stock", {}),
        ):
            try:
                result |= measure(f"benchmarks.micro:{function}", arguments, server.environment(), timeout=120)
            except ChildFailed as failure:
                result["problems"][function] = f"failed: {failure}"
                log(f"  {function}: {failure}")
    took = import_milliseconds(imports)
    result["import_ms"] = {statement: statistics.median(values) for statement, values in took.items()}
    result["import_ratio"] = statistics.median(
        ours / stock for ours, stock in zip(took[_OURS], took[_AIOBOTOCORE], strict=True)
    )
    log("  " + ", ".join(f"{name} {value:.1f}" for name, value in result.items() if isinstance(value, float)))
    log("  " + ", ".join(f"{name} {value:.0f} ms" for name, value in result["import_ms"].items()))
    return result
