"""Protocol of a store: a sync begins, writes pages of scopes, and finishes each scope once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncauth._models.kinds import Kind, Record
    from asyncauth._models.metrics import Points

Mode: TypeAlias = Literal["append", "upsert", "mirror"]
Status: TypeAlias = Literal["ok", "denied", "throttled", "error", "skipped", "timed_out"]

#: Begin of a scope's kind whose content is points of metrics: `metrics:AWS/EC2`.
METRICS_PREFIX: Final = "metrics:"


class Scope(NamedTuple):
    """Scope of a fetch: one kind in one account and region.

    Args:
        kind: the kind's name; `metrics:` and the namespace for points of metrics.
        partition: the partition's name.
        account: the account's id.
        region: the region's name, or `global`.
    """

    kind: str
    partition: str
    account: str
    region: str


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """Result of a scope's fetch. Only `ok` means that every page was fetched.

    Args:
        status: `ok`, `denied`, `throttled`, `error`, `skipped` or `timed_out`.
        code: AWS's error code; None if there is none.
        reason: a sentence for people; None if there is none.
    """

    status: Status
    code: str | None = None
    reason: str | None = None


class ExpectedTarget(NamedTuple):
    """Account and region that a sync is to fetch.

    Args:
        partition: the partition's name.
        account: the account's id.
        region: the region's name.
        is_certain: whether the account has the region; False if only AWS's answer shows which regions are enabled.
    """

    partition: str
    account: str
    region: str
    is_certain: bool


class Store(Protocol):
    """Place where a sync lands. Nothing of a scope is visible to readers before `finish_scope` returns."""

    async def begin(self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Open the store for one sync, and return the sync's id; a resumed sync has the id that it had before.

        Args:
            sync: the id; None: that of the journal's last sync if the journal's file exists, else a new one.
            kinds: the kinds of the sync.
            journal: path of the run's journal; None without one.
        """
        ...

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Keep a page of a scope; duplicates by id within a scope are one."""
        ...

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit the scope and return its rows. Unless the status is `ok`, its pages are dropped.

        A scope that is repeated in a resumed sync replaces its own record, unless it was `ok` and is now `skipped`.
        """
        ...

    async def close(self) -> None:
        """End the sync and release the store. Scopes that are not finished leave nothing."""
        ...


class MetricStore(Store, Protocol):
    """Store that also keeps points of metrics."""

    async def begin(
        self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None, metrics: Sequence[str] = ()
    ) -> str:
        """Open the store for one sync, as `Store.begin` does.

        Args:
            sync: the id; None: that of the journal's last sync if the journal's file exists, else a new one.
            kinds: the kinds of the sync.
            journal: path of the run's journal; None without one.
            metrics: namespaces of the sync's metrics. With the kinds, they are the scopes of each expected target.
        """
        ...

    async def write_points(self, scope: Scope, page: Sequence[Points]) -> None:
        """Keep points of a scope, whose kind begins with `metrics:`; the last value of an instant counts.

        `finish_scope` commits them whatever the status is: what CloudWatch has answered is true, and its gaps can be
        filled by a later sync.
        """
        ...

    async def note_window(self, scope: Scope, period: int, end: int) -> None:
        """Note up to which Unix time a scope's points of a period were fetched; `finish_scope` keeps it if `ok`."""
        ...

    async def metric_ends(self) -> Mapping[tuple[str, str, str, str, int], int]:
        """Return what `note_window` has kept, by partition, account, region, namespace and period.

        The store need not be open.
        """
        ...


@runtime_checkable
class ExpectsTargets(Protocol):
    """Optional part of a store: it notes what a sync is to fetch, so that a killed sync shows what it left out."""

    async def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        """Note targets, before the first of their scopes is fetched.

        A scope of theirs that has no record when the sync ends, or when the store is opened after a kill, is recorded
        as skipped. Of a target that is not certain, only scopes that an earlier sync fetched.
        """
        ...


@runtime_checkable
class LimitsSpace(Protocol):
    """Optional part of a store of metrics: it limits what waits for the end of its scopes."""

    async def wait_for_space(self) -> None:
        """Wait until a target that has no page in the store may write one."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """Optional part of a store: it marks a sync that ended early."""

    async def interrupt(self) -> None:
        """Mark the sync as interrupted; `close` follows."""
        ...


class Written(Protocol):
    """Scope that a worker of an engine has fetched into a shared place: it can be pickled, and has no rows."""

    @property
    def number(self) -> int:
        """Number of the scope's record, which no other one has."""
        ...

    @property
    def status(self) -> Status:
        """The scope's status."""
        ...

    @property
    def rows(self) -> int:
        """The scope's rows."""
        ...

    @property
    def part(self) -> object | None:
        """Description of the file that has the rows; None if there are none, or they wait in the worker."""
        ...


class SharedWriter(Protocol):
    """Writer of a worker into a shared place: it gathers the scopes of many targets."""

    @property
    def is_full(self) -> bool:
        """Whether there are enough rows for a file."""
        ...

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Keep a page of a scope; duplicates by id within a scope are one."""
        ...

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> Written:
        """Gather the scope; unless the status is `ok`, its pages are dropped."""
        ...

    async def write_parts(self) -> tuple[Sequence[Written], Exception | None]:
        """Write what was gathered; return the scopes that have rows, and the error if the rows are lost."""
        ...


class SharedPlace(Protocol):
    """Shared place as workers get it; it can be pickled."""

    def open(self) -> SharedWriter | None:
        """Return the writer of this process; None if it does not see the place."""
        ...


@runtime_checkable
class Shareable(Protocol):
    """Optional part of a store: workers of an engine write the rows, and the store takes their descriptions."""

    def share(self) -> SharedPlace:
        """Return the place of the next sync, before `begin`."""
        ...

    async def add_written(self, written: Sequence[Written]) -> None:
        """Commit scopes that a worker has written. Rows of a scope that is not committed do not count."""
        ...


def new_sync_id(now: float) -> str:
    """Return an id for a sync that begins at the Unix time `now`; ids sort by time."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H%M%SZ}-{secrets.token_hex(2)}"
