"""The ways to do the same work, one module each: `AssumeRole`, then `DescribeInstances`, for every account.

Each module has one `open_variant(at_once)`: a context manager (asynchronous for `loop` variants) that gives a
`Running`. Imports of the measured libraries stay in that module, so that a process pays for its own only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Seen = Callable[[str, "Answer"], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a variant must have understood of DescribeInstances' answer."""

    owners: frozenset[str]
    instances: int

    @classmethod
    def of(cls, parsed: dict[str, Any]) -> Answer:
        """Read it from what boto's family of clients returns."""
        reservations = parsed["Reservations"]
        return cls(
            frozenset(reservation["OwnerId"] for reservation in reservations),
            sum(len(reservation["Instances"]) for reservation in reservations),
        )


class LoopRunning(Protocol):
    """A variant on the event loop, ready: its imports, source and shared clients exist."""

    async def work(self, accounts: Sequence[str], seen: Seen) -> None:
        """Do the work for every account, and tell `seen` each one's answer as it comes."""

    async def keep(self, accounts: Sequence[str], seen: Seen) -> None:
        """Open a session with an EC2 client for every account, call once, tell `seen` each answer, keep all usable."""


class ThreadRunning(Protocol):
    """The same in threads."""

    def work(self, accounts: Sequence[str], seen: Seen) -> None:
        """Do the work for every account, and tell `seen` each one's answer."""

    def keep(self, accounts: Sequence[str], seen: Seen) -> None:
        """Open a session with an EC2 client for every account, call once, tell `seen` each answer, keep all usable."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table.

    Attributes:
        largest: the most accounts it is asked for; past that, a run would take minutes to say the same again.
        builds_clients: whether each account costs a client built anew, so that a run is long.
        signs_as_asked: False for the one variant that is wrong by design.
        live: how many sessions are kept to see what one holds; 0 when it keeps no session of an account.
    """

    name: str
    label: str
    kind: Literal["loop", "threads"]
    packages: tuple[str, ...]
    largest: int
    live: int
    stack: Literal["new", "aioboto3"] = "new"
    module: str = ""
    builds_clients: bool = False
    signs_as_asked: bool = True
    warm_up: int = 5

    @property
    def path(self) -> str:
        """The module that does it."""
        return f"benchmarks._variants.{self.module or self.name}"


_SESSION_EACH: Final[dict[str, Any]] = {"largest": 100, "live": 8, "warm_up": 2, "builds_clients": True}
_ALL = (
    Variant("asyncauth", "asyncauth", "loop", ("asyncauth", "aiobotocore"), largest=10_000, live=1_000, warm_up=20),
    Variant(
        "asyncauth_older",
        "asyncauth on aioboto3's stack",
        "loop",
        ("asyncauth", "aiobotocore"),
        largest=1_000,
        live=1_000,
        stack="aioboto3",
        module="asyncauth",
        warm_up=20,
    ),
    Variant("raw", "raw aiohttp + SigV4 (the limit)", "loop", ("aiohttp",), largest=10_000, live=0, warm_up=20),
    Variant(
        "stock",
        "one stock aiobotocore client (the wrong account)",
        "loop",
        ("aiobotocore",),
        largest=10_000,
        live=0,
        signs_as_asked=False,
        warm_up=20,
    ),
    Variant(
        "boto3_careful",
        "boto3 with care, in threads",
        "threads",
        ("boto3",),
        largest=1_000,
        live=50,
        builds_clients=True,
    ),
    Variant(
        "aioboto3",
        "aioboto3, a session per account",
        "loop",
        ("aioboto3", "aiobotocore"),
        stack="aioboto3",
        **_SESSION_EACH,
    ),
    Variant("boto3_session", "boto3, a session per account", "threads", ("boto3",), **_SESSION_EACH),
    Variant("botocove", "botocove", "threads", ("botocove", "boto3"), **_SESSION_EACH),
    Variant("runacross", "runacross", "threads", ("runacross", "boto3"), **_SESSION_EACH),
)
VARIANTS: Final = {variant.name: variant for variant in _ALL}
