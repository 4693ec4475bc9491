"""Kills of a sync at random instants; `make kills` kills 200 times."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="each sync is a fork")
@pytest.mark.parametrize("store", ["sqlite", "parquet"])
def test_ten_kills_tear_no_scope(store: str, record_property: Callable[[str, object], None]) -> None:
    """The store opens, every scope is one complete fetch, nothing is wrongly gone, and the journal agrees with it."""
    seed = random.randrange(2**32)
    command = [
        sys.executable,
        "-m",
        "tests.support.store_kills",
        "--kills",
        "10",
        "--seed",
        str(seed),
        "--store",
        store,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    print(done.stdout, done.stderr)

    figures = json.loads(done.stdout)
    record_property("kills", figures)
    assert (figures["torn"], figures["wrongly_gone"], figures["problems"]) == ([], 0, [])
    assert sum(figures["phases"].get(phase, 0) for phase in ("fetch", "spool", "commit")) >= 10
    assert figures["scopes_committed"]
    assert done.returncode == 0
