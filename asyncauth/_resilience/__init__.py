"""Protection of shared endpoints: rate limits, circuit breakers, and the guard that applies both to each request."""

from __future__ import annotations

from asyncauth._resilience.circuit_breaker import CircuitBreakers
from asyncauth._resilience.rate_limiter import RateLimiters
from asyncauth._resilience.rate_limits import RateLimit, RateLimitShare, RateLimitStatistics, check_rate_limits
from asyncauth._resilience.request_guard import EndpointScope, RequestGuard

__all__ = [
    "CircuitBreakers",
    "EndpointScope",
    "RateLimit",
    "RateLimitShare",
    "RateLimitStatistics",
    "RateLimiters",
    "RequestGuard",
    "check_rate_limits",
]
