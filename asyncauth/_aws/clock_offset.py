"""Clock offset: refusals that a wrong clock of this machine causes, and by how much it is off.

AWS refuses a request whose date differs from its own time by more than five minutes (15 for some services). It has a
code of its own for that in S3 alone: STS and services with JSON have that of a wrong signature, and EC2 has that of an
expired token or of wrong keys. The `Date` of the answer shows which it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from asyncauth._aws.error_codes import error_code

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_SAYS_SO: Final = re.compile(r"Signature (expired|not yet current)", re.IGNORECASE)
#: Codes of a wrong signature; the message shows whether its date is the reason.
_SIGNATURE: Final = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
#: Codes of EC2 that have other causes too; the offset shows whether the clock is the reason.
_AMBIGUOUS: Final = frozenset({"AuthFailure", "RequestExpired"})
#: Less than the five minutes that AWS accepts, for the time that the answer took.
_REFUSED_SECONDS: Final = 290.0


def describe_clock(error: BaseException, code: str | None, now: float) -> str | None:
    """Return by how much this machine's clock is off if a refusal is due to it, else None.

    Args:
        error, code: the refusal.
        now: this machine's time, seconds since 1970.
    """
    date = response_date(getattr(error, "response", None))
    offset = None if date is None else now - date.timestamp()
    if not _is_clock(error, code, offset):
        return None
    return (
        f"this machine's clock is off{_in_words(offset)}; AWS accepts 5 minutes, so correct the clock (NTP); the keys "
        "are not the cause"
    )


def note_clock(error: ClientError, now: float) -> None:
    """Add the offset of this machine's clock to a refusal that is due to it, as a note of the exception."""
    described = describe_clock(error, error_code(error), now)
    if described is not None and described not in getattr(error, "__notes__", ()):
        error.add_note(described)


def response_date(response: object) -> datetime | None:
    """Return the `Date` of an answer; None if it has none, or one that cannot be read."""
    for key in ("ResponseMetadata", "HTTPHeaders", "date"):
        response = response.get(key) if isinstance(response, dict) else None
    return _read_date(response) if isinstance(response, str) else None


@lru_cache(maxsize=16)
def _read_date(text: str) -> datetime | None:
    # A fan-out gets some hundred responses a second, all with the same date.
    try:
        dated = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return dated if dated.tzinfo else dated.replace(tzinfo=UTC)


def _is_clock(error: BaseException, code: str | None, offset: float | None) -> bool:
    if code == "RequestTimeTooSkewed":
        return True
    if code in _SIGNATURE:
        return _SAYS_SO.search(str(error)) is not None
    return code in _AMBIGUOUS and offset is not None and abs(offset) >= _REFUSED_SECONDS


def _in_words(offset: float | None) -> str:
    if offset is None:
        return ""
    minutes, seconds = divmod(abs(round(offset)), 60)
    return f": it is {minutes} min {seconds} s {'ahead of' if offset > 0 else 'behind'} AWS"
