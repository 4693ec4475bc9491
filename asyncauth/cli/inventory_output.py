"""Inventory on stdout: a store that writes records as output, and the counts of what landed in any store."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from asyncauth.cli.endings import OutputClosedError
from asyncauth.stores import ExpectsTargets, Interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncauth._models.kinds import Kind, Record
    from asyncauth.cli.output import Output
    from asyncauth.stores import ExpectedTarget, Scope, ScopeStatus, Store

COMMON: Final = ("kind", "partition", "account", "account_name", "region", "id", "arn", "name")
SUMMARY: Final = ("kind", "resources", "complete", "incomplete", "reasons")


def inventory_columns(kinds: Sequence[Kind], *, raw: bool) -> tuple[str, ...]:
    """Return the columns of records: a kind's own ones if it is the only kind, else one column with all of them."""
    own = (*kinds[0].columns, *(("tags",) if kinds[0].tags else ())) if len(kinds) == 1 else ("columns",)
    return (*COMMON, *own, *(("raw",) if raw else ()))


class OutputStore:
    """Store that writes the records of each complete scope to stdout; those of other scopes are dropped.

    Args:
        output: where records go.
        on_closed: called once when the reader has closed stdout.
    """

    def __init__(self, output: Output, on_closed: Callable[[], None]) -> None:
        self._output = output
        self._on_closed = on_closed
        self._pages: dict[Scope, dict[str, Record]] = {}
        self._is_flat = True
        self.is_closed = False

    async def begin(self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Take the kinds of the sync."""
        self._is_flat = len(kinds) == 1
        return sync or "output"

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Keep a page until its scope is complete."""
        self._pages.setdefault(scope, {}).update((record.id, record) for record in page)

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Write the scope's records if it is complete; return their number."""
        records = self._pages.pop(scope, {})
        if status.status != "ok" or self.is_closed:
            return 0
        try:
            for record in records.values():
                self._output.write(self._row(record))
        except OutputClosedError:
            # Here it would be the failure of one target, and the run would go on.
            self.is_closed = True
            self._on_closed()
        return len(records)

    async def close(self) -> None:
        """Drop what was not complete."""
        self._pages.clear()

    def __repr__(self) -> str:
        return "<OutputStore>"

    def _row(self, record: Record) -> dict[str, Any]:
        row = {name: getattr(record, name) for name in COMMON}
        row |= record.columns if self._is_flat else {"columns": record.columns}
        return row if record.raw is None else {**row, "raw": record.raw}


class CountedStore:
    """Store that counts what another store commits, by kind.

    Only scopes that are not complete are kept one by one.

    Args:
        store: the other store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: defaultdict[str, int] = defaultdict(int)
        self._complete: defaultdict[str, int] = defaultdict(int)
        self._incomplete: dict[Scope, ScopeStatus] = {}
        self._kinds: list[str] = []

    async def begin(self, sync: str | None, kinds: Sequence[Kind], *, journal: str | None = None) -> str:
        """Open the other store."""
        self._kinds = [kind.name for kind in kinds]
        return await self._store.begin(sync, kinds, journal=journal)

    async def write(self, scope: Scope, page: Sequence[Record]) -> None:
        """Pass a page on."""
        await self._store.write(scope, page)

    async def finish_scope(self, scope: Scope, status: ScopeStatus) -> int:
        """Commit a scope and count it. A scope can be finished again, after a restart or with a better reason."""
        rows = await self._store.finish_scope(scope, status)
        if status.status == "ok":
            self._incomplete.pop(scope, None)
            self._complete[scope.kind] += 1
            self._rows[scope.kind] += rows
        else:
            self._incomplete[scope] = status
        return rows

    async def expect(self, targets: Sequence[ExpectedTarget]) -> None:
        """Pass the targets on to a store that notes what a sync is to fetch."""
        if isinstance(self._store, ExpectsTargets):
            await self._store.expect(targets)

    async def interrupt(self) -> None:
        """Pass the end on to a store that marks a sync as interrupted."""
        if isinstance(self._store, Interruptible):
            await self._store.interrupt()

    async def close(self) -> None:
        """Close the other store."""
        await self._store.close()

    def __repr__(self) -> str:
        # A journal belongs to the store, whether it is counted or not.
        return repr(self._store)

    def summary(self) -> list[dict[str, Any]]:
        """Return a record for each kind: its resources, and how many scopes are complete and why others are not."""
        return [
            {
                "kind": kind,
                "resources": self._rows[kind],
                "complete": self._complete[kind],
                "incomplete": sum(self._reasons(kind).values()),
                "reasons": ", ".join(f"{count} {why}" for why, count in sorted(self._reasons(kind).items())) or None,
            }
            for kind in self._kinds
        ]

    @property
    def resources(self) -> int:
        """Number of resources in complete scopes."""
        return sum(self._rows.values())

    @property
    def complete(self) -> int:
        """Number of complete scopes."""
        return sum(self._complete.values())

    @property
    def incomplete(self) -> int:
        """Number of other scopes."""
        return len(self._incomplete)

    def _reasons(self, kind: str) -> dict[str, int]:
        found: defaultdict[str, int] = defaultdict(int)
        for scope, status in self._incomplete.items():
            if scope.kind == kind:
                found[status.code or status.status] += 1
        return found
