"""Progress displays: a live display on a terminal and in a notebook, a line every few seconds elsewhere.

A display is a callable that takes the run's events. It passes them to a `RunTracker` and shows the tracker's
`RunProgress`: targets, counts, times and AWS's error codes, but neither return values of jobs nor messages of errors.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html import escape
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth._fanout import Event, RunFinished, RunStarted, Status
from asyncauth._observability.run_tracker import RunProgress, RunTracker
from asyncauth._runtime.clock import SYSTEM_CLOCK
from asyncauth._runtime.printable import describe_error

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from asyncauth._runtime.clock import Clock

__all__ = ["Display", "LinesDisplay", "LiveDisplay", "NotebookDisplay", "choose_display"]

logger: Final = logging.getLogger("asyncauth.progress")

Listener: TypeAlias = Callable[[Event[Any]], None]
ProgressSpec: TypeAlias = "bool | Literal['live', 'lines'] | Listener | None"

_LABELS: Final[dict[Status, str]] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "timed_out": "timed out",
    "skipped": "skipped",
    "cancelled": "cancelled",
}
_STYLES: Final[dict[Status, str]] = {
    "succeeded": "green",
    "failed": "bold red",
    "timed_out": "red",
    "skipped": "yellow",
    "cancelled": "magenta",
}


def choose_display(
    progress: ProgressSpec, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None
) -> Listener | None:
    """Return the listener for a run's events; None for no display.

    Args:
        progress: True selects a live display in a notebook, and on a terminal if rich is installed; lines elsewhere.
            "live" and "lines" select that display. A callable is returned unchanged. None and False: no display.
        clock: source of all times.
        stream: output of the display. None: stderr, so that a pipe receives only the program's own output.

    Raises:
        ConfigurationError: "live" without rich, an async function, or another value.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        progress = "live" if _is_notebook(stream) or _can_be_live(stream) else "lines"
    if progress == "live":
        return NotebookDisplay(clock=clock) if _is_notebook(stream) else LiveDisplay(clock=clock, stream=stream)
    if progress == "lines":
        return LinesDisplay(clock=clock, stream=stream)
    if inspect.iscoroutinefunction(progress):
        raise ConfigurationError(
            f"progress={progress!r} must be a plain function: it is called with every event and cannot await anything"
        )
    if callable(progress):
        return progress
    raise ConfigurationError(f"progress={progress!r} must be True, False, 'live', 'lines', or a callable taking events")


