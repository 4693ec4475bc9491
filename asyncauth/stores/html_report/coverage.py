"""Coverage of a store: the last status of each scope, as a matrix of accounts and regions, and the causes of failures.

A scope is a kind in an account and region. A cell of the matrix has the scopes of all kinds there, in five states:

    complete   every kind was fetched completely
    partial    some were, and some were not
    denied     AWS refused the role or the calls
    failed     an error, throttling, or a timeout
    skipped    not to be fetched: the region is not enabled, the run ended before

A cell without a scope is empty: no sync was to fetch it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

State: TypeAlias = Literal["complete", "partial", "denied", "failed", "skipped"]
STATES: Final[tuple[State, ...]] = get_args(State)
_STATE_OF: Final[Mapping[str, State]] = {"ok": "complete", "denied": "denied", "skipped": "skipped"}
#: The state of a cell without a complete kind is its worst one.
_WORST_FIRST: Final[tuple[State, ...]] = ("denied", "failed", "skipped")

#: More accounts than this are shown in groups: those with the same states in all regions are one row.
MAX_ROWS: Final = 200
_MAX_GROUPS: Final = 60
_NARROW_COLUMNS: Final = 8
_SIDE_BY_SIDE: Final = 3
_MIN_ROWS: Final = 10
#: What a page names of something long: the rest is a number.
MAX_NAMED: Final = 500
_MAX_CAUSES: Final = 40
_REASON_CHARACTERS: Final = 300
#: What differs behind these of a reason is not a cause of its own.
_READ_CHARACTERS: Final = 1_000
_NAME_CHARACTERS: Final = 60
_GLOBAL: Final = "global"
# Ids, counts and times differ between messages of one cause. Only from a word's begin on: every other start in a long
# word without a digit would look through the rest of it in vain.
_WITH_DIGITS: Final = re.compile(r"\b\w*\d\w*")

# The row of the last record: SQLite takes bare columns from the row that has the maximum.
_SCOPES: Final = """select partition, account, region, kind, status, code, reason, ended, max(rowid) from scopes
    group by partition, account, region, kind order by partition, account, region, kind"""
_NAMES: Final = """select partition, account, max(account_name) from resources where account_name is not null
    group by partition, account"""

AccountKey: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Cell:
    """Scopes of one account and region.

    Args:
        state: the state of all of them.
        title: what was not complete; empty if everything was.
    """

    state: State
    title: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """An account of the matrix, or accounts with the same states.

    Args:
        name: the account's name, or how many accounts it is.
        id: the account's id; empty for several.
        cells: one for each column; None where no sync was to fetch anything.
        members: names and ids of several accounts.
    """

    name: str
    id: str
    cells: tuple[Cell | None, ...]
    members: tuple[str, ...] = ()

    @property
    def trouble(self) -> int:
        """Number of cells that are not complete."""
        return sum(cell is not None and cell.state != "complete" for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Block:
    """The accounts of one partition.

    Args:
        partition: its name.
        regions: the columns.
        rows: those with trouble first.
        accounts: how many accounts the rows are.
    """

    partition: str
    regions: tuple[str, ...]
    rows: tuple[Row, ...]
    accounts: int

    @property
    def is_narrow(self) -> bool:
        """Whether the columns are so few that parts of the matrix fit side by side."""
        return len(self.regions) <= _NARROW_COLUMNS

    @property
    def tables(self) -> tuple[tuple[Row, ...], ...]:
        """The rows in as many parts as fit side by side on a wide page."""
        height = max(_MIN_ROWS, -(-len(self.rows) // _SIDE_BY_SIDE)) if self.is_narrow else len(self.rows)
        return tuple(self.rows[start : start + height] for start in range(0, len(self.rows), height))


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Scopes that are not complete for the same cause.

    Args:
        status: the scopes' status.
        code: AWS's code, or the class of the error; None if there is none.
        reason: the reason of the first.
        scopes, accounts: how many.
        example: account, region and kind of the first.
    """

    status: str
    code: str | None
    reason: str
    scopes: int
    accounts: int
    example: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of all accounts of a store.

    Args:
        blocks: the matrix, by partition.
        cells: number of cells by state.
        causes: causes of the scopes that are not complete, the most frequent one first.
        more_causes: how many causes `causes` leaves out.
        accounts, complete_accounts, regions, scopes, complete_scopes: how many.
    """

    blocks: tuple[Block, ...]
    cells: Mapping[State, int]
    causes: tuple[FailureCause, ...]
    more_causes: int
    accounts: int
    complete_accounts: int
    regions: int
    scopes: int
    complete_scopes: int

    @property
    def is_grouped(self) -> bool:
        """Whether a row can be several accounts."""
        return self.accounts > MAX_ROWS


@dataclass(slots=True)
class _Cause:
    status: str
    code: str | None
    reason: str
    example: str
    scopes: int = 0
    accounts: set[AccountKey] = field(default_factory=set)


@dataclass(slots=True)
class _Collected:
    accounts: dict[AccountKey, dict[str, Cell]] = field(default_factory=dict)
    causes: dict[tuple[str, str], _Cause] = field(default_factory=dict)
    scopes: int = 0
    complete: int = 0


def account_names(connection: sqlite3.Connection) -> dict[AccountKey, str]:
    """Return the names of accounts, by partition and id, as far as a resource has one."""
    return {(partition, account): name for partition, account, name in connection.execute(_NAMES)}


def label_of(place: AccountKey, names: Mapping[AccountKey, str]) -> str:
    """Return the name of an account and its id in one printable line, or the id alone."""
    name = names.get(place)
    return f"{printable(name, _NAME_CHARACTERS)} ({place[1]})" if name else printable(place[1])


def read_coverage(connection: sqlite3.Connection, names: Mapping[AccountKey, str]) -> Coverage:
    """Read the last status of every scope of a store."""
    found = _Collected()
    for (partition, account, region), scopes in groupby(connection.execute(_SCOPES), key=lambda scope: scope[:3]):
        _add_cell(found, (partition, account), region, list(scopes), names)
    is_grouped = len(found.accounts) > MAX_ROWS
    counted = Counter(cell.state for cells in found.accounts.values() for cell in cells.values())
    causes = sorted(found.causes.values(), key=lambda cause: -cause.scopes)
    return Coverage(
        tuple(
            _block(partition, [(place, found.accounts[place]) for place in each], names, is_grouped=is_grouped)
            for partition, each in groupby(found.accounts, key=lambda place: place[0])
        ),
        {state: counted[state] for state in STATES},
        tuple(
            FailureCause(each.status, each.code, each.reason, each.scopes, len(each.accounts), each.example)
            for each in causes[:_MAX_CAUSES]
        ),
        max(0, len(causes) - _MAX_CAUSES),
        len(found.accounts),
        sum(all(cell.state == "complete" for cell in cells.values()) for cells in found.accounts.values()),
        len({(place[0], region) for place, cells in found.accounts.items() for region in cells if region != _GLOBAL}),
        found.scopes,
        found.complete,
    )


def _add_cell(
    found: _Collected,
    place: AccountKey,
    region: str,
    scopes: Sequence[tuple[Any, ...]],
    names: Mapping[AccountKey, str],
) -> None:
    missed: list[str] = []
    states: Counter[State] = Counter()
    for _, _, _, kind, status, code, reason, _, _ in scopes:
        state: State = _STATE_OF.get(status, "failed")
        states[state] += 1
        if state == "complete":
            continue
        missed.append(printable(f"{kind}: {status}{f' ({code})' if code else ''}", 80))
        key = (status, code or _WITH_DIGITS.sub("#", str(reason)[:_READ_CHARACTERS]))
        cause = found.causes.get(key)
        if cause is None:
            example = f"{label_of(place, names)} {printable(region)} {printable(kind)}"
            shown = printable(str(reason or status).strip(), _REASON_CHARACTERS)
            cause = found.causes[key] = _Cause(status, code and printable(code), shown, example)
        cause.scopes += 1
        cause.accounts.add(place)
    found.scopes += len(scopes)
    found.complete += states["complete"]
    title = "" if not missed else f"{printable(region)}: {', '.join(missed[:4])}"
    title += f" and {len(missed) - 4} more" if len(missed) > 4 else ""
    found.accounts.setdefault(place, {})[region] = Cell(_state_of(states), title)


def _state_of(states: Mapping[State, int]) -> State:
    present = {state for state, count in states.items() if count}
    if "complete" in present:
        return "complete" if len(present) == 1 else "partial"
    return next(state for state in _WORST_FIRST if state in present)


def _block(
    partition: str,
    accounts: Sequence[tuple[AccountKey, Mapping[str, Cell]]],
    names: Mapping[AccountKey, str],
    *,
    is_grouped: bool,
) -> Block:
    regions = sorted({region for _, cells in accounts for region in cells}, key=lambda each: (each != _GLOBAL, each))
    rows = [
        Row(printable(names.get(place) or "", _NAME_CHARACTERS), place[1], tuple(cells.get(each) for each in regions))
        for place, cells in accounts
    ]
    if is_grouped:
        rows = list(_groups(rows))
    else:
        rows.sort(key=lambda row: (-row.trouble, row.name, row.id))
    return Block(partition, tuple(map(printable, regions)), tuple(rows), len(accounts))


def _groups(rows: Iterable[Row]) -> Iterable[Row]:
    """Yield one row for all accounts with the same states, and one for those beyond sixty such groups."""
    by_states: dict[tuple[State | None, ...], list[Row]] = defaultdict(list)
    for row in rows:
        key: tuple[State | None, ...] = tuple(None if cell is None else cell.state for cell in row.cells)
        by_states[key].append(row)
    groups = sorted(by_states.values(), key=lambda group: (-group[0].trouble, -len(group)))
    if len(groups) > _MAX_GROUPS:
        groups.sort(key=len, reverse=True)
        groups[_MAX_GROUPS - 1 :] = [[row for group in groups[_MAX_GROUPS - 1 :] for row in group]]
    for group in groups:
        if len(group) == 1:
            yield group[0]
            continue
        members = tuple(f"{row.name} ({row.id})" if row.name else row.id for row in group[:MAX_NAMED])
        members += (f"and {len(group) - MAX_NAMED:,} more",) if len(group) > MAX_NAMED else ()
        cells = tuple(_merged([row.cells[column] for row in group]) for column in range(len(group[0].cells)))
        yield Row(f"{len(group):,} accounts", "", cells, members)


def _merged(cells: Sequence[Cell | None]) -> Cell | None:
    states: Counter[State] = Counter(cell.state for cell in cells if cell is not None)
    if not states:
        return None
    if len(states) == 1:
        (state,) = states
        return Cell(state, next(cell.title for cell in cells if cell is not None))
    return Cell("partial", ", ".join(f"{count:,} {state}" for state, count in states.most_common()))
