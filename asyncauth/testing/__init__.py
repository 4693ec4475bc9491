"""What a test of a fleet needs: a simulated fleet, a clock that a test moves, and pytest fixtures for both."""

from asyncauth.testing._clock import FakeClock

__all__ = ["FakeClock"]
