"""Resources of a store: how many there are, where and of which type, and what a sync has found new or gone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asyncauth._runtime.printable import printable
from asyncauth.stores.html_report.coverage import AccountKey, label_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Hashable, Mapping, Sequence

_INSTANCES: Final = "ec2:instance"
#: Bars of a chart; the rest is one bar.
_MAX_BARS: Final = 12
_MAX_LISTED: Final = 100
_NAME_CHARACTERS: Final = 60
_TITLE_CHARACTERS: Final = 80
_RUNNING: Final = frozenset({"running", "pending"})
_STOPPED: Final = frozenset({"stopped", "stopping"})

_BY_KIND: Final = "select kind, count(*) from resources r where {current} group by kind order by 2 desc, 1"
_GROUPS: Final = """select partition, account, region, json_extract(columns, '$.type'),
    json_extract(columns, '$.state'), count(*) from resources r where kind = 'ec2:instance' and {current}
    group by 1, 2, 3, 4, 5"""
_PLACE: Final = "kind, partition, account, region"
# Sets, not subqueries of a row: SQLite makes them once, and a store has fewer places than resources.
#: Each place with the last sync that has fetched it completely. SQLite takes `sync` from the row with the maximum.
_LAST: Final = f"""(select {_PLACE}, sync from (
    select {_PLACE}, sync, max(rowid) from scopes where status = 'ok' group by {_PLACE}))"""  # noqa: S608 - constants
#: Each place that `:sync` has fetched completely, with the last sync before it that has: the one before may have left
#: the place out. What becomes visible with an account has not appeared.
_EARLIER: Final = f"""(select {_PLACE}, sync from (
    select s.kind, s.partition, s.account, s.region, s.sync, max(s.rowid) from scopes c join scopes s
    on s.kind = c.kind and s.partition = c.partition and s.account = c.account and s.region = c.region
    where c.sync = :sync and c.status = 'ok' and s.status = 'ok' and s.sync != :sync and s.rowid < c.rowid
    group by 1, 2, 3, 4))"""  # noqa: S608 - constants
#: A row and the sync that it is of, to look for in one of the sets.
_FETCHED: Final = "({0}.kind, {0}.partition, {0}.account, {0}.region, {0}.sync)"
_COMPARED: Final = f"(r.kind, r.partition, r.account, r.region) in (select {_PLACE} from {_EARLIER})"  # noqa: S608 - constants
_IN: Final = """exists (select 1 from resources o where o.kind = r.kind and o.partition = r.partition
    and o.account = r.account and o.region = r.region and o.id = r.id and {condition})"""
#: Whether the sync before has left out a place that is compared.
_HAS_OLDER: Final = f"select exists (select 1 from {_EARLIER} where sync != :previous)"  # noqa: S608 - constants
_LISTED: Final = "r.kind, r.partition, r.account, r.region, r.id, r.name"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart.

    Args:
        label: what it is about, in short.
        title: the same with an account's id.
        running, stopped, other: instances by state.
        is_rest: whether it is all those that have no bar of their own.
    """

    label: str
    title: str
    running: int
    stopped: int
    other: int
    is_rest: bool = False

    @property
    def total(self) -> int:
        """Number of all instances."""
        return self.running + self.stopped + self.other


@dataclass(frozen=True, slots=True)
class Instances:
    """EC2 instances, in three views with the largest first.

    Args:
        by_account, by_region, by_type: bars; the last one can be the rest.
        all: all instances.
    """

    by_account: tuple[Bar, ...]
    by_region: tuple[Bar, ...]
    by_type: tuple[Bar, ...]
    all: Bar


