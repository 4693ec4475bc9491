"""Exit codes of the command line, and the decision which of them a run ends with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Everything was done.
OK: Final = 0
#: Some targets failed, or a run touched nothing.
FAILED: Final = 1
#: The command line is wrong.
USAGE: Final = 2
#: The selection matches no account.
NO_MATCH: Final = 3
#: Base credentials or configuration are missing or wrong; nothing was reached with them.
CONFIGURATION: Final = 4
#: Ctrl-C, as in shells: 128 + SIGINT.
INTERRUPTED: Final = 130
#: The reader of stdout closed it: 128 + SIGPIPE.
CLOSED_PIPE: Final = 141
#: 128 + SIGTERM.
TERMINATED: Final = 143


def of_run(counts: Mapping[str, int], *, fail_on: str, done_before: int, dry_run: bool, source_failed: bool) -> int:
    """Return the exit code of a run that came to its end.

    Args:
        counts: number of targets by status.
        fail_on: `any`, `all` or `never`.
        done_before: how many of the skipped targets an earlier run with the same journal has done.
        dry_run: the job was not to be called.
        source_failed: every failure is one of the base credentials.
    """
    total = sum(counts.values())
    failed = sum(counts.get(status, 0) for status in ("failed", "timed_out", "cancelled"))
    done = counts.get("succeeded", 0) + done_before + (counts.get("skipped", 0) if dry_run else 0)
    if not total:
        return NO_MATCH
    if failed and source_failed and not done:
        return CONFIGURATION
    if fail_on == "never":
        return OK
    if not done:
        return FAILED
    return FAILED if failed and fail_on == "any" else OK
