"""Random runs: jobs, limits, producers and consumers that hypothesis draws, cancelled at any step, on a fake clock.

For each run: no limit is exceeded, every target has one correct result, the failures match the tolerance, and no task
outlives the block.
"""

from __future__ import annotations

import anyio
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.support.scenarios import Scenario, scenarios


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios)
def test_any_run(backend: str, scenario: Scenario) -> None:
    """No limit is exceeded, every target has one result, failures match the tolerance, no task outlives the block."""
    anyio.run(scenario.play, backend=backend)

    scenario.check()
    event(f"{scenario.consumer}, {scenario.producer}")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenario=scenarios, fraction=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_any_run_with_a_fraction(backend: str, scenario: Scenario, fraction: float) -> None:
    """The same holds if the tolerance is a fraction of all targets."""
    scenario.tolerance = fraction

    anyio.run(scenario.play, backend=backend)

    scenario.check()
