"""Progress displays on a fake clock: on a terminal, in a pipe, in Jupyter, and without rich."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account
from asyncauth._errors import AssumeRoleDenied, AsyncAuthError, ConfigurationError
from asyncauth._fanout.engine import fan_out
from asyncauth._fanout.events import Event, RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
from asyncauth._fanout.limits import Limits
from asyncauth._observability.progress import LinesDisplay, LiveDisplay, NotebookDisplay, choose_display
from asyncauth._observability.run_tracker import RunTracker
from asyncauth._runs.targets import Target
from asyncauth.testing import FakeClock
from tests.support.fanout import idle

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


class Terminal(io.StringIO):
    """Stream whose `isatty` returns True."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    yield
    assert LiveDisplay._active is None


def target(number: int, region: str = "eu-west-1", name: str | None = None) -> Target:
    return Target(Account(f"{number:012d}", name=name), region)


def throttled() -> ClientError:
    return ClientError({"Error": {"Code": "Throttling", "Message": SECRET}}, "DescribeInstances")


def settled(index: int, status: Any = "succeeded", error: Exception | None = None, **more: Any) -> TargetSettled[Any]:
    fields = {"phase": "job", "reason": None, "attempts": 1, "elapsed": 1.0} | more
    return TargetSettled(index, target(index), status, error=error, **fields)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def denied() -> AssumeRoleDenied:
    return AssumeRoleDenied(f"no {SECRET}", code="AccessDenied")


# The run tracker.


def test_the_tracker_counts_targets_and_codes(clock: FakeClock) -> None:
    """Finished targets by status, running targets, and the codes of failures, the most frequent first."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(10))
    for index in range(6):
        tracker.observe(TargetStarted(index, target(index)))
    tracker.observe(settled(0))
    tracker.observe(settled(1, "failed", denied()))
    tracker.observe(settled(2, "failed", denied()))
    tracker.observe(settled(3, "timed_out", TimeoutError()))
    tracker.observe(settled(9, "skipped", reason="done in an earlier run"))

    progress = tracker.progress()
    assert (progress.total, progress.done, progress.running) == (10, 5, 2)
    assert progress.counts == {"succeeded": 1, "failed": 2, "timed_out": 1, "skipped": 1}
    assert progress.codes == (("AccessDenied", 2), ("TimeoutError", 1))


def test_the_slowest_targets_are_those_that_started_first(clock: FakeClock) -> None:
    """Each has its seconds since the start, the number of its attempt, and the seconds until that attempt begins."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(3))
    tracker.observe(TargetStarted(0, target(0, name="billing")))
    clock.advance(4)
    tracker.observe(TargetStarted(1, target(1)))
    tracker.observe(TargetRetried(1, target(1), 1, TimeoutError(), 3.0))
    clock.advance(1)
    first, second = tracker.progress().slowest
    clock.advance(5)
    later = tracker.progress(slowest=1).slowest

    assert (first.name, first.seconds, first.attempt) == ("000000000000 eu-west-1 billing", 5, 1)
    assert (second.name, second.seconds, second.attempt, second.waits_seconds) == ("000000000001 eu-west-1", 1, 2, 2)
    assert [running.seconds for running in later] == [10]


def test_targets_of_other_kinds_are_named_by_themselves(clock: FakeClock) -> None:
    """The engine accepts targets of any type; one without account and region is shown as its str()."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(1))
    tracker.observe(TargetStarted(0, "host-1\x07"))

    assert tracker.progress().slowest[0].name == "host-1\ufffd"


def test_the_rate_covers_the_last_ten_seconds(clock: FakeClock) -> None:
    """Neither an earlier burst nor skipped targets, which take no time, shorten the estimated time."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(1000))
    for index in range(500):
        tracker.observe(settled(index))
    for second in range(60):
        tracker.observe(settled(500 + 2 * second))
        tracker.observe(settled(501 + 2 * second))
        tracker.observe(settled(5000 + second, "skipped"))
        clock.advance(1)

    progress = tracker.progress()
    assert progress.rate == pytest.approx(2.0)
    assert progress.eta_seconds == pytest.approx((1000 - 500 - 120 - 60) / 2)


