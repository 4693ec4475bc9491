"""How long botocore's credentials live on, by what they tell publicly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botocore.credentials import Credentials as StaticCredentials

if TYPE_CHECKING:
    from collections.abc import Callable

#: Two years: no credentials of AWS live as long.
_LONGEST: Final = float(2**26)
_PRECISION: Final = 0.05

#: How long an answer of a credentials object is believed that renews itself and does not tell when.
LEASE_SECONDS: Final = 60.0


def seconds_left(credentials: Any) -> float | None:
    """Return for how many seconds more `credentials` are good; None when they do not end.

    botocore keeps the moment of expiry to itself, but answers whether it is nearer than N seconds
    (`refresh_needed(refresh_in=N)`); asking for enough N finds it. The answer is never later than the truth.
    """
    nearer_than: Callable[..., bool] | None = getattr(credentials, "refresh_needed", None)
    if nearer_than is None:
        # Whether a class of somebody else's renews its keys is unknown: it is asked again after a while.
        return None if isinstance(credentials, StaticCredentials) else LEASE_SECONDS
    if not nearer_than(refresh_in=_LONGEST):
        return None
    low, high = 0.0, _LONGEST
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if nearer_than(refresh_in=middle) else (middle, high)
    return low
