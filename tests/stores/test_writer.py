"""Writer thread: it ends with a begin that fails or is cancelled, also while that waits for another run's lock."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from asyncauth import StoreLocked
from asyncauth.stores import ParquetStore, SqliteStore
from tests.support.stores import KIND

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def writers() -> list[threading.Thread]:
    """Return the threads of stores that live."""
    return [each for each in threading.enumerate() if each.name.startswith("asyncauth-store")]


@pytest.mark.parametrize("kind_of_store", [SqliteStore, ParquetStore])
@pytest.mark.parametrize("wait", [0, 3600])
async def test_a_begin_that_fails_or_is_cancelled_leaves_no_thread(
    tmp_path: Path, kind_of_store: Any, wait: float
) -> None:
    """The second run is refused at once, or is cancelled while it waits; only the first run's thread is left."""
    first, second = kind_of_store(tmp_path / "store"), kind_of_store(tmp_path / "store", wait=wait)
    await first.begin("1", [KIND])
    kept = writers()
    if wait:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.begin, "2", [KIND])
            while writers() == kept:
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    else:
        with pytest.raises(StoreLocked):
            await second.begin("2", [KIND])
    for each in set(writers()) - set(kept):
        each.join(10)

    assert writers() == kept
    await first.close()
