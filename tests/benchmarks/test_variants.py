"""Variants: each does the work that it is measured for, and what is not installed is named."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks import _go, fleet, short
from benchmarks._processes import ChildFailed, missing_packages
from benchmarks._variants import VARIANTS
from benchmarks.server import CannedServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["asyncauth", "minimal", "aiohttp", "stock", "boto3_careful"])
def test_variant_does_the_work(server: CannedServer, name: str) -> None:
    """Every installed variant calls AssumeRole and DescribeInstances once per account, with correct signatures."""
    variant = replace(VARIANTS[name], stack="new")
    if missing := missing_packages("new", variant.packages):
        pytest.skip(f"{missing} not installed")

    result = fleet.run_one(variant, 4, server, at_once=2, warm_up=1, timeout=60)

    assert (result["assume_role"], result["describe_instances"], result["crossed"]) == (4, 4, 0)
    assert result["cpu_ms_per_account"] > 0


def test_go_variant_does_the_work(server: CannedServer) -> None:
    """The Go program, where `make bench` has built it, calls each account once, with correct signatures."""
    if not _go.PROGRAM.exists():
        pytest.skip("the Go program is not built: its first build takes a minute of CPU")

    result = fleet.run_one(VARIANTS["go"], 4, server, at_once=2, warm_up=1, timeout=60)

    assert (result["assume_role"], result["describe_instances"], result["crossed"]) == (4, 4, 0)
    assert fleet.summary(VARIANTS["go"], 4, [result])["versions"]["aws-sdk-go-v2"]


def test_missing_go_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Go and its SDK, or with a program that cannot be built, the page shows why the row is missing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_go, "_SDK", tmp_path / "none")
    lines: list[str] = []

    found = fleet.run(["go"], [10], runs=1, seconds=1.0, log=lines.append)

    why = "not run: Debian's golang-go and golang-github-aws-aws-sdk-go-v2-dev not installed"
    assert found == {"at_once": 20, "rows": [], "problems": {"go": why}, "raw": []}
    assert lines == [f"  go: {why}"]

    _go.build.cache_clear()
    monkeypatch.setattr(_go, "missing", lambda: ())
    (tmp_path / "go").write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")

    assert "no such package" in (fleet.why_not_run(VARIANTS["go"]) or "")


@pytest.mark.parametrize("name", short.VARIANT_NAMES)
def test_a_short_run_does_the_work(server: CannedServer, name: str) -> None:
    """A whole process assumes each role and calls each account once; a variant that fails is an error."""
    assert short.seconds(name, 3, server) > 0

    with pytest.raises(ChildFailed, match="KeyError"):
        short.seconds("unknown", 3, server)


def test_failure_is_reported(server: CannedServer) -> None:
    """A measured process that fails is an error with its output."""
    broken = replace(VARIANTS["aiohttp"], name="no_such_variant")

    with pytest.raises(ChildFailed, match="no_such_variant"):
        fleet.run_one(broken, 1, server, timeout=30)
