"""Next manifest of a data set: the parts of a sync, the last record of each of its scopes, and which syncs count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncauth.stores.parquet.connection import text
from asyncauth.stores.parquet.manifest import SCOPES, WINDOWS, Manifest
from asyncauth.stores.parquet.parts import write_query
from asyncauth.stores.parquet.views import scopes_query, source_of
from asyncauth.stores.protocol import METRICS_PREFIX

if TYPE_CHECKING:
    from asyncauth.stores.parquet.manifest import Part, SyncEntry
    from asyncauth.stores.parquet.running import RunningSync

_INTERRUPTED: Final = "the sync was interrupted before it was fetched"
_NOT_VISITED: Final = "the sync did not visit it: the region is not among those of the account"
_SCOPE: Final = 'kind, "partition", account, region'
_LOG_TYPES: Final = {
    "number": "bigint", "kind": "varchar", "partition": "varchar", "account": "varchar", "region": "varchar",
    "status": "varchar", "rows": "bigint", "code": "varchar", "reason": "varchar", "began": "double", "ended": "double",
    "windows": "bigint[][]",
}  # fmt: skip
_TARGET_TYPES: Final = {
    "partition": "varchar", "account": "varchar", "region": "varchar", "is_certain": "boolean",
}  # fmt: skip
_FIELDS: Final = f'number, {_SCOPE}, status, "rows", code, reason, began, ended'
#: Last record of each scope. What was complete stays so when it is skipped later: a resumed run that is cancelled skips
#: targets that are done. `fetch` is the last complete one, whose rows count even if a later fetch failed.
_LAST: Final = f"""create or replace temp table last_records as
    with marked as (
        select *, last_value(case when status <> 'skipped' then status end ignore nulls) over (
            partition by {_SCOPE} order by number rows between unbounded preceding and 1 preceding) as before
        from ({{records}})),
    kept as (select * from marked where status <> 'skipped' or before is distinct from 'ok')
    select {_FIELDS}, (select max("fetch") from ({{records}}) f where (f.kind, f."partition", f.account, f.region)
        = (kept.kind, kept."partition", kept.account, kept.region)) as "fetch"
    from kept qualify row_number() over (partition by {_SCOPE} order by number desc) = 1"""
_UNFETCHED: Final = f"""insert into last_records
    with kinds as (select unnest($names::varchar[]) as kind, unnest($scopes::varchar[]) as scope),
    wanted as (select kind, t."partition", account, case scope when 'account' then 'global' else region end as region,
        bool_or(is_certain) as is_certain from targets t, kinds group by all)
    select $number + row_number() over (), {_SCOPE}, 'skipped', 0, null,
        case when is_certain then $certain else $uncertain end, $now, $now, null
    from wanted w anti join last_records using ({_SCOPE})
    where is_certain or ({_SCOPE}) in (select ({_SCOPE}) from ({{earlier}}))"""


def merge(
    connection: Any,
    directory: Path,
    manifest: Manifest,
    running: RunningSync,
    entry: SyncEntry,
    number: int,
    now: float,
) -> Manifest:
    """Return the manifest that follows: it names the parts of a sync, and those of its scopes, which are written here.

    Args:
        connection: a DuckDB connection.
        directory: the data set.
        manifest: the manifest before.
        running: the sync.
        entry: the record of the sync.
        number: number of the next part.
        now: the time of the records of what was not fetched.
    """
    before = manifest.of(SCOPES, [entry.sync])
    _find_last(connection, directory, before, running)
    _add_unfetched(connection, directory, manifest, running, entry, now)
    scopes = write_query(
        connection, directory, SCOPES, entry.sync, number,
        f'select {_FIELDS}, "fetch" from last_records order by kind, "partition", account, region',
    )  # fmt: skip
    added, dropped = [*running.parts, scopes], [*before]
    (last,) = connection.execute("select coalesce(max(number), 0) from last_records").fetchone()
    if _has_windows(connection, running):
        windows = manifest.of(WINDOWS)
        query = _windows_query(directory, windows, running)
        added.append(write_query(connection, directory, WINDOWS, entry.sync, number + 1, query))
        dropped += windows
    merged = replace(
        manifest.with_sync(entry, added, dropped),
        next_part=number + 2,
        next_fetch=max(running.next_fetch, last + 1),
    )
    return replace(merged, live=_live(connection, directory, merged))


def without_old_parts(manifest: Manifest, before: float) -> Manifest:
    """Return a manifest without the resources of syncs that ended before a time and do not count."""
    old = {each.sync for each in manifest.syncs if (each.ended or before) < before} - set(manifest.live)
    kept = (part for part in manifest.parts if part.sync not in old or part.table not in manifest.tables)
    return replace(manifest, parts=tuple(kept))


def _find_last(connection: Any, directory: Path, before: list[Part], running: RunningSync) -> None:
    log = f"select {_FIELDS}, case when status = 'ok' then number end as \"fetch\" from {_log(running)}"
    records = log
    if before:
        records = f'select {_FIELDS}, "fetch" from ({scopes_query(directory, before)}) union all {log}'
    connection.execute(_LAST.format(records=records))


def _add_unfetched(
    connection: Any, directory: Path, manifest: Manifest, running: RunningSync, entry: SyncEntry, now: float
) -> None:
    connection.execute(
        "create or replace temp table targets as select * from " + _json(running.targets_file, _TARGET_TYPES)
    )
    values = {
        "names": [kind for kind, _ in entry.kinds],
        "scopes": [scope for _, scope in entry.kinds],
        "number": running.next_fetch - 1,
        "certain": _INTERRUPTED,
        "uncertain": _INTERRUPTED if entry.state == "interrupted" else _NOT_VISITED,
        "now": now,
    }
    earlier = f"select {_SCOPE} from ({scopes_query(directory, manifest.of(SCOPES))})"
    connection.execute(_UNFETCHED.format(earlier=earlier), values)


def _has_windows(connection: Any, running: RunningSync) -> bool:
    (number,) = connection.execute(f"select count(*) from {_log(running)} where len(windows) > 0").fetchone()
    return bool(number)


def _windows_query(directory: Path, before: list[Part], running: RunningSync) -> str:
    columns = '"partition", account, region, namespace, period'
    log = f"""select "partition", account, region, kind[{len(METRICS_PREFIX) + 1}:] as namespace, w[1] as period,
        w[2] as "end", number from (select *, unnest(windows) as w from {_log(running)} where status = 'ok')"""
    known = f' union all select {columns}, "end", number from {source_of(directory, before)}' if before else ""
    return f'select {columns}, arg_max("end", number) as "end", max(number) as number from ({log}{known}) group by all'


def _live(connection: Any, directory: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the syncs of which a record counts: as the last one of its scope, or for its rows."""
    names = [each.sync for each in manifest.syncs]
    if manifest.mode == "append":
        return tuple(names)
    known = {*manifest.live, names[-1]}
    records = scopes_query(directory, manifest.of(SCOPES, known))
    found = connection.execute(
        f'select distinct unnest([arg_max(sync, number), arg_max(sync, "fetch")]) from ({records}) group by {_SCOPE}'
    )
    counted = {sync for (sync,) in found.fetchall() if sync is not None}
    return tuple(sync for sync in names if sync in counted)


def _log(running: RunningSync) -> str:
    return _json(running.scopes_file, _LOG_TYPES)


def _json(file: Path, types: dict[str, str]) -> str:
    columns = ", ".join(f"{text(column)}: {text(type_)}" for column, type_ in types.items())
    return f"read_json({text(file)}, format = 'newline_delimited', hive_partitioning = false, columns = {{{columns}}})"
