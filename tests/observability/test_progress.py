"""Progress on a fake clock: what is shown when, on a terminal, in a pipe, in Jupyter, and without rich."""

from __future__ import annotations

import builtins
import io
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from botocore.exceptions import ClientError

from asyncauth import Account
from asyncauth._errors import AssumeRoleDenied, AsyncAuthError, ConfigurationError
from asyncauth._fanout.engine import fan_out
from asyncauth._fanout.events import Event, RunFinished, RunStarted, TargetRetried, TargetSettled, TargetStarted
from asyncauth._fanout.limits import Limits
from asyncauth._observability.progress import LinesDisplay, LiveDisplay, choose_display
from asyncauth._observability.run_tracker import RunTracker
from asyncauth._runs.targets import Target
from asyncauth.testing import FakeClock

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

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
    assert LiveDisplay._live_one is None


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


# The score.


def test_the_board_keeps_the_score(clock: FakeClock) -> None:
    """Counts by status, who runs, and the codes of failures, the most frequent first."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(10))
    for index in range(6):
        tracker.tell(TargetStarted(index, target(index)))
    tracker.tell(settled(0))
    tracker.tell(settled(1, "failed", denied()))
    tracker.tell(settled(2, "failed", denied()))
    tracker.tell(settled(3, "timed_out", TimeoutError()))
    tracker.tell(settled(9, "skipped", reason="done in an earlier run"))

    progress = tracker.progress()
    assert (progress.total, progress.done, progress.running) == (10, 5, 2)
    assert progress.counts == {"succeeded": 1, "failed": 2, "timed_out": 1, "skipped": 1}
    assert progress.codes == (("AccessDenied", 2), ("TimeoutError", 1))


def test_the_slowest_are_those_that_began_first(clock: FakeClock) -> None:
    """With the seconds they have been at it, which attempt it is, and how long the next one waits."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(3))
    tracker.tell(TargetStarted(0, target(0, name="billing")))
    clock.advance(4)
    tracker.tell(TargetStarted(1, target(1)))
    tracker.tell(TargetRetried(1, target(1), 1, TimeoutError(), 3.0))
    clock.advance(1)
    first, second = tracker.progress().slowest
    clock.advance(5)
    later = tracker.progress(slowest=1).slowest

    assert (first.name, first.seconds, first.attempt) == ("000000000000 eu-west-1 billing", 5, 1)
    assert (second.name, second.seconds, second.attempt, second.waits_seconds) == ("000000000001 eu-west-1", 1, 2, 2)
    assert [running.seconds for running in later] == [10]


def test_targets_of_other_kinds_are_named_by_themselves(clock: FakeClock) -> None:
    """The engine runs over anything; what is no account in a region is shown as it prints."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(1))
    tracker.tell(TargetStarted(0, "host-1\x07"))

    assert tracker.progress().slowest[0].name == "host-1\ufffd"


def test_the_rate_is_that_of_the_last_ten_seconds(clock: FakeClock) -> None:
    """A burst long ago does not promise an early end, and skipped targets, which cost nothing, do not either."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(1000))
    for index in range(500):
        tracker.tell(settled(index))
    for second in range(60):
        tracker.tell(settled(500 + 2 * second))
        tracker.tell(settled(501 + 2 * second))
        tracker.tell(settled(5000 + second, "skipped"))
        clock.advance(1)

    progress = tracker.progress()
    assert progress.rate == pytest.approx(2.0)
    assert progress.eta_seconds == pytest.approx((1000 - 500 - 120 - 60) / 2)


