"""Fixtures of every test: no AWS setting of the machine and no home directory reaches it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.secret_scan import SecretScan
from tests.support.stacks import runs_on_every_stack

if TYPE_CHECKING:
    from pathlib import Path


# CI tries the same examples in every run, so that a failure is due to a change, and as the same ones find nothing new,
# half as many; local runs try random ones.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("local", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


# A shell starts background programs with SIGINT ignored, and so do their children: no test could interrupt one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Look for secrets in whatever the tests leave behind."""
    config.pluginmanager.register(SecretScan(), "secret_scan")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that run on every stack, before `-m` selects."""
    for item in items:
        if runs_on_every_stack(item.path):
            item.add_marker("botocore")


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which aiobotocore's default transport needs; a module can override this fixture."""
    return "asyncio"


@pytest.fixture
def short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let AssumeRole be repeated after milliseconds: as often and to the same end as otherwise, without the wait."""
    monkeypatch.setattr("asyncauth._credentials.role_credentials._BACK_OFF_SECONDS", 0.001)


@pytest.fixture(autouse=True)
def _no_aws_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hide `AWS_*`, botocore's own variables, proxies and the home directory from the test."""
    for name in list(os.environ):
        if name.upper().startswith(("AWS_", "BOTO_")) or name.lower() in {"http_proxy", "https_proxy", "all_proxy"}:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return home
