"""Events of a run: frozen objects that a progress listener is called with, one at a time.

    def listener(event: Event[Target]) -> None:
        if isinstance(event, TargetSettled) and event.status == "failed":
            print(event.target.account.id, event.error)

    await pool.map(job, accounts, progress=listener)

The order is `RunStarted`; then for each target `TargetStarted`, a `TargetRetried` before each further attempt, and
`TargetSettled`; then `RunFinished`. A target that never begins has only `TargetSettled`.
"""

from __future__ import annotations

from asyncauth._fanout import Event, RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted

__all__ = ["Event", "RunFinished", "RunStarted", "TargetRetried", "TargetSettled", "TargetStarted"]