@dataclass(frozen=True, slots=True)
class Change:
    """A resource that has appeared or disappeared."""

    kind: str
    name: str
    id: str
    account: str
    region: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What the last sync has found new or gone.

    Args:
        by_kind: kind, appeared and disappeared, the kinds with the most changes first.
        appeared, disappeared: the first of each.
        appeared_total, disappeared_total: how many.
        has_older: whether a place was fetched last before the previous sync, which left it out.
    """

    by_kind: tuple[tuple[str, int, int], ...]
    appeared: tuple[Change, ...]
    disappeared: tuple[Change, ...]
    appeared_total: int
    disappeared_total: int
    has_older: bool

    @property
    def most(self) -> int:
        """The changes of the kind that has the most."""
        return max((new + gone for _, new, gone in self.by_kind), default=0)


def current_rows(mode: str) -> str:
    """Return the SQL condition of the rows `r` that are there now, as far as the store knows.

    In mode `append` these are the rows of each place's last complete fetch: the last sync may have left places out.
    """
    return f"{_FETCHED.format('r')} in {_LAST}" if mode == "append" else "r.gone_at is null"


def read_kinds(connection: sqlite3.Connection, mode: str) -> tuple[tuple[str, int], ...]:
    """Return the kinds and how many resources of each there are."""
    rows = connection.execute(_BY_KIND.format(current=current_rows(mode)))
    return tuple((printable(kind), count) for kind, count in rows)


def read_instances(connection: sqlite3.Connection, mode: str, names: Mapping[AccountKey, str]) -> Instances | None:
    """Return the EC2 instances; None if there are none."""
    accounts: dict[Hashable, Counter[str]] = {}
    regions: dict[Hashable, Counter[str]] = {}
    types: dict[Hashable, Counter[str]] = {}
    every: Counter[str] = Counter()
    for partition, account, region, type_, state, count in connection.execute(
        _GROUPS.format(current=current_rows(mode))
    ):
        part = "running" if state in _RUNNING else "stopped" if state in _STOPPED else "other"
        for counts, key in ((accounts, (partition, account)), (regions, region), (types, str(type_ or "unknown"))):
            counts.setdefault(key, Counter())[part] += count
        every[part] += count
    if not every:
        return None
    return Instances(
        _bars(accounts, lambda place: (names.get(place) or place[1], label_of(place, names)), "accounts"),
        _bars(regions, lambda name: (name, name), "regions"),
        _bars(types, lambda name: (name, name), "types"),
        _bar(("all", "all"), every),
    )


def _bar(labels: tuple[str, str], counts: Mapping[str, int]) -> Bar:
    label, title = (printable(each, _TITLE_CHARACTERS) for each in labels)
    return Bar(label, title, counts.get("running", 0), counts.get("stopped", 0), counts.get("other", 0))


def _bars(
    counts: Mapping[Any, Counter[str]], labels_of: Callable[[Any], tuple[str, str]], what: str
) -> tuple[Bar, ...]:
    ordered = sorted(counts.items(), key=lambda each: (-each[1].total(), str(each[0])))
    shown = ordered if len(ordered) <= _MAX_BARS + 1 else ordered[:_MAX_BARS]
    bars = [_bar(labels_of(key), each) for key, each in shown]
    rest = [each for _, each in ordered[len(shown) :]]
    if rest:
        label = f"{len(rest):,} more {what}"
        bars.append(replace(_bar((label, label), sum(rest, Counter())), is_rest=True))
    return tuple(bars)


def read_changes(
    connection: sqlite3.Connection, mode: str, sync: str, began: float, previous: str, names: Mapping[AccountKey, str]
) -> Changes:
    """Return what a sync has found new or gone, in the places that it and an earlier one have fetched completely.

    Each place is compared with its own last complete fetch before the sync.

    Args:
        connection: of the store.
        mode: of the sync.
        sync, began: its id, and the time at which it began.
        previous: the id of the sync before it.
        names: names of accounts.
    """
    before = f"{_FETCHED.format('r')} in {_EARLIER}"
    if mode == "append":
        known = _IN.format(condition=f"{_FETCHED.format('o')} in {_EARLIER}")
        appeared = f"r.sync = :sync and {_COMPARED} and not {known}"
        disappeared = f"{before} and not {_IN.format(condition='o.sync = :sync')}"
    else:
        appeared = f"r.sync = :sync and r.first_seen >= :began and {_COMPARED}"
        # A mirror marks the row; another store keeps it under the sync that has seen it last.
        is_gone = f"((r.gone_at >= :began and {_COMPARED}) or (r.gone_at is null and {before}))"
        disappeared = f"r.sync != :sync and {is_gone}"
    values = {"sync": sync, "began": began, "previous": previous}
    new, new_kinds = _listed(connection, appeared, values, names)
    gone, gone_kinds = _listed(connection, disappeared, values, names)
    kinds = sorted({*new_kinds, *gone_kinds}, key=lambda kind: (-new_kinds[kind] - gone_kinds[kind], kind))
    return Changes(
        tuple((printable(kind), new_kinds[kind], gone_kinds[kind]) for kind in kinds),
        new,
        gone,
        new_kinds.total(),
        gone_kinds.total(),
        bool(connection.execute(_HAS_OLDER, values).fetchone()[0]),
    )


def _listed(
    connection: sqlite3.Connection, condition: str, values: Mapping[str, object], names: Mapping[AccountKey, str]
) -> tuple[tuple[Change, ...], Counter[str]]:
    counts = Counter(
        dict(connection.execute(f"select kind, count(*) from resources r where {condition} group by 1", values))  # noqa: S608 - constants
    )
    rows = connection.execute(
        f"select {_LISTED} from resources r where {condition} order by kind != '{_INSTANCES}', kind, partition, "  # noqa: S608 - constants
        f"account, region, id limit {_MAX_LISTED}",
        values,
    )
    return tuple(_change(row, names) for row in rows), counts


def _change(row: Sequence[Any], names: Mapping[AccountKey, str]) -> Change:
    kind, partition, account, region, id_, name = row
    return Change(
        printable(kind),
        printable(name or "", _NAME_CHARACTERS),
        printable(id_, _NAME_CHARACTERS),
        label_of((partition, account), names),
        printable(region),
    )
