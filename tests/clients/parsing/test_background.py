"""Parsing of large bodies in a worker thread: one at a time, while the event loop keeps running."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.parsers import AioResponseParserFactory
from botocore.parsers import ResponseParserError

from asyncauth._clients.parsing import background
from asyncauth._clients.parsing.background import run_in_parser_thread
from asyncauth._clients.parsing.factory import INLINE_BYTES, fast_parser_factory
from tests.clients.parsing.test_equal_to_botocore import HEADERS, drive, model_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.botocore, pytest.mark.anyio]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def instances(count: int) -> bytes:
    """Return a DescribeInstances body with `count` reservations, indented as EC2 does."""
    items = "".join(
        f"""
        <item>
            <reservationId>r-{number}</reservationId>
            <groupSet/>
            <instancesSet>
                <item>
                    <instanceId>i-{number}</instanceId>
                    <launchTime>2026-01-31T08:00:00.000Z</launchTime>
                    <tagSet>
                        <item>
                            <key>Name</key>
                            <value>web &amp; more {number}</value>
                        </item>
                    </tagSet>
                </item>
            </instancesSet>
        </item>"""
        for number in range(count)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
    <requestId>8f7724cf-496f-496e-8fe3-example</requestId>
    <reservationSet>{items}
    </reservationSet>
</DescribeInstancesResponse>""".encode()


def answer(body: bytes) -> dict[str, Any]:
    return {"body": body, "headers": HEADERS, "status_code": 200, "context": {"operation_name": "Any"}}


def describe_instances() -> Any:
    return model_of("ec2").operation_model("DescribeInstances").output_shape


@pytest.mark.parametrize("bend", [lambda body: body, lambda body: body.replace(b"</item>", b"<!-- --></item>", 1)])
async def test_a_large_body_is_equal(bend: Callable[[bytes], bytes]) -> None:
    """A page above the limit gives aiobotocore's result, whether the fast parser reads it or gives up."""
    response = answer(bend(instances(400)))
    assert len(response["body"]) > 2 * INLINE_BYTES

    parsed = await fast_parser_factory().create_parser("ec2").parse(response, describe_instances())

    assert repr(parsed) == repr(
        drive(AioResponseParserFactory().create_parser("ec2").parse(response, describe_instances()))
    )


async def test_a_large_broken_body_raises_the_same() -> None:
    """Half a large page gives botocore's exception, with the position of the fault and the body in it."""
    response = answer(instances(400)[:-5000])
    with pytest.raises(ResponseParserError) as stock:
        drive(AioResponseParserFactory().create_parser("ec2").parse(response, describe_instances()))

    with pytest.raises(ResponseParserError) as fast:
        await fast_parser_factory().create_parser("ec2").parse(response, describe_instances())

    assert str(fast.value) == str(stock.value)


async def test_a_large_json_body_is_equal() -> None:
    """A large JSON body is parsed in the thread too, and gives aiobotocore's result."""
    shape = model_of("dynamodb").operation_model("Scan").output_shape
    item = b'{"k": {"S": "text"}, "n": {"N": "1"}, "b": {"B": "AAE="}, "l": {"L": [{"NULL": true}, {"M": {}}]}}'
    response = answer(b'{"Items": [' + b", ".join([item] * 2000) + b'], "Count": 2000}')

    parsed = await fast_parser_factory().create_parser("json").parse(response, shape)

    assert repr(parsed) == repr(drive(AioResponseParserFactory().create_parser("json").parse(response, shape)))


async def test_the_loop_runs_while_a_large_body_is_parsed() -> None:
    """Between the slices of a page the event loop runs repeatedly."""
    turns = 0
    parsed: list[Any] = []

    async def parse() -> None:
        response = answer(instances(2000))
        parsed.append(await fast_parser_factory().create_parser("ec2").parse(response, describe_instances()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(parse)
        while not parsed:
            await anyio.lowlevel.checkpoint()
            turns += 1

    assert len(parsed[0]["Reservations"]) == 2000
    assert turns > 10


async def test_one_body_is_parsed_at_a_time() -> None:
    """However many large bodies arrive at once, one thread parses them."""
    running = 0
    max_running = 0

    def compute(yield_gil: Callable[[], None]) -> threading.Thread:
        nonlocal running, max_running
        running += 1
        max_running = max(max_running, running)
        yield_gil()
        running -= 1
        return threading.current_thread()

    threads: list[threading.Thread] = []

    async def one() -> None:
        threads.append(await run_in_parser_thread(compute))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(one)

    assert max_running == 1
    assert len(threads) == 20
    assert threading.main_thread() not in threads


async def test_cancelled_while_computing() -> None:
    """A cancelled caller's computation ends at the next slice, and the next caller's begins."""
    started = threading.Event()
    slices = 0

    def endless(yield_gil: Callable[[], None]) -> None:
        nonlocal slices
        while True:
            slices += 1
            started.set()
            yield_gil()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_in_parser_thread, endless)
        await anyio.to_thread.run_sync(started.wait)
        tasks.cancel_scope.cancel()

    done_with = slices
    assert await run_in_parser_thread(lambda yield_gil: "next") == "next"
    assert slices == done_with


async def test_cancelled_while_waiting() -> None:
    """A caller that is cancelled in the queue leaves it without computing."""
    free = threading.Event()
    ran: list[str] = []

    def hold(yield_gil: Callable[[], None]) -> None:
        ran.append("first")
        free.wait(10)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_in_parser_thread, hold)
        while not ran:
            await anyio.lowlevel.checkpoint()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run_in_parser_thread(lambda yield_gil: ran.append("second"))
        free.set()

    assert scope.cancelled_caught
    assert ran == ["first"]


async def test_the_collectors_thresholds_are_restored() -> None:
    """The collector's thresholds are raised during a computation and restored after it, also after an exception."""
    before = gc.get_threshold()

    def fail(yield_gil: Callable[[], None]) -> None:
        assert gc.get_threshold() == (background._YOUNG_CONTAINERS, *before[1:])
        raise LookupError

    with pytest.raises(LookupError):
        await run_in_parser_thread(fail)

    assert gc.get_threshold() == before


@pytest.mark.parametrize("own", [(0, 10, 10), (200_000, 5, 5)])
async def test_a_programs_own_thresholds_are_kept(own: tuple[int, int, int]) -> None:
    """Disabled or rarer collections stay as the program configured them; so does a change made meanwhile."""
    before = gc.get_threshold()
    try:
        gc.set_threshold(*own)
        assert await run_in_parser_thread(lambda yield_gil: gc.get_threshold()) == own
        gc.set_threshold(*before)
        await run_in_parser_thread(lambda yield_gil: gc.set_threshold(123, 4, 5))
        assert gc.get_threshold() == (123, 4, 5)
    finally:
        gc.set_threshold(*before)