class Display(ABC):
    """Listener that shows a run's progress, at most once every `interval_seconds`.

    A run whose targets all hang has no events, so `keep_updated` must run concurrently with it. A display whose stream
    fails (a closed pipe, a full disk, a terminal that hung up) logs that and ends itself; the run continues.

    Args:
        clock: source of all times.
        stream: output of the display; None: `sys.stderr` at the time of each line.
        interval_seconds: seconds between two updates.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None, interval_seconds: float) -> None:
        self.tracker = RunTracker(clock)
        self._clock = clock
        self._stream = stream
        self._interval_seconds = interval_seconds
        self._updated_at = clock.monotonic()
        self._shown = False
        self._ended = False

    def __call__(self, event: Event[Any]) -> None:
        """Process an event, and update the display if the interval has passed."""
        self.tracker.observe(event)
        if isinstance(event, RunStarted):
            self._updated_at = self._clock.monotonic()
            self._shown = True
            self._show(self._begin)
        elif isinstance(event, RunFinished):
            self._shown = False
            self._show(partial(self._end, event))
        else:
            self._update_if_due()

    async def keep_updated(self) -> None:
        """Update the display once in every interval, until cancelled or until its stream fails."""
        while not self._ended:
            await self._clock.sleep(self._interval_seconds)
            self._update_if_due()

    def _update_if_due(self) -> None:
        now = self._clock.monotonic()
        if self._shown and now - self._updated_at >= self._interval_seconds:
            self._updated_at = now
            self._show(partial(self._update, self.tracker.progress()))

    def _show(self, action: Callable[[], None]) -> None:
        if self._ended:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a stream can be of any class, and the run does not depend on it
            self._ended = True
            self._abandon()
            logger.warning(
                "the progress display ended, and the run continues: its stream failed with %s", describe_error(error)
            )

    def _write(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _update(self, progress: RunProgress) -> None: ...

    @abstractmethod
    def _end(self, event: RunFinished) -> None: ...

    @abstractmethod
    def _abandon(self) -> None:
        """Release what the display holds, without any output."""


class LinesDisplay(Display):
    """Display for pipes, CI logs and terminals without rich: one line every five seconds, and one at the end."""

    def __init__(
        self, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None, interval_seconds: float = 5.0
    ) -> None:
        super().__init__(clock=clock, stream=stream, interval_seconds=interval_seconds)

    def _begin(self) -> None: ...

    def _abandon(self) -> None: ...

    def _update(self, progress: RunProgress) -> None:
        parts = [f"asyncauth: {_done(progress)} done", f"{progress.running:,} running"]
        parts += [f"{count:,} {_LABELS[status]}" for status, count in _not_succeeded(progress)]
        parts += [f"{progress.rate:.1f}/s", f"{_duration(progress.elapsed)} so far"]
        if progress.eta_seconds is not None:
            parts.append(f"{_duration(progress.eta_seconds)} left")
        if progress.slowest:
            parts.append(f"slowest {progress.slowest[0].name} ({_duration(progress.slowest[0].seconds)})")
        self._write(", ".join(parts))

    def _end(self, event: RunFinished) -> None:
        self._write(_summary(event, self.tracker.progress()))


class LiveDisplay(Display):
    """Live display with rich: a bar, the counts, and the targets that have run for the longest time.

    Only one display of a process can be live at a time; another one writes only a line at its end.

    Raises:
        ConfigurationError: rich is not installed.
    """

    _active: ClassVar[LiveDisplay | None] = None

    def __init__(
        self, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None, interval_seconds: float = 0.25
    ) -> None:
        super().__init__(clock=clock, stream=stream, interval_seconds=interval_seconds)
        self._console = _console(stream)
        self._live: Live | None = None

    def _begin(self) -> None:
        from rich.live import Live

        if LiveDisplay._active is None:
            LiveDisplay._active = self
            # No auto_refresh: rich would read the tracker in a thread of its own while the event loop changes it.
            self._live = Live(
                self._render(self.tracker.progress()),
                console=self._console,
                auto_refresh=False,
                # rich would write the program's own output to the display's stream, also where it goes to a pipe.
                redirect_stdout=_is_terminal(sys.stdout),
                redirect_stderr=_is_terminal(sys.stderr),
            )
            self._live.start(refresh=True)

    def _update(self, progress: RunProgress) -> None:
        if self._live is not None:
            self._live.update(self._render(progress), refresh=True)

    def _end(self, event: RunFinished) -> None:
        summary = _summary(event, self.tracker.progress())
        if self._live is None:
            self._write(summary)
            return
        from rich.text import Text

        try:
            self._live.update(Text(summary), refresh=True)
        finally:
            self._live.stop()
            self._live = LiveDisplay._active = None

    def _abandon(self) -> None:
        # Quiet: Live.stop() would write to the stream that failed.
        self._console.quiet = True
        if LiveDisplay._active is self:
            LiveDisplay._active = None
        if self._live is not None:
            with suppress(Exception):
                self._live.stop()
            self._live = None

    def _render(self, progress: RunProgress) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        times = f"{progress.rate:.1f}/s  {_duration(progress.elapsed)}"
        times += "" if progress.eta_seconds is None else f"  {_duration(progress.eta_seconds)} left"
        progress_bar = ProgressBar(total=progress.total, completed=progress.done, pulse=progress.total is None)
        bar.add_row(progress_bar, f"{_done(progress)}  {times}")

        counts = Text(f"{progress.running:,} running", style="cyan", no_wrap=True, overflow="ellipsis")
        for status, count in progress.counts.items():
            counts.append(f"  {count:,} {_LABELS[status]}", style=_STYLES[status])
        if progress.codes:
            counts.append("  " + ", ".join(f"{code} {count:,}" for code, count in progress.codes), style="dim")

        lines: list[RenderableType] = [bar, counts]
        for running in progress.slowest:
            line = Text(f"{_duration(running.seconds):>10}  {running.name}", no_wrap=True, overflow="ellipsis")
            if running.attempt > 1:
                waits = "" if running.waits_seconds is None else f" in {_duration(running.waits_seconds)}"
                line.append(f"  attempt {running.attempt}{waits}", style="yellow")
            lines.append(line)
        return Group(*lines)


class NotebookDisplay(Display):
    """Display for notebooks: one output of the cell, which is replaced. It needs neither rich nor ipywidgets.

    A saved notebook keeps the last output, which is the summary.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, interval_seconds: float = 0.5) -> None:
        super().__init__(clock=clock, interval_seconds=interval_seconds)
        self._handle: Any = None

    def _begin(self) -> None:
        display = importlib.import_module("IPython.display").display
        self._handle = display(_as_html(_notebook_lines(self.tracker.progress())), display_id=True)

    def _update(self, progress: RunProgress) -> None:
        self._handle.update(_as_html(_notebook_lines(progress), progress))

    def _end(self, event: RunFinished) -> None:
        self._handle.update(_as_html([_summary(event, self.tracker.progress())]))

    def _abandon(self) -> None:
        self._handle = None


