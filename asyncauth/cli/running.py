"""Runs of a command: consent first, records as they come, and an exit code at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli import exit_codes
from asyncauth.cli.columns import RUN_COLUMNS
from asyncauth.cli.progress import progress_of

if TYPE_CHECKING:
    from asyncauth import Account, Outcome, SessionPool
    from asyncauth.cli.output import Output
    from asyncauth.engines import DaskEngine


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Options of a run, checked.

    Args:
        keywords: those of the command line; a fleet file can have others.
        yes: no consent is requested.
        dry_run: reach every target, and do nothing there.
        fail_on: `any`, `all` or `never`.
        progress: whether the progress is shown; None: as the fleet file has it, else yes.
    """

    keywords: Mapping[str, Any]
    yes: bool
    dry_run: bool
    fail_on: str
    progress: bool | None

    @classmethod
    def of(cls, options: dict[str, Any]) -> RunSettings:
        """Return the options, and remove them from `options`.

        Raises:
            click.UsageError: a value is out of range.
        """
        from asyncauth import RunOptions

        dry_run = options.pop("dry_run")
        keywords = {name: options.pop(name) for name in ("max_at_once", "timeout", "deadline", "journal")}
        keywords["failure_tolerance"] = _tolerance(options.pop("failure_tolerance"))
        try:
            RunOptions(**keywords)
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from None
        given = {name: value for name, value in keywords.items() if value is not None}
        return cls(given, options.pop("yes"), dry_run, options.pop("fail_on"), options.pop("progress"))

    def keywords_over(self, pool: SessionPool) -> dict[str, Any]:
        """Return the keyword arguments of a run: those of the pool's fleet file, and over them the given ones."""
        of_file = {name: value for name, value in pool.run_options.items() if name not in ("regions", "progress")}
        return {**of_file, **self.keywords}

    def shows_progress(self, pool: SessionPool) -> bool:
        """Return whether the progress is shown."""
        return bool(pool.run_options.get("progress", True)) if self.progress is None else self.progress


def regions_over(pool: SessionPool, given: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the given regions, else those of the pool's fleet file; None: each account's own."""
    return given or pool.run_options.get("regions")


class RunCounts:
    """Counts of a run's outcomes, and the exit code that follows from them."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._done_before = self._source_failures = 0

    def add(self, outcome: Outcome[Any]) -> None:
        """Count an outcome."""
        self._statuses[outcome.status] += 1
        self._done_before += outcome.status == "skipped" and outcome.reason == _done_before()
        self._source_failures += _is_of_source(outcome)

    @property
    def total(self) -> int:
        """Number of targets."""
        return sum(self._statuses.values())

    @property
    def failed(self) -> int:
        """Number of targets that failed, timed out or were cancelled."""
        return sum(self._statuses[status] for status in ("failed", "timed_out", "cancelled"))

    def exit_code(self, settings: RunSettings) -> int:
        """Return the exit code of the run."""
        return exit_codes.of_run(
            self._statuses,
            fail_on=settings.fail_on,
            done_before=self._done_before,
            dry_run=settings.dry_run,
            source_failed=self.failed == self._source_failures,
        )


def refuse_without_consent(settings: RunSettings, *, accounts: int, read_only: bool) -> bool:
    """Return whether consent must be requested before a run over so many accounts.

    Raises:
        click.UsageError: it must, and there is no terminal to request it on.
    """
    if settings.yes or settings.dry_run or read_only or accounts <= 1:
        return False
    if not sys.stdin.isatty():
        raise click.UsageError(
            f"this would run in {accounts:,} accounts, and there is no terminal to request consent on; add --yes, or "
            "look first with --dry-run"
        )
    return True


async def run_everywhere(
    pool: SessionPool,
    job: Callable[[Any], Any],
    accounts: list[Account],
    regions: tuple[str, ...],
    settings: RunSettings,
    *,
    output: Output | None,
    record: Callable[[Outcome[Any]], Mapping[str, Any]],
    confirm: bool,
    observe: Callable[[Outcome[Any]], None] = lambda outcome: None,
    engine: DaskEngine | None = None,
) -> int:
    """Run a job in every account and region, write a record of each outcome, and return the exit code.

    However it ends, the records of what had finished are written as whole lines, and the journal is closed.

    Args:
        output: where records go; None: the job writes what there is to write.
        record: makes the record of an outcome.
        confirm: request consent first.
        observe: called with each outcome.
        engine: runs the targets in other processes; None: in this one.
    """
    counts = RunCounts()

    def settle(outcome: Outcome[Any]) -> None:
        counts.add(outcome)
        observe(outcome)
        if output is not None:
            output.write(record(outcome))

    run = pool.as_completed(
        job,
        accounts,
        regions_over(pool, regions),
        dry_run=settings.dry_run,
        confirm=confirm,
        engine=engine,
        progress=progress_of(
            pool, is_wanted=settings.shows_progress(pool), stdout_is_live=output is None or output.is_live
        ),
        **settings.keywords_over(pool),
    )
    try:
        async with run as outcomes:
            async for outcome in outcomes:
                settle(outcome)
    except BaseException:
        for outcome in run.unread():
            if outcome.status in ("succeeded", "failed", "timed_out"):
                settle(outcome)
        if output is not None and counts.total:  # an empty table after Ctrl-C at the question is no result
            output.close()
        raise
    if output is not None:
        output.close()
    return counts.exit_code(settings)


def run_record(outcome: Outcome[Any]) -> dict[str, Any]:
    """Return the record of an outcome, with the job's value."""
    row = outcome.row()
    row["region"] = row.pop("region_name")
    return {name: outcome.value if name == "value" else row[name] for name in RUN_COLUMNS}


def _is_of_source(outcome: Outcome[Any]) -> bool:
    from asyncauth._runs.causes import is_of_source

    return is_of_source(outcome.error, outcome.phase)


def _done_before() -> str:
    from asyncauth._runs import DONE_BEFORE

    return DONE_BEFORE


def _tolerance(text: str | None) -> float | None:
    """Return a number of failures, or the fraction of a percentage."""
    if text is None:
        return None
    try:
        found = float(text.removesuffix("%")) / 100 if text.endswith("%") else int(text)
    except ValueError:
        found = -1
    if found < 0 or (isinstance(found, float) and not found <= 1):
        raise click.UsageError(f"--failure-tolerance {text!r} must be a number, or a percentage from 0% to 100%")
    return found