def test_nobody_knows_when_it_ends_without_a_total_or_a_rate(clock: FakeClock) -> None:
    """Neither an unknown number of targets nor a run where none has ended gets a time."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(None))
    tracker.tell(settled(0))
    unknown = tracker.progress().eta_seconds
    tracker.tell(RunStarted(5))

    assert unknown is None
    assert tracker.progress().eta_seconds is None
    assert tracker.progress().done == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (denied(), "AccessDenied"),
        (ValueError("secret words"), "ValueError"),
        (throttled(), "Throttling"),
        (ExceptionGroup("two calls", [throttled(), throttled()]), "Throttling"),
        (ExceptionGroup("two calls", [throttled(), denied()]), "ExceptionGroup"),
        (type("Odd", (Exception,), {"response": {}})(), "Odd"),
        (type("Http", (Exception,), {"code": 503})(), "Http"),
        (AsyncAuthError("", code="\x1b[2J" + "x" * 100), "\ufffd[2J" + "x" * 33 + "..."),
    ],
)
def test_an_error_is_shown_by_its_code(clock: FakeClock, error: Exception, code: str) -> None:
    """AWS's code, ours, or the class; a group by the code of its members; never the message."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(1))
    tracker.tell(settled(0, "failed", error))

    assert [found for found, _ in tracker.progress().codes] == [code]


def test_codes_without_end_are_not_kept_without_end(clock: FakeClock) -> None:
    """A job that gives each error a code of its own does not make memory grow with its targets."""
    tracker = RunTracker(clock)
    tracker.tell(RunStarted(None))
    for index in range(1000):
        tracker.tell(settled(index, "failed", AssumeRoleDenied(code=f"code {index}")))

    assert tracker.progress(codes=1).codes == (("others", 900),)


# Lines.


def test_lines_come_every_five_seconds_and_at_the_end(clock: FakeClock) -> None:
    """A pipe gets what a person wants to know, in a line that is whole by itself."""
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
async def test_lines_go_on_while_every_target_hangs(clock: FakeClock) -> None:
    """No events come then; `keep_drawn` shows that time passes, and nothing before or after the run."""
    out = io.StringIO()
    show = LinesDisplay(clock=clock, stream=out)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show.keep_drawn)
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
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        clock.advance(1)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


def test_a_run_of_nothing_says_so(clock: FakeClock) -> None:
    """No targets, no statistics."""
    out = io.StringIO()
    show = LinesDisplay(clock=clock, stream=out)
    show(RunStarted(0))
    show(RunFinished({}, 0.01, complete=True))

    assert out.getvalue() == "asyncauth: 0 targets in 0.0 s: nothing to do\n"


