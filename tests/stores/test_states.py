"""Runs, faults and changes of the fleet in any order: the SQLite store agrees with a model in plain Python."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asyncauth.stores import ExpectedTarget, ScopeStatus, SqliteStore
from asyncauth.testing import FakeClock
from tests.support.stores import KIND, kill, record, scope_of

if TYPE_CHECKING:
    from asyncauth.stores import Scope

#: Accounts of both partitions, one of them with two regions; one in `aws` has the id of one in `aws-cn`.
SCOPES = (
    scope_of("aws", "012345678901"),
    scope_of("aws", "012345678901", "eu-west-1"),
    scope_of("aws", "112345678901"),
    scope_of("aws-cn", "012345678901"),
)
IDS = ("i-1", "i-2", "i-3")
CHANGES = ("appears", "disappears", "disappears", "account is gone")
FAILURES = ("denied", "throttled", "error", "skipped", "timed_out")

scopes = st.sampled_from(SCOPES)
ids = st.sampled_from(IDS)


@dataclass
class Row:
    """Resource as the model knows it."""

    sync: str
    value: int
    is_gone: bool = False


@dataclass
class Model:
    """What a store must hold: rows by scope and id (and sync, in `append`), and the last status of each scope."""

    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    status: dict[Scope, str] = field(default_factory=dict)
    records: dict[tuple[str, Scope], str] = field(default_factory=dict)

    def commit(self, mode: str, sync: str, scope: Scope, content: dict[str, int]) -> None:
        if mode == "append":
            self.rows = {key: row for key, row in self.rows.items() if (key[0], key[2]) != (scope, sync)}
        for id_, value in content.items():
            self.rows[scope, id_, sync if mode == "append" else None] = Row(sync, value)
        if mode == "mirror":
            for (of, id_, _), row in self.rows.items():
                if of == scope and id_ not in content:
                    row.is_gone = True
        self.record(sync, scope, "ok")

    def record(self, sync: str, scope: Scope, status: str) -> None:
        if status != "skipped" or self.records.get((sync, scope)) != "ok":
            self.records[sync, scope] = self.status[scope] = status


class Stores(RuleBasedStateMachine):
    """One store and its fleet. Each rule is a step that happens in the life of an installation."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.model = Model()
        self.fleet: dict[Scope, dict[str, int]] = {scope: {} for scope in SCOPES}
        self.clock = FakeClock()
        self.syncs: list[str] = []
        self.states: dict[str, str] = {}
        self.left_out: dict[str, list[Scope]] = {}
        self.value = 0
        self.mode: Any = "mirror"
        self.strict = True

    @initialize(append=st.booleans(), strict=st.booleans())
    def choose(self, append: bool, strict: bool) -> None:
        """A file is of mode `append`, or of the other two; its first sync was complete."""
        self.mode = "append" if append else "mirror"
        self.strict = strict
        everything = {scope: dict.fromkeys(IDS, "appears") for scope in SCOPES}
        options: dict[str, Any] = {"faults": {}, "pages": 1, "end": "close", "is_resumed": False, "expects": True}
        self.run_sync(changes=everything, chosen=list(SCOPES), mode="mirror", seconds=0.0, **options)

    # -- the fleet -----------------------------------------------------------------------------------------------

    def change(self, changes: dict[Scope, dict[str, str]]) -> None:
        """Let resources appear, get another value, or disappear."""
        for scope, each in changes.items():
            for id_, change in each.items():
                self.value += 1
                self.fleet[scope].pop(id_, None)
                if change == "appears":
                    self.fleet[scope][id_] = self.value
                elif change == "account is gone":
                    self.fleet[scope].clear()

    # -- the syncs -----------------------------------------------------------------------------------------------

    @rule(
        changes=st.dictionaries(scopes, st.dictionaries(ids, st.sampled_from(CHANGES), min_size=1)),
        chosen=st.lists(scopes, unique=True, min_size=1),
        faults=st.dictionaries(scopes, st.sampled_from((*FAILURES, "unfinished")), max_size=2),
        pages=st.integers(1, 3),
        mode=st.sampled_from(["upsert", "mirror", "mirror"]),
        end=st.sampled_from(["close", "close", "kill", "interrupt"]),
        is_resumed=st.booleans(),
        expects=st.booleans(),
        seconds=st.sampled_from([1.0, 86_400.0, -1_000.0, -1_000_000.0]),
    )
    def sync(self, **drawn: Any) -> None:
        """Sync some accounts after changes of the fleet; the clock may have been set back since the last sync.

        Some scopes fail, or are not finished; the run ends well, or is killed or cancelled.
        """
        self.run_sync(**drawn)

    def run_sync(
        self,
        *,
        changes: dict[Scope, dict[str, str]],
        chosen: list[Scope],
        faults: dict[Scope, str],
        pages: int,
        mode: str,
        end: str,
        is_resumed: bool,
        expects: bool,
        seconds: float,
    ) -> None:
        """Sync some accounts after changes of the fleet; the clock may have been set back since the last sync.

        Some scopes fail, or are not finished; the run ends well, or is killed or cancelled.
        """
        self.change(changes)
        self.clock.set_time(self.clock.time() + seconds)
        self.mode = self.mode if self.mode == "append" else mode
        last = self.syncs[-1] if self.syncs else None
        name = last if is_resumed and last else f"sync {len(self.syncs):03d}"

        async def run() -> None:
            store = SqliteStore(self.path, mode=self.mode, clock=self.clock, strict=self.strict)
            await store.begin(name, [KIND])
            if expects:
                await store.expect([ExpectedTarget(*scope[1:], is_certain=True) for scope in chosen])
            for scope in chosen:
                await self.fetch(store, scope, faults.get(scope), pages)
            if end == "kill":
                await kill(store)
                return
            if end == "interrupt":
                await store.interrupt()
            await store.close()

        self.begin(name)
        anyio.run(run)
        for scope in chosen:
            fault = faults.get(scope)
            if fault is None:
                self.model.commit(self.mode, name, scope, self.fleet[scope])
            elif fault != "unfinished":
                self.model.record(name, scope, fault)
        self.end(name, end, chosen if expects else [])

    async def fetch(self, store: SqliteStore, scope: Scope, fault: str | None, pages: int) -> None:
        """Write the pages of a scope, duplicates among them, and finish it unless its fault is that it never ends."""
        content = list(self.fleet[scope].items())
        for number in range(pages):
            page = content[number::pages] + content[:1]
            await store.write(
                scope, [record(scope, id_, columns={"type": value}, raw={"v": value}) for id_, value in page]
            )
        if fault is None:
            await store.finish_scope(scope, ScopeStatus("ok"))
        elif fault != "unfinished":
            await store.finish_scope(scope, ScopeStatus(fault))  # type: ignore[arg-type]  # one of FAILURES

    def begin(self, name: str) -> None:
        """Opening the file ends what was killed before, except the sync that goes on."""
        for other, state in self.states.items():
            if state == "running" and other != name:
                self.states[other] = "interrupted"
                self.record_left_out(other)
        if name not in self.states:
            self.syncs.append(name)
        self.states[name] = "running"

    def end(self, name: str, end: str, expected: list[Scope]) -> None:
        """A kill leaves the targets for the next opening; every other end records them."""
        self.left_out.setdefault(name, []).extend(expected)
        self.states[name] = {"kill": "running", "interrupt": "interrupted", "close": "ended"}[end]
        if end != "kill":
            self.record_left_out(name)

    def record_left_out(self, name: str) -> None:
        """Record the expected scopes of a sync that have no record in it."""
        for scope in self.left_out.pop(name, []):
            if (name, scope) not in self.model.records:
                self.model.record(name, scope, "skipped")

    # -- the comparison ------------------------------------------------------------------------------------------

    @invariant()
    def agrees(self) -> None:
        """Rows, what is gone, what is stale, the records of scopes and the states of syncs are those of the model."""
        if not self.path.exists():
            return
        with closing(sqlite3.connect(self.path)) as connection:

            def query(statement: str) -> list[tuple[Any, ...]]:
                return sorted(connection.execute(statement).fetchall())

            model = self.model
            where = "'ec2:instance', partition, account, region"
            assert query(
                f"select {where}, id, r.sync, json_extract(columns, '$.type'), json_extract(data, '$.v'), "
                "gone_at is not null from resources r left join raw using (rid)"
            ) == sorted(
                (*scope, id_, row.sync, row.value, row.value, row.is_gone)
                for (scope, id_, _), row in model.rows.items()
            )
            assert query(f"select {where}, id, type, stale from ec2_instance") == sorted(
                (*scope, id_, row.value, model.status[scope] != "ok")
                for (scope, id_, _), row in model.rows.items() if not row.is_gone
            )  # fmt: skip
            assert query(f"select sync, {where}, status from scopes") == sorted(
                (name, *scope, status) for (name, scope), status in model.records.items()
            )
            assert query("select sync, state from syncs") == sorted(self.states.items())
            assert query("select 1 from resources where last_seen < first_seen or gone_at < last_seen") == []

    def teardown(self) -> None:
        """Delete the files."""
        self.folder.cleanup()


Stores.TestCase.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_any_order_of_runs_faults_and_changes = Stores.TestCase
