"""How a run goes, shown while it goes: a live display on a terminal, a line every few seconds anywhere else.

A display is a callable that takes the run's events; a board keeps the score, and the display words it. It shows
neither what a job returned nor the words of an error: targets, counts, times, and AWS's codes.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth._fanout import Event, RunFinished, RunStarted, Status
from asyncauth._observability.run_tracker import RunProgress, RunTracker
from asyncauth._runtime.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from asyncauth._runtime.clock import Clock

__all__ = ["Display", "LinesDisplay", "LiveDisplay", "choose_display"]

Listener: TypeAlias = Callable[[Event[Any]], None]
ProgressSpec: TypeAlias = "bool | Literal['live', 'lines'] | Listener | None"

_WORDS: Final[dict[Status, str]] = {
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
    """Return what is to be told a run's events; None if nothing is.

    Args:
        progress: True shows what fits: live on a terminal and in Jupyter where rich is installed, lines otherwise.
            "live" and "lines" insist. A callable is returned as it is.
        clock: where all time comes from.
        stream: where it is shown; None: stderr, so that a pipe gets only what the program itself prints.

    Raises:
        ConfigurationError: "live" without rich, or something that is none of these.
    """
    if progress is None or progress is False:
        return None
    if progress is True:
        live = _can_be_live(stream)
        return LiveDisplay(clock=clock, stream=stream) if live else LinesDisplay(clock=clock, stream=stream)
    if progress == "live":
        return LiveDisplay(clock=clock, stream=stream)
    if progress == "lines":
        return LinesDisplay(clock=clock, stream=stream)
    if inspect.iscoroutinefunction(progress):
        raise ConfigurationError(
            f"progress={progress!r} must be a plain function: it is told of every event as it happens, and cannot wait"
        )
    if callable(progress):
        return progress
    raise ConfigurationError(f"progress={progress!r} must be True, False, 'live', 'lines', or a callable taking events")


class Display(ABC):
    """Shows the events it is called with, at most every `every` seconds.

    Events alone do not come while all targets hang, so have `keep_drawn` run beside the run.

    Args:
        clock: where all time comes from.
        stream: where it is shown; None: whatever `sys.stderr` is at that moment.
        every: seconds.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None, every: float) -> None:
        self.tracker = RunTracker(clock)
        self._clock = clock
        self._stream = stream
        self._every = every
        self._drawn_at = clock.monotonic()
        self._shown = False

    def __call__(self, event: Event[Any]) -> None:
        """Take note of an event, and draw if it is time to."""
        self.tracker.tell(event)
        if isinstance(event, RunStarted):
            self._drawn_at = self._clock.monotonic()
            self._shown = True
            self._begin()
        elif isinstance(event, RunFinished):
            self._shown = False
            self._end(event)
        else:
            self._draw_if_due()

    async def keep_drawn(self) -> None:
        """Draw every so often, until cancelled."""
        while True:
            await self._clock.sleep(self._every)
            self._draw_if_due()

    def _draw_if_due(self) -> None:
        now = self._clock.monotonic()
        if self._shown and now - self._drawn_at >= self._every:
            self._drawn_at = now
            self._draw(self.tracker.progress())

    def _write(self, line: str) -> None:
        print(line, file=self._stream or sys.stderr, flush=True)

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _draw(self, progress: RunProgress) -> None: ...

    @abstractmethod
    def _end(self, event: RunFinished) -> None: ...


class LinesDisplay(Display):
    """A line every five seconds and one at the end: for pipes, logs of CI, and terminals without rich."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None, every: float = 5.0) -> None:
        super().__init__(clock=clock, stream=stream, every=every)

    def _begin(self) -> None: ...

    def _draw(self, progress: RunProgress) -> None:
        parts = [f"asyncauth: {_done(progress)} done", f"{progress.running:,} running"]
        parts += [f"{count:,} {_WORDS[status]}" for status, count in _bad(progress)]
        parts += [f"{progress.rate:.1f}/s", f"{_duration(progress.elapsed)} so far"]
        if progress.eta_seconds is not None:
            parts.append(f"{_duration(progress.eta_seconds)} left")
        if progress.slowest:
            parts.append(f"slowest {progress.slowest[0].name} ({_duration(progress.slowest[0].seconds)})")
        self._write(", ".join(parts))

    def _end(self, event: RunFinished) -> None:
        self._write(_summary(event, self.tracker.progress()))


class LiveDisplay(Display):
    """A live display with rich: a bar, the counts, and the targets that have been running for the longest.

    Only one can be live at a time; what comes second writes a line at its end.

    Raises:
        ConfigurationError: rich is not installed.
    """

    _live_one: ClassVar[LiveDisplay | None] = None

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, stream: IO[str] | None = None, every: float = 0.25) -> None:
        super().__init__(clock=clock, stream=stream, every=every)
        self._console = _console(stream)
        self._live: Live | None = None

    def _begin(self) -> None:
        from rich.live import Live

        if LiveDisplay._live_one is None:
            LiveDisplay._live_one = self
            # It is refreshed from the event loop: a thread of rich's own would read the board while it changes.
            self._live = Live(self._picture(self.tracker.progress()), console=self._console, auto_refresh=False)
            self._live.start(refresh=True)

    def _draw(self, progress: RunProgress) -> None:
        if self._live is not None:
            self._live.update(self._picture(progress), refresh=True)

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
            self._live = LiveDisplay._live_one = None

    def _picture(self, progress: RunProgress) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bar = Table.grid(padding=(0, 1), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(justify="right", no_wrap=True)
        times = f"{progress.rate:.1f}/s  {_duration(progress.elapsed)}"
        times += "" if progress.eta_seconds is None else f"  {_duration(progress.eta_seconds)} left"
        drawn = ProgressBar(total=progress.total, completed=progress.done, pulse=progress.total is None)
        bar.add_row(drawn, f"{_done(progress)}  {times}")

        counts = Text(f"{progress.running:,} running", style="cyan", no_wrap=True, overflow="ellipsis")
        for status, count in progress.counts.items():
            counts.append(f"  {count:,} {_WORDS[status]}", style=_STYLES[status])
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


def _console(stream: IO[str] | None) -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise ConfigurationError(
            "progress='live' needs rich: pip install 'asyncauth[cli]'; progress=True shows lines without it"
        ) from None
    return Console(file=stream, stderr=stream is None)


def _can_be_live(stream: IO[str] | None) -> bool:
    if importlib.util.find_spec("rich") is None:
        return False
    console = _console(stream)
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


def _done(progress: RunProgress) -> str:
    return f"{progress.done:,}" if progress.total is None else f"{progress.done:,} of {progress.total:,}"


def _bad(progress: RunProgress) -> list[tuple[Status, int]]:
    return [(status, count) for status, count in progress.counts.items() if status != "succeeded"]


def _summary(event: RunFinished, progress: RunProgress) -> str:
    done = sum(event.counts.values())
    ended = [f"{event.counts[status]:,} {_WORDS[status]}" for status in _WORDS if event.counts.get(status)]
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
