"""Sources for tests: opened in a task group of their own, over files below the test's home directory."""

from __future__ import annotations

import os
import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asyncauth import RefreshPolicy
from asyncauth._credentials.sources import make_source
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncauth._credentials.sources import Source, SourceSpec
    from asyncauth._runtime.clock import Clock


@asynccontextmanager
async def open_source(
    spec: SourceSpec, *, clock: Clock = SYSTEM_CLOCK, policy: RefreshPolicy | None = None, **options: Any
) -> AsyncIterator[Source]:
    """Yield a source whose loads end with the block; an exception of the block is raised unchanged."""
    failed: Exception | None = None
    async with anyio.create_task_group() as flights:
        try:
            yield make_source(
                spec,
                spawn=flights.start_soon,
                clock=clock,
                random=random.Random(1),
                policy=policy or RefreshPolicy(),
                **options,
            )
        except Exception as error:
            failed = error
        flights.cancel_scope.cancel()
    if failed is not None:
        raise failed


def write_home_file(name: str, content: str) -> None:
    """Write a file below the home directory."""
    path = Path(os.environ["HOME"]) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