def test_lines_go_to_stderr_as_it_is_at_the_moment(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe behind the program gets only what the program itself prints."""
    show = LinesDisplay(clock=clock)
    show(RunStarted(0))
    show(RunFinished({}, 7200.0, complete=True))

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "asyncauth: 0 targets in 2 h 0 min: nothing to do\n"


# Live.


def test_a_terminal_gets_a_live_display(clock: FakeClock) -> None:
    """A bar, counts, codes, the slowest targets with their attempts; and a summary that stays."""
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
    picture = plain(out.getvalue()).splitlines()[-4:]
    show(RunFinished({"succeeded": 99, "failed": 1}, 12.0, complete=True))
    end = out.getvalue()

    assert picture[0].endswith("3 of 100  1.5/s  2.0 s  1 min 4 s left")
    assert picture[0].startswith("━")
    assert picture[1].rstrip() == "2 running  2 succeeded  1 failed  AccessDenied 1"
    assert picture[2].split() == ["2.0", "s", "000000000000", "eu-west-1", "billing"]
    assert picture[3].split() == ["2.0", "s", "000000000001", "eu-west-1", "attempt", "2", "in", "1.0", "s"]
    assert "asyncauth: 100 targets in 12 s: 99 succeeded, 1 failed (AccessDenied 1)" in plain(end)
    assert end.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_it_is_drawn_four_times_a_second_at_most(clock: FakeClock) -> None:
    """Ten thousand events do not draw ten thousand pictures."""
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


def test_an_account_name_cannot_command_the_terminal(clock: FakeClock) -> None:
    """Escape sequences and markup in a name are shown, not obeyed; long names are cut, regions are not."""
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


def test_no_words_of_an_error_are_shown(clock: FakeClock) -> None:
    """They may hold what nobody should read over your shoulder."""
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


def test_two_runs_at_once_share_a_terminal(clock: FakeClock) -> None:
    """The first is live, the second says how it ended, and neither breaks the other."""
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
async def test_a_run_that_is_left_gives_the_terminal_back(clock: FakeClock) -> None:
    """Leaving a run in the middle ends its display, by the event that every run ends with."""
    out = Terminal()
    show = LiveDisplay(clock=clock, stream=out)

    async def hang(number: int, attempt: object) -> None:
        await anyio.sleep_forever()

    with pytest.raises(KeyError):
        async with fan_out(hang, range(3), limits=Limits(max_at_once=2), clock=clock, on_event=[show]):
            raise KeyError

    assert out.getvalue().rstrip().endswith("\x1b[?25h")
    assert "3 cancelled" in plain(out.getvalue())


# Which one.


@pytest.mark.parametrize("progress", [None, False])
def test_no_progress_is_nothing(progress: bool | None) -> None:
    """Off costs nothing: there is no listener."""
    assert choose_display(progress) is None


def test_a_callable_is_taken_as_it_is() -> None:
    """Whoever takes events may be given instead."""
    events: list[Event[Any]] = []

    assert choose_display(events.append) == events.append


@pytest.mark.parametrize("progress", ["loud", 7, ["live"]])
def test_anything_else_is_refused(progress: object) -> None:
    """The message names the value and what may stand there."""
    with pytest.raises(ConfigurationError, match=r"must be True, False, 'live', 'lines', or a callable"):
        choose_display(progress)  # type: ignore[arg-type]


def test_a_pipe_gets_lines(clock: FakeClock) -> None:
    """True looks at the stream; "lines" and "live" insist."""
    assert isinstance(choose_display(True, stream=io.StringIO()), LinesDisplay)
    assert isinstance(choose_display("lines", stream=Terminal()), LinesDisplay)
    assert isinstance(choose_display("live", stream=Terminal()), LiveDisplay)


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot move its cursor would be flooded."""
    monkeypatch.setenv("TERM", "dumb")

    assert isinstance(choose_display(True, stream=Terminal()), LinesDisplay)


def test_without_rich_true_shows_lines_and_live_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core does not need rich; the error names the extra that brings it."""
    for name in [name for name in sys.modules if name == "rich" or name.startswith("rich.")]:
        monkeypatch.setitem(sys.modules, name, None)

    assert isinstance(choose_display(True, stream=Terminal()), LinesDisplay)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'asyncauth[cli]'")):
        choose_display("live", stream=Terminal())


class ZMQInteractiveShell:
    """What `get_ipython` returns in a notebook, by its name."""

    config: ClassVar[dict[str, object]] = {}


def _in_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)


def _module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_jupyter_without_widgets_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """rich needs ipywidgets to draw over what it drew; without them it would only warn."""
    _in_jupyter(monkeypatch)

    assert isinstance(choose_display(True), LinesDisplay)


def test_jupyter_with_widgets_is_live(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    """The display goes into one output of the cell, which is cleared and drawn again."""
    shown: list[object] = []

    class Output:
        cleared = 0

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...
        def clear_output(self, wait: bool) -> None:
            Output.cleared += 1

    _in_jupyter(monkeypatch)
    _module(monkeypatch, "ipywidgets", Output=Output)
    _module(monkeypatch, "IPython")
    _module(monkeypatch, "IPython.display", display=shown.append)

    show = choose_display(True, clock=clock)
    assert isinstance(show, LiveDisplay)
    show(RunStarted(1))
    clock.advance(1)
    show(settled(0))
    show(RunFinished({"succeeded": 1}, 1.0, complete=True))

    assert [type(each) for each in shown if isinstance(each, Output)] == [Output]
    assert Output.cleared >= 3
