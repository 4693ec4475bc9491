"""Failures of a run as one exception: the jobs' own errors, each with a note of its target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncauth._errors import AsyncAuthError, ConfigurationError
from asyncauth._runs.causes import causes_of, is_of_source
from asyncauth._runs.outcome import describe_target, plural
from asyncauth._runs.targets import NOT_IN_PARTITION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncauth._runs.outcome import Outcome
    from asyncauth._runs.targets import RejectedAccount


def failures_of(outcomes: Sequence[Outcome[Any]], rejected: Sequence[RejectedAccount]) -> Exception | None:
    """Return the exception for the failures of a run; None if there are none.

    Args:
        outcomes: the outcomes of the run.
        rejected: the items that are no valid accounts.
    """
    failed = [outcome for outcome in outcomes if outcome.status in ("failed", "timed_out", "cancelled")]
    never_tried = [outcome for outcome in outcomes if was_never_tried(outcome)]
    of_sources = _source_errors(failed)
    others = [_error_of(outcome) for outcome in failed if not is_of_source(outcome.error, outcome.phase)]
    others += [each.error for each in rejected]
    others += _never_tried_errors(never_tried)
    if len(of_sources) == 1 and not others:
        # Without the frames of the pool, which have no meaning for a user who has forgotten to log in.
        return of_sources[0].with_traceback(None)
    if not of_sources and not others:
        return None
    message = f"{len(failed):,} of {plural(len(outcomes), 'target')} failed"
    if never_tried:
        message += f"; {plural(len(never_tried), 'target')} never tried"
    if rejected:
        message += f"; {plural(len(rejected), 'account')} rejected"
    return ExceptionGroup(message, [*of_sources, *others])


def was_never_tried(outcome: Outcome[Any]) -> bool:
    """Whether no call was made for a target because of how the run was configured."""
    return outcome.status == "skipped" and (outcome.reason or "").startswith(NOT_IN_PARTITION)


def _source_errors(failed: Sequence[Outcome[Any]]) -> list[Exception]:
    """Return each error of base credentials once: the targets of a source share it."""
    errors: list[Exception] = []
    for cause in causes_of(outcome for outcome in failed if is_of_source(outcome.error, outcome.phase)):
        error = cause.example.error
        assert isinstance(error, Exception)
        errors.append(_with_note(error, f"{plural(cause.count, 'target')}, first {describe_target(cause.example)}"))
    return errors


def _never_tried_errors(outcomes: Sequence[Outcome[Any]]) -> list[Exception]:
    return [
        ConfigurationError(
            f"{plural(cause.count, 'target')} never tried, first {describe_target(cause.example)}: {cause.text}"
        )
        for cause in causes_of(outcomes)
    ]


def _error_of(outcome: Outcome[Any]) -> Exception:
    error = outcome.error
    if not isinstance(error, Exception):
        error = AsyncAuthError(
            f"account {outcome.account.id} in {outcome.region_name} was {outcome.status}: "
            f"{outcome.reason or 'no reason given'}",
            account=outcome.account.id,
            region_name=outcome.region_name,
        )
    return _with_note(error, f"account {outcome.account.id} in {outcome.region_name}, {outcome.phase or 'not started'}")


def _with_note(error: Exception, note: str) -> Exception:
    try:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    except Exception:  # noqa: BLE001 - a job's exception can be of a class that refuses notes
        # `except*` finds the error inside of the group as well.
        return ExceptionGroup(note, [error])
    return error
