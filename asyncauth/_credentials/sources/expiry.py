"""Remaining lifetime of botocore's credentials objects, found through their public methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botocore.credentials import Credentials as StaticCredentials

if TYPE_CHECKING:
    from collections.abc import Callable

#: Two years: longer than the lifetime of any credentials of AWS.
_LONGEST_SECONDS: Final = float(2**26)
_PRECISION_SECONDS: Final = 0.05

#: How long credentials are used before they are read again if their object renews itself and states no end.
LEASE_SECONDS: Final = 60.0


def seconds_left(credentials: Any) -> float | None:
    """Return how many seconds `credentials` remain valid; None if they do not expire.

    botocore keeps the expiration private, but `refresh_needed(refresh_in=N)` returns whether it is nearer than N
    seconds: a binary search over N finds it. The result is never later than the true expiration.
    """
    expires_within: Callable[..., bool] | None = getattr(credentials, "refresh_needed", None)
    if expires_within is None:
        # Another library's class may renew its keys without notice, so they are read again after a while.
        return None if isinstance(credentials, StaticCredentials) else LEASE_SECONDS
    if not expires_within(refresh_in=_LONGEST_SECONDS):
        return None
    low, high = 0.0, _LONGEST_SECONDS
    while high - low > _PRECISION_SECONDS:
        middle = (low + high) / 2
        low, high = (low, middle) if expires_within(refresh_in=middle) else (middle, high)
    return low
