"""Ablation of the speed-ups: each switch turns off its own part alone, and the rows come from paired runs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from asyncauth._clients import ClientFactory
from asyncauth._clients.parsing.factory import _Fast
from asyncauth._clients.parsing.timestamps import parse_timestamp
from asyncauth._clients.speedups.sigv4 import FastSigning
from asyncauth._clients.speedups.user_agent_cache import CachedUserAgent
from asyncauth._clients.switches import SWITCHES, Switches
from benchmarks import _report, ablation
from tests.support.clients import ALICE, FakeIdentity

pytestmark = pytest.mark.anyio


async def speed_ups() -> set[str]:
    """Return the speed-ups that a new bound client has."""
    factory = ClientFactory(max_connections=10)
    client = await factory.bind(FakeIdentity(ALICE), "ec2", "eu-west-1")
    parser = client._endpoint._response_parser_factory.create_parser("ec2")
    found = {
        "signatures": isinstance(client._request_signer, FastSigning),
        "user_agent": isinstance(client._user_agent_creator, CachedUserAgent),
        "parsers": isinstance(parser, _Fast),
        "timestamps": parser._timestamp_parser is parse_timestamp,
    }
    await factory.aclose()
    return {name for name, is_used in found.items() if is_used}


@pytest.mark.parametrize("name", [None, *ablation.SWITCHES])
async def test_a_switch_turns_off_its_own_part_alone(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """A client has all speed-ups by default, and without a switch all but that one."""
    if name is not None:
        monkeypatch.setattr(SWITCHES, name, False)

    assert await speed_ups() == {field.name for field in fields(Switches)} - {name}


def test_a_switch_is_off_only_in_the_measured_process() -> None:
    """The variant turns off a switch that exists and is on; a second time is a mistake of the benchmark."""
    from benchmarks._variants.asyncauth import turn_off

    with pytest.raises(AttributeError):
        turn_off("unknown")
    try:
        turn_off("timestamps")
        with pytest.raises(ValueError, match="timestamps is off already"):
            turn_off("timestamps")
    finally:
        SWITCHES.timestamps = True


def test_a_row_comes_from_paired_differences() -> None:
    """What a speed-up saves is the median of the differences within a round, whatever a slow round costs."""
    row = ablation.row("signatures", every=[1.0, 9.0, 1.0, 1.0], without=[1.2, 9.3, 1.1, 0.9])

    assert row["saved_ms"] == pytest.approx(0.15)
    assert (row["slower_without"], row["pairs"]) == (3, 4)


def test_each_switch_is_measured_beside_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round has one run with everything and one without each; the page shows what each saves, the most first."""
    runs: list[Any] = []

    def run_one(*_: Any, without: str | None, **options: Any) -> dict[str, Any]:
        runs.append(without)
        return {"cpu_ms_per_account": 1.0 if without is None else 1.0 + len(without) / 100}

    monkeypatch.setattr(ablation, "run_one", run_one)
    result = ablation.run(accounts=10, rounds=2, log=lambda _: None)
    page = "\n".join(_report._ablation_parts(result))

    assert runs == [None, *ablation.SWITCHES, *reversed(ablation.SWITCHES), None]
    assert "| `timestamps` | 0.10 | 0.10 to 0.10 | 2 of 2 |" in page
    assert page.index("`timestamps`") < page.index("`parsers`")