def test_the_time_left_is_unknown_without_a_total_or_a_rate(clock: FakeClock) -> None:
    """A run with an unknown number of targets, or without a finished target, has no `eta_seconds`."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(None))
    tracker.observe(settled(0))
    unknown = tracker.progress().eta_seconds
    tracker.observe(RunStarted(5))

    assert unknown is None
    assert tracker.progress().eta_seconds is None
    assert tracker.progress().done == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (denied(), "AccessDenied"),
        (ValueError("secret message"), "ValueError"),
        (throttled(), "Throttling"),
        (ExceptionGroup("two calls", [throttled(), throttled()]), "Throttling"),
        (ExceptionGroup("two calls", [throttled(), denied()]), "ExceptionGroup"),
        (type("Odd", (Exception,), {"response": {}})(), "Odd"),
        (type("Http", (Exception,), {"code": 503})(), "Http"),
        (AsyncAuthError("", code="\x1b[2J" + "x" * 100), "\ufffd[2J" + "x" * 33 + "..."),
    ],
)
def test_an_error_is_counted_by_its_code(clock: FakeClock, error: Exception, code: str) -> None:
    """The code is AWS's, asyncauth's, or the class's name; a group has its members' code. It is never the message."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(1))
    tracker.observe(settled(0, "failed", error))

    assert [found for found, _ in tracker.progress().codes] == [code]


def test_the_number_of_codes_is_bounded(clock: FakeClock) -> None:
    """Memory does not grow with the targets of a job that gives each error a code of its own."""
    tracker = RunTracker(clock)
    tracker.observe(RunStarted(None))
    for index in range(1000):
        tracker.observe(settled(index, "failed", AssumeRoleDenied(code=f"code {index}")))

    assert tracker.progress(codes=1).codes == (("others", 900),)


# Lines display.


def test_a_line_is_written_every_five_seconds_and_at_the_end(clock: FakeClock) -> None:
    """Each line holds counts, rate, times and the slowest target."""
    out = io.StringIO()
    show = LinesDisplay(clock=clock, stream=out)
    show(RunStarted(2000))
    show(TargetStarted(0, target(0, name="billing")))
    for index in range(1, 12):
        show(TargetStarted(index, target(index)))
        clock.advance(1)
        show(settled(index, *(("failed", denied()) if index == 3 else ())))
    show(RunFinished({"succeeded": 1990, "failed": 10}, 71.0, complete=True))

    slowest = "slowest 000000000000 eu-west-1 billing"
    assert out.getvalue().splitlines() == [
        f"asyncauth: 5 of 2,000 done, 1 running, 1 failed, 1.0/s, 5.0 s so far, 33 min 15 s left, {slowest} (5.0 s)",
        f"asyncauth: 10 of 2,000 done, 1 running, 1 failed, 1.1/s, 10 s so far, 29 min 51 s left, {slowest} (10 s)",
        "asyncauth: 2,000 targets in 1 min 11 s: 1,990 succeeded, 10 failed (AccessDenied 1)",
    ]


@pytest.mark.anyio
async def test_lines_continue_while_all_targets_hang(clock: FakeClock) -> None:
    """Without events `keep_updated` writes the lines, but none before or after the run."""
    out = io.StringIO()
    show = LinesDisplay(clock=clock, stream=out)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show.keep_updated)
        await _pass(clock, 10)
        show(RunStarted(None))
        show(TargetStarted(0, target(0)))
        await _pass(clock, 10)
        show(RunFinished({"timed_out": 1}, 10.0, complete=False))
        await _pass(clock, 10)
        tasks.cancel_scope.cancel()

    assert out.getvalue().splitlines() == [
        "asyncauth: 0 done, 1 running, 0.0/s, 5.0 s so far, slowest 000000000000 eu-west-1 (5.0 s)",
        "asyncauth: 0 done, 1 running, 0.0/s, 10 s so far, slowest 000000000000 eu-west-1 (10 s)",
        "asyncauth: 1 target in 10 s: 1 timed out; left before all targets were read",
    ]


