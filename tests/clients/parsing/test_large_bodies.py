"""Parsing of large bodies in a worker thread: equal to botocore, while the event loop keeps running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiobotocore.parsers import AioResponseParserFactory
from botocore.parsers import ResponseParserError

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