def _is_notebook(stream: IO[str] | None) -> bool:
    # IPython is loaded in every notebook. Only the shell of a kernel, and not that of a terminal, has a kernel.
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return stream is None and get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None


def _notebook_lines(progress: RunProgress) -> list[str]:
    counts = [f"{progress.running:,} running", *(f"{n:,} {_LABELS[status]}" for status, n in progress.counts.items())]
    left = "" if progress.eta_seconds is None else f", {_duration(progress.eta_seconds)} left"
    lines = [
        f"{_done(progress)} done, {progress.rate:.1f}/s, {_duration(progress.elapsed)} so far{left}",
        ", ".join(counts),
    ]
    if progress.codes:
        lines.append(", ".join(f"{code} {count:,}" for code, count in progress.codes))
    return [*lines, *(f"{_duration(running.seconds):>10}  {running.name}" for running in progress.slowest)]


def _as_html(lines: list[str], progress: RunProgress | None = None) -> object:
    total = "" if progress is None or not progress.total else f' max="{progress.total}" value="{progress.done}"'
    bar = "" if progress is None else f"<progress{total}></progress>"
    return importlib.import_module("IPython.display").HTML(f"{bar}<pre>{escape(chr(10).join(lines))}</pre>")


def _console(stream: IO[str] | None) -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise ConfigurationError(
            "progress='live' needs rich: pip install 'asyncauth[cli]'; without rich, progress=True shows lines"
        ) from None

    class DisplayConsole(Console):
        def on_broken_pipe(self) -> None:
            # rich's own answer is SystemExit, and a stdout on /dev/null. This is called in the handler of the error.
            raise

    return DisplayConsole(file=stream, stderr=stream is None, force_jupyter=False)


def _is_terminal(stream: IO[str] | None) -> bool:
    return stream is not None and stream.isatty()


def _can_be_live(stream: IO[str] | None) -> bool:
    if importlib.util.find_spec("rich") is None:
        return False
    console = _console(stream)
    return console.is_terminal and not console.is_dumb_terminal


def _done(progress: RunProgress) -> str:
    return f"{progress.done:,}" if progress.total is None else f"{progress.done:,} of {progress.total:,}"


def _not_succeeded(progress: RunProgress) -> list[tuple[Status, int]]:
    return [(status, count) for status, count in progress.counts.items() if status != "succeeded"]


def _summary(event: RunFinished, progress: RunProgress) -> str:
    done = sum(event.counts.values())
    ended = [f"{event.counts[status]:,} {_LABELS[status]}" for status in _LABELS if event.counts.get(status)]
    codes = f" ({', '.join(f'{code} {count:,}' for code, count in progress.codes)})" if progress.codes else ""
    unread = "" if event.complete else "; left before all targets were read"
    text = ", ".join(ended) or "nothing to do"
    targets = "target" if done == 1 else "targets"
    return f"asyncauth: {done:,} {targets} in {_duration(event.elapsed)}: {text}{codes}{unread}"


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, seconds = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