async def _pass(clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds):
        await idle()
        clock.advance(1)
    await idle()


def test_the_line_of_a_run_without_targets(clock: FakeClock) -> None:
    """It holds the number 0 and no statistics."""
    out = io.StringIO()
    show = LinesDisplay(clock=clock, stream=out)
    show(RunStarted(0))
    show(RunFinished({}, 0.01, complete=True))

    assert out.getvalue() == "asyncauth: 0 targets in 0.0 s: nothing to do\n"


def test_lines_go_to_the_current_stderr(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout receives only the program's own output."""
    show = LinesDisplay(clock=clock)
    show(RunStarted(0))
    show(RunFinished({}, 7200.0, complete=True))

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "asyncauth: 0 targets in 2 h 0 min: nothing to do\n"


# Live display.


def test_a_terminal_gets_a_live_display(clock: FakeClock) -> None:
    """It shows a bar, counts, codes and the slowest targets with their attempts, and at the end a summary."""
    out = Terminal()
    show = choose_display(True, clock=clock, stream=out)
    assert isinstance(show, LiveDisplay)
    show(RunStarted(100))
    show(TargetStarted(0, target(0, name="billing")))
    show(TargetStarted(1, target(1)))
    show(settled(2))
    show(settled(3, "failed", denied()))
    show(TargetRetried(1, target(1), 1, TimeoutError(), 3.0))
    clock.advance(2)
    show(settled(4))
    rendered = plain(out.getvalue()).splitlines()[-4:]
    show(RunFinished({"succeeded": 99, "failed": 1}, 12.0, complete=True))
    end = out.getvalue()

    assert rendered[0].endswith("3 of 100  1.5/s  2.0 s  1 min 4 s left")
    assert rendered[0].startswith("━")
    assert rendered[1].rstrip() == "2 running  2 succeeded  1 failed  AccessDenied 1"
    assert rendered[2].split() == ["2.0", "s", "000000000000", "eu-west-1", "billing"]
    assert rendered[3].split() == ["2.0", "s", "000000000001", "eu-west-1", "attempt", "2", "in", "1.0", "s"]
    assert "asyncauth: 100 targets in 12 s: 99 succeeded, 1 failed (AccessDenied 1)" in plain(end)
    assert end.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_live_display_is_updated_at_most_four_times_a_second(clock: FakeClock) -> None:
    """Ten thousand events in one moment cause no update."""
    out = Terminal()
    show = LiveDisplay(clock=clock, stream=out)
    show(RunStarted(None))
    before = len(out.getvalue())
    for index in range(10_000):
        show(settled(index))
    still = len(out.getvalue()) == before
    clock.advance(0.25)
    show(settled(10_000))

    assert still
    assert "10,001" in plain(out.getvalue())
    show(RunFinished({}, 1.0, complete=True))


def test_an_account_name_cannot_control_the_terminal(clock: FakeClock) -> None:
    """Escape sequences and markup in a name are shown as text; long names are shortened, regions are not."""
    out = Terminal()
    show = LiveDisplay(clock=clock, stream=out)
    show(RunStarted(2))
    show(TargetStarted(0, target(0, name="\x1b[2J\x07[bold]red[/bold]")))
    show(TargetStarted(1, target(1, name="n" * 200)))
    clock.advance(1)
    show(settled(5))
    show(RunFinished({}, 1.0, complete=True))

    text = out.getvalue()
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\ufffd[2J\ufffd[bold]red[/bold]" in plain(text)
    assert "000000000001 eu-west-1 " + "n" * 37 + "..." in plain(text)


def test_no_message_of_an_error_is_shown(clock: FakeClock) -> None:
    """A message may hold a secret; both displays show the code only."""
    for kind in (LiveDisplay, LinesDisplay):
        out = Terminal()
        show = kind(clock=clock, stream=out)
        show(RunStarted(1))
        show(TargetStarted(0, target(0)))
        show(TargetRetried(0, target(0), 1, denied(), 1.0))
        clock.advance(10)
        show(settled(0, "failed", denied()))
        show(RunFinished({"failed": 1}, 1.0, complete=True))

        assert "AccessDenied" in out.getvalue()
        assert SECRET not in out.getvalue()


def test_two_concurrent_runs_share_a_terminal(clock: FakeClock) -> None:
    """The first display is live, the second writes its last line, and neither damages the other."""
    out = Terminal()
    first, second = (LiveDisplay(clock=clock, stream=out) for _ in range(2))
    first(RunStarted(1))
    second(RunStarted(1))
    clock.advance(1)
    second(settled(0))
    second(RunFinished({"succeeded": 7}, 1.0, complete=True))
    first(RunFinished({"succeeded": 8}, 1.0, complete=True))

    assert "7 succeeded" in plain(out.getvalue())
    assert "8 succeeded" in plain(out.getvalue())


@pytest.mark.anyio
async def test_leaving_a_run_restores_the_terminal(clock: FakeClock) -> None:
    """The last event of the run ends its display, so the cursor is shown again."""
    out = Terminal()
    show = LiveDisplay(clock=clock, stream=out)

    async def hang(number: int, attempt: object) -> None:
        await anyio.sleep_forever()

    with pytest.raises(KeyError):
        async with fan_out(hang, range(3), limits=Limits(max_at_once=2), clock=clock, on_event=[show]):
            raise KeyError

    assert out.getvalue().rstrip().endswith("\x1b[?25h")
    assert "3 cancelled" in plain(out.getvalue())


# A stream that fails.


class BrokenStream(Terminal):
    """Terminal whose writes fail from the moment that `error` is set."""

    error: Exception | None = None
    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        if self.error is not None:
            raise self.error
        return super().write(text)


ERRORS = [
    BrokenPipeError(errno.EPIPE, "a reader that quit"),
    OSError(errno.ENOSPC, "a full disk"),
    OSError(errno.EIO, "a terminal that hung up"),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("kind", [LinesDisplay, LiveDisplay])
@pytest.mark.parametrize("fails_at", ["start", "event", "timer", "end"])
@pytest.mark.anyio
async def test_a_display_whose_stream_fails_ends_itself(
    clock: FakeClock, kind: type[LinesDisplay | LiveDisplay], fails_at: str, error: Exception
) -> None:
    """At the start, an event, the timer or the end: nothing is raised, nothing more is written, and stdout is kept."""
    out = BrokenStream()
    show = kind(clock=clock, stream=out, interval_seconds=1)
    streams = sys.stdout, sys.stderr, os.fstat(1).st_ino
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show.keep_updated)
        out.error = error if fails_at == "start" else None
        show(RunStarted(None))
        out.error = error if fails_at in ("start", "event") else None
        clock.advance(2)
        show(settled(0))
        out.error = error if fails_at != "end" else None
        await _pass(clock, 2)
        out.error = error
        show(RunFinished({"succeeded": 1}, 4.0, complete=True))
        tasks.cancel_scope.cancel()
    writes = out.writes
    show(RunStarted(None))
    clock.advance(5)
    show(settled(1))

    assert out.writes == writes
    assert (sys.stdout, sys.stderr, os.fstat(1).st_ino) == streams
    assert LiveDisplay._active is None


def test_a_display_that_ended_is_logged(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """The warning has the error of the stream, once."""
    out = BrokenStream()
    out.error = BrokenPipeError(errno.EPIPE, "a reader that quit")
    show = LinesDisplay(clock=clock, stream=out)
    for _ in range(2):
        show(RunStarted(None))
        show(RunFinished({}, 1.0, complete=True))

    (message,) = caplog.messages
    assert message.startswith("the progress display ended, and the run continues: its stream failed with BrokenPipe")


def test_the_programs_own_output_is_not_moved_to_the_display(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stdout that is no terminal receives what the program prints while a display is live."""
    out = Terminal()
    show = LiveDisplay(clock=clock, stream=out)
    show(RunStarted(1))
    print("a result of the program")
    show(RunFinished({}, 1.0, complete=True))

    assert capsys.readouterr().out == "a result of the program\n"
    assert "a result" not in out.getvalue()


# Selection of a display.


@pytest.mark.parametrize("progress", [None, False])
def test_without_progress_there_is_no_listener(progress: bool | None) -> None:
    """None and False select no display."""
    assert choose_display(progress) is None


def test_a_callable_is_returned_unchanged() -> None:
    """Any callable that takes events can replace the displays."""
    events: list[Event[Any]] = []

    assert choose_display(events.append) == events.append


@pytest.mark.parametrize("progress", ["loud", 7, ["live"]])
def test_another_value_is_refused(progress: object) -> None:
    """The message names the value and the allowed values."""
    with pytest.raises(ConfigurationError, match=r"must be True, False, 'live', 'lines', or a callable"):
        choose_display(progress)  # type: ignore[arg-type]


def test_a_pipe_gets_lines(clock: FakeClock) -> None:
    """True selects by the stream; "lines" and "live" select that display on every stream."""
    assert isinstance(choose_display(True, stream=io.StringIO()), LinesDisplay)
    assert isinstance(choose_display("lines", stream=Terminal()), LinesDisplay)
    assert isinstance(choose_display("live", stream=Terminal()), LiveDisplay)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal that cannot move its cursor a live display would append every update."""
    monkeypatch.setenv("TERM", "dumb")

    assert isinstance(choose_display(True, stream=Terminal()), LinesDisplay)


def test_without_rich_true_shows_lines_and_live_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra that installs rich."""
    for name in [name for name in sys.modules if name == "rich" or name.startswith("rich.")]:
        monkeypatch.setitem(sys.modules, name, None)

    assert isinstance(choose_display(True, stream=Terminal()), LinesDisplay)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'asyncauth[cli]'")):
        choose_display("live", stream=Terminal())


class Cell:
    """Fake output of a cell, which keeps what it showed."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: str) -> None:
        self.shown.append(html)


def _in_jupyter(monkeypatch: pytest.MonkeyPatch, *, kernel: object | None = "a kernel") -> Cell:
    cell = Cell()

    def display(html: str, *, display_id: bool) -> Cell:
        assert display_id
        cell.update(html)
        return cell

    _module(monkeypatch, "IPython", get_ipython=lambda: SimpleNamespace(kernel=kernel))
    _module(monkeypatch, "IPython.display", display=display, HTML=str)
    return cell


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("progress", [True, "live"])
def test_a_notebook_replaces_one_output(progress: Any, monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """The output shows counts and the slowest target, at the end the summary; neither rich nor ipywidgets is used."""
    cell = _in_jupyter(monkeypatch)
    monkeypatch.setitem(sys.modules, "rich", None)

    show = choose_display(progress, clock=clock)
    assert isinstance(show, NotebookDisplay)
    show(RunStarted(2))
    show(TargetStarted(1, "<script>"))
    clock.advance(1)
    show(settled(0))
    show(RunFinished({"succeeded": 2}, 1.0, complete=True))

    assert "0 of 2 done" in cell.shown[0]
    assert '<progress max="2" value="1"></progress>' in cell.shown[1]
    assert "1 running, 1 succeeded" in cell.shown[1]
    assert "1.0 s  &lt;script&gt;" in cell.shown[1]
    assert cell.shown[2:] == ["<pre>asyncauth: 2 targets in 1.0 s: 2 succeeded</pre>"]


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shell has no kernel, so the terminal decides."""
    _in_jupyter(monkeypatch, kernel=None)

    assert isinstance(choose_display(True), LinesDisplay)


def test_a_given_stream_is_used_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of the cell is only for displays without a stream of their own."""
    _in_jupyter(monkeypatch)

    assert isinstance(choose_display(True, stream=io.StringIO()), LinesDisplay)
