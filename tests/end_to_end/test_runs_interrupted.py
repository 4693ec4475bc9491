"""Programs that are interrupted with Ctrl-C: at the prompt of `confirm=True`, and during a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncauth.testing import SimulatedFleet

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.botocore,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals only"),
]

ROOT = Path(__file__).parents[2]

PROMPT = """
import asyncio, signal
from asyncauth import Keys, SessionPool
from asyncauth._credentials import role_credentials

signal.signal(signal.SIGINT, signal.default_int_handler)

async def job(session): ...

role_credentials._BACK_OFF_SECONDS = 0.001  # the endpoint is dead: AssumeRole is repeated without a wait

async def main():
    async with SessionPool(keys=Keys("A" * 20, "secret"), endpoint_url="http://127.0.0.1:9") as pool:
        await pool.map(job, ["111111111111"], confirm=True)

asyncio.run(main())
"""

RUN = """
import asyncio, os, signal
from asyncauth import Keys, SessionPool
from asyncauth.events import TargetSettled

signal.signal(signal.SIGINT, signal.default_int_handler)
accounts = os.environ["ACCOUNTS"].split()

async def main():
    settled = asyncio.Event()

    async def job(session):
        if session.account.id == accounts[0]:
            return "done"
        await settled.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    def listen(event):
        if isinstance(event, TargetSettled):
            settled.set()

    keys = Keys(os.environ["KEY_ID"], os.environ["SECRET"])
    async with SessionPool(keys=keys, endpoint_url=os.environ["ENDPOINT"]) as pool:
        await pool.map(job, accounts, progress=listen)

try:
    asyncio.run(main())
except KeyboardInterrupt as interrupt:
    print([outcome.status for outcome in interrupt.__context__.report])
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[SimulatedFleet]:
    with SimulatedFleet(2, regions=["us-east-1"], instances_per_region=0) as running:
        yield running


def test_an_interrupt_at_the_prompt_ends_the_program() -> None:
    """The thread that reads the terminal does not keep the interpreter from exiting, and no fatal error is printed."""
    terminal, child_end = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROMPT], cwd=ROOT, stdin=child_end, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        shown = ""
        while not shown.endswith("Go on? [y/N] "):
            shown += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    os.close(terminal)
    os.close(child_end)

    assert "will touch 1 targets in 1 accounts" in shown
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Fatal" not in errors


@pytest.mark.parametrize(("typed", "consent"), [("yes\n", True), ("no\n", False)])
def test_the_answer_is_read_from_the_terminal(typed: str, *, consent: bool) -> None:
    """A line of a real terminal; with consent the run starts."""
    terminal, child_end = os.openpty()
    program = PROMPT.replace("        await pool.map", "        report = await pool.map").replace(
        "\nasyncio.run", "        print(report[0].status)\n\nasyncio.run"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=child_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(terminal, typed.encode())
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    os.close(terminal)
    os.close(child_end)

    assert process.returncode == 0, errors
    assert output.decode().strip() == ("failed" if consent else "skipped")


def test_an_interrupted_map_leaves_its_report(fleet: SimulatedFleet) -> None:
    """The KeyboardInterrupt of `asyncio.run` has the cancellation of `map`, with its report, as `__context__`."""
    keys = fleet.keys()
    environ = os.environ | {
        "ACCOUNTS": " ".join(account.id for account in fleet.accounts),
        "ENDPOINT": fleet.endpoint_url,
        "KEY_ID": keys.access_key_id,
        "SECRET": keys.secret_access_key,
    }
    command = [sys.executable, "-W", "error", "-c", RUN]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "['succeeded', 'cancelled']\n"
