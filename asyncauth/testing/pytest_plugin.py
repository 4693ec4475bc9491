"""pytest plugin: simulated fleets and a fake clock as fixtures, for tests with and without an event loop.

pytest loads this module in every run of every project that has asyncauth installed, so it imports only pytest until a
fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncauth.testing._clock import FakeClock
    from asyncauth.testing._fleet import SimulatedFleet


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for runs with `--strict-markers`."""
    config.addinivalue_line(
        "markers", "simulated_fleet(accounts=3, **options): arguments of the simulated_fleet fixture's fleet"
    )


@pytest.fixture(scope="session")
def start_simulated_fleet() -> Iterator[Callable[..., SimulatedFleet]]:
    """Return a function that starts a fleet with the arguments of `SimulatedFleet`; all fleets end with the session.

    For your own fixtures, of any scope:

        @pytest.fixture(scope="module")
        def fleet(start_simulated_fleet):
            return start_simulated_fleet({"aws": 60, "aws-cn": 10})
    """
    from contextlib import ExitStack

    from asyncauth.testing._fleet import SimulatedFleet

    with ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> SimulatedFleet:
            return stack.enter_context(SimulatedFleet(*args, **kwargs))

        yield start


@pytest.fixture
def simulated_fleet(request: pytest.FixtureRequest) -> Iterator[SimulatedFleet]:
    """Return a running fleet for one test, made with the arguments of `@pytest.mark.simulated_fleet(accounts=5)`.

    The controls are awaited; `simulated_fleet.blocking` has them for tests without an event loop.
    """
    from asyncauth.testing._fleet import SimulatedFleet

    marker = request.node.get_closest_marker("simulated_fleet")
    args, kwargs = (marker.args, marker.kwargs) if marker else ((), {})
    with SimulatedFleet(*args, **kwargs) as fleet:
        yield fleet


@pytest.fixture
def asyncauth_clock() -> FakeClock:
    """Return a `FakeClock`, which moves only when the test advances it: `SessionPool(clock=asyncauth_clock)`."""
    from asyncauth.testing._clock import FakeClock

    return FakeClock()
