"""Variants of the same work, one module each: `AssumeRole`, then `DescribeInstances`, for every account.

Each module has a function `open_variant(at_once)`: a context manager (asynchronous for `loop` variants) that gives a
`Running`. Only that module imports the measured library, so that a process measures one library. The Go variant is a
program, `go/fleet.go`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    #: Receives the account and its answer.
    Record = Callable[[str, "Answer"], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """Parts of DescribeInstances' answer that a variant must have parsed."""

    owners: frozenset[str]
    instances: int

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> Answer:
        """Return the parts of an answer parsed by botocore."""
        reservations = parsed["Reservations"]
        return cls(
            frozenset(reservation["OwnerId"] for reservation in reservations),
            sum(len(reservation["Instances"]) for reservation in reservations),
        )


class LoopRunning(Protocol):
    """Opened variant on the event loop: its imports, source and shared clients are ready."""

    async def work(self, accounts: Sequence[str], record: Record) -> None:
        """Do the work for every account, and pass each answer to `record`."""

    async def keep(self, accounts: Sequence[str], record: Record) -> None:
        """Open a session with an EC2 client for every account, call once, `record` the answer, keep all open."""


class ThreadRunning(Protocol):
    """Opened variant in threads."""

    def work(self, accounts: Sequence[str], record: Record) -> None:
        """Do the work for every account, and pass each answer to `record`."""

    def keep(self, accounts: Sequence[str], record: Record) -> None:
        """Open a session with an EC2 client for every account, call once, `record` the answer, keep all open."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Row of the table.

    Attributes:
        largest: the largest number of accounts; with more, a run would take minutes for the same figure.
        live: number of sessions to keep for the memory of one; 0 for a variant without sessions of accounts.
        builds_clients: whether each account builds a new client, which makes runs long.
        has_right_identity: False for the one variant that calls as the wrong account on purpose.
    """

    name: str
    label: str
    kind: Literal["loop", "threads", "go"]
    packages: tuple[str, ...]
    largest: int
    live: int
    stack: Literal["new", "aioboto3"] = "new"
    module: str = ""
    builds_clients: bool = False
    has_right_identity: bool = True
    warm_up: int = 5

    @property
    def path(self) -> str:
        """Module of the variant."""
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
    Variant("minimal", "minimal HTTP client and signer", "loop", (), largest=10_000, live=0, warm_up=20),
    Variant("go", "AWS SDK for Go, a client per account", "go", (), largest=10_000, live=0, warm_up=20),
    Variant("aiohttp", "aiohttp + botocore's signer", "loop", ("aiohttp",), largest=10_000, live=0, warm_up=20),
    Variant(
        "stock",
        "one stock aiobotocore client (the wrong account)",
        "loop",
        ("aiobotocore",),
        largest=10_000,
        live=0,
        has_right_identity=False,
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
