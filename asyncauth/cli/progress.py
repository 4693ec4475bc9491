"""Progress of a command on stderr: one permanent line for each new failure code, and what requests wait for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Final

from asyncauth._aws.error_codes import code_or_class
from asyncauth._fanout import RunFinished, TargetSettled
from asyncauth._observability.progress import LinesDisplay, LiveDisplay
from asyncauth.cli.endings import OutputClosedError
from asyncauth.cli.text import clean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from asyncauth import SessionPool
    from asyncauth._fanout import Event
    from asyncauth._observability.run_tracker import RunProgress

#: Codes beyond so many are in the outcomes alone: a job can give each error a code of its own.
_MAX_CODES: Final = 30
_SERVICES: Final = {"sts": "STS", "organizations": "Organizations", "ec2": "EC2", "portal.sso": "SSO portal"}


class FailureCodes:
    """Failures by code: the first one of a code is shown at once, the number of the others at the end."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.is_output_closed = False

    def observe(self, event: Event[Any]) -> str | None:
        """Return the line for a failure with a new code; None for every other event."""
        if not isinstance(event, TargetSettled) or event.error is None or event.status not in ("failed", "timed_out"):
            return None
        if isinstance(event.error, OutputClosedError):
            self.is_output_closed = True  # the reader has what it wanted: that is no failure to show
            return None
        code = clean(code_or_class(event.error))
        self._counts[code] = self._counts.get(code, 0) + 1
        if self._counts[code] > 1 or len(self._counts) > _MAX_CODES:
            return None
        account, region = event.target.account, event.target.region_name
        name = f" {clean(account.name)}" if account.name else ""
        first = clean(str(event.error).partition("\n")[0])
        return f"{code}: {account.id}{name} {region}: {first}"

    def rest(self) -> list[str]:
        """Return a line for each code that had more than one failure."""
        return [f"{code}: and {count - 1:,} more" for code, count in self._counts.items() if count > 1]


class CommandLines(LinesDisplay):
    """Lines for pipes, logs and simple terminals, with a line for each new failure code."""

    def __init__(self, waiting: Callable[[], str | None], **options: Any) -> None:
        super().__init__(**options)
        self._failures = FailureCodes()
        self._waiting = waiting

    def __call__(self, event: Event[Any]) -> None:
        """Show an event."""
        line = self._failures.observe(event)
        if line is not None:
            self._show(lambda: self._write(f"asyncauth: {line}"))
        if isinstance(event, RunFinished):
            for rest in self._failures.rest():
                self._show(lambda rest=rest: self._write(f"asyncauth: {rest}"))  # type: ignore[misc]
        super().__call__(event)

    def _end(self, event: RunFinished) -> None:
        if not self._failures.is_output_closed:
            super()._end(event)

    def _update(self, progress: RunProgress) -> None:
        super()._update(progress)
        waiting = self._waiting()
        if waiting is not None:
            self._write(f"asyncauth: {waiting}")


class CommandDisplay(LiveDisplay):
    """Live display of a terminal: what ends stays above it, what runs is in it."""

    def __init__(self, waiting: Callable[[], str | None], **options: Any) -> None:
        super().__init__(**options)
        self._failures = FailureCodes()
        self._waiting = waiting

    def __call__(self, event: Event[Any]) -> None:
        """Show an event."""
        line = self._failures.observe(event)
        lines = [] if line is None else [line]
        if isinstance(event, RunFinished):
            lines += self._failures.rest()
        for each in lines:
            self._show(lambda each=each: self._print(each))  # type: ignore[misc]
        super().__call__(event)

    def _end(self, event: RunFinished) -> None:
        if self._failures.is_output_closed:
            if self._live is None:
                return
            self._live.transient = True  # its stop removes the display, and shows the cursor again
        super()._end(event)

    def _print(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text(line, style="red"), soft_wrap=False)

    def _render(self, progress: RunProgress) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        rendered, waiting = super()._render(progress), self._waiting()
        if waiting is None:
            return rendered
        return Group(rendered, Text(waiting, style="yellow", no_wrap=True, overflow="ellipsis"))


def progress_of(
    pool: SessionPool, *, is_wanted: bool, stdout_is_live: bool, stream: IO[str] | None = None
) -> Callable[[Event[Any]], None] | None:
    """Return the display of a run on stderr; None if none is wanted.

    Args:
        pool: the open pool, whose queues are shown.
        is_wanted: False for `--no-progress`.
        stdout_is_live: records are written to the same terminal meanwhile, so nothing may be redrawn.
        stream: None: stderr.
    """
    if not is_wanted:
        return None
    stream = sys.stderr if stream is None else stream

    def waiting() -> str | None:
        return waiting_line(pool)

    from rich.console import Console

    console = Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal and not stdout_is_live:
        return CommandDisplay(waiting)
    return CommandLines(waiting)


def waiting_line(pool: SessionPool) -> str | None:
    """Return what most requests wait for, "STS: 97 roles a second, 1,204 waiting"; None if nothing waits."""
    queues = [each for each in pool.statistics().rate_limits if each.waiting]
    if not queues:
        return None
    longest = max(queues, key=lambda each: each.waiting)
    service = longest.rate_limit.service
    unit = "roles" if service == "sts" else "requests"
    rate = "" if longest.rate is None else f"{_rate(longest.rate)} {unit} a second, "
    return f"{_SERVICES.get(service, service)}: {rate}{longest.waiting:,} waiting"


def _rate(rate: float) -> str:
    """Return a rate as a whole number, or with one decimal place if it is small."""
    return f"{rate:,.0f}" if rate >= 10 or rate == int(rate) else f"{rate:,.1f}"
