"""Stop of a run from outside of its block: targets are cancelled, and the stream ends with the given error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth._fanout.engine import fan_out
from asyncauth._fanout.limits import Limits
from tests.support.fanout import idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth._fanout.engine import Attempt, FanOut

pytestmark = pytest.mark.anyio


class Stopped(Exception):
    """The error of the stops in these tests."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The engine runs on both."""
    return str(request.param)


async def end_odd(target: int, attempt: Attempt) -> int:
    if target % 2:
        return target
    await anyio.sleep_forever()
    raise AssertionError


async def read(stream: FanOut[int, int]) -> dict[int, str]:
    """Return the status of each target by its index; the stream must end with `Stopped`."""
    statuses: dict[int, str] = {}
    try:
        async for result in stream:
            assert result.index not in statuses
            assert result.reason == ("stopped" if result.status == "cancelled" else None)
            statuses[result.index] = result.status
    except Stopped:
        return statuses
    raise AssertionError("the stream ended without the error")


@pytest.mark.parametrize("at_once", [1, 3, 100])
async def test_every_target_has_one_answer_and_the_body_goes_on(at_once: int) -> None:
    """Finished targets keep their answers, all others are cancelled, and the body of the block is not."""
    async with fan_out(end_odd, range(20), limits=Limits(max_at_once=at_once), buffer=100) as stream:
        await idle()
        stream.stop(Stopped(), reason="stopped")
        stream.stop(LookupError("a second stop changes nothing"), reason="again")
        await stream.wait_ended()
        assert stream.running == stream.waiting == 0
        statuses = await read(stream)

    assert set(statuses) == set(range(20))
    assert all(status == "cancelled" for index, status in statuses.items() if index % 2 == 0)
    assert list(statuses.values()).count("succeeded") == sum(
        stream.counts[s] for s in stream.counts if s == "succeeded"
    )


async def test_a_reader_that_waits_gets_the_error() -> None:
    """A task that waits for the next answer gets the cancelled targets, then the error."""
    statuses: dict[int, str] = {}

    async def consume() -> None:
        async with fan_out(end_odd, [0, 2], limits=Limits(max_at_once=1)) as stream:
            streams.append(stream)
            statuses.update(await read(stream))

    streams: list[FanOut[int, int]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await idle()
        streams[0].stop(Stopped(), reason="stopped")

    assert statuses == {0: "cancelled", 1: "cancelled"}


async def test_a_finished_run_ends_without_the_error() -> None:
    """If every target is settled, the stream ends as usual."""
    async with fan_out(end_odd, [1, 3]) as stream:
        await idle()
        stream.stop(Stopped(), reason="stopped")
        await stream.wait_ended()
        assert [result.status async for result in stream] == ["succeeded", "succeeded"]


async def test_a_run_that_was_not_entered_does_not_change() -> None:
    """Stopping and waiting do nothing before the block is entered."""
    stream = fan_out(end_odd, [1])
    stream.stop(Stopped(), reason="stopped")
    await stream.wait_ended()

    async with stream:
        assert [result.status async for result in stream] == ["succeeded"]


async def test_an_endless_producer_is_closed() -> None:
    """A producer that is being waited for is closed; only what it has given has an answer."""
    closed = False

    async def numbers() -> AsyncIterator[int]:
        nonlocal closed
        try:
            yield 0
            await anyio.sleep_forever()
        finally:
            closed = True

    async with fan_out(end_odd, numbers()) as stream:
        await idle()
        stream.stop(Stopped(), reason="stopped")
        await stream.wait_ended()
        assert closed
        assert await read(stream) == {0: "cancelled"}


async def test_a_stop_before_the_first_target() -> None:
    """A stop right after entering answers all targets, though none was read yet."""
    async with fan_out(end_odd, range(5)) as stream:
        stream.stop(Stopped(), reason="stopped")
        assert await read(stream) == dict.fromkeys(range(5), "cancelled")


async def test_work_that_is_shielded_is_waited_for() -> None:
    """The end of a run is the end of its last task, not its last answer."""
    release = anyio.Event()

    async def work(target: int, attempt: Attempt) -> None:
        with anyio.CancelScope(shield=True):
            await release.wait()

    ended = False

    async def wait() -> None:
        nonlocal ended
        await stream.wait_ended()
        ended = True

    async with fan_out(work, [0]) as stream, anyio.create_task_group() as group:
        await idle()
        stream.stop(Stopped(), reason="stopped")
        group.start_soon(wait)
        await idle()
        assert not ended
        release.set()

    assert ended


@given(turns=st.integers(0, 12), at_once=st.integers(1, 4), count=st.integers(0, 8), window=st.integers(1, 5))
def test_at_every_moment(turns: int, at_once: int, count: int, window: int) -> None:
    """After any number of turns of the event loop, each target has one answer, and nothing runs on."""

    async def main() -> None:
        limits = Limits(max_at_once=at_once)
        async with fan_out(end_odd, range(count), limits=limits, window=window) as stream:
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            stream.stop(Stopped(), reason="stopped")
            await stream.wait_ended()
            assert stream.running == stream.waiting == 0
            seen = []
            try:
                async for result in stream:
                    seen.append(result.index)  # noqa: PERF401 - the answers before the error count
            except Stopped:
                pass
            assert sorted(seen) == list(range(count))

    anyio.run(main)
