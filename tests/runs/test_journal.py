"""Journal: its lines, its durability over a kill, and the files that it refuses."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncauth._errors import ConfigurationError
from asyncauth._runs.journal import DONE_BEFORE, Journal, JournalKey, RunIdentity
from asyncauth._runs.thread_job import STILL_RUNNING
from asyncauth.testing import FakeClock

RUN = RunIdentity("inventory.list_instances", "manage-role")
KEY = JournalKey("aws", "123456789012", "eu-west-1")
OTHER = JournalKey("aws-cn", "210987654321", "cn-north-1")

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files only")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_succeeded_target_is_done_for_the_next_run(path: Path) -> None:
    """A second run with the same journal finds the succeeded targets of the first run done, and no others."""
    with Journal.open(path, run=RUN) as first:
        first.record(KEY, status="succeeded", phase="job", attempts=1, elapsed=0.25)
        first.record(OTHER, status="failed", phase="credentials", error_code="AccessDenied", attempts=1, elapsed=0.5)
        in_the_first = first.claim(KEY), len(first), first.recorded
    with Journal.open(path, run=RUN) as second:
        in_the_second = second.claim(KEY), second.claim(OTHER), len(second)

    assert in_the_first == (None, 0, 2)
    assert in_the_second == (DONE_BEFORE, None, 1)


@pytest.mark.parametrize("status", ["failed", "timed_out", "skipped", "cancelled"])
def test_only_success_is_done(path: Path, status: str) -> None:
    """A target with any other status is done again by the next run, and a success is not taken back."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(OTHER, status=status)
        journal.record(KEY, status="succeeded")
        journal.record(KEY, status=status)

    with Journal.open(path, run=RUN) as journal:
        assert journal.claim(OTHER) is None
        assert journal.claim(KEY) == DONE_BEFORE


def test_the_file_is_json_lines_with_a_header(path: Path) -> None:
    """The header holds job and role, each line a target and its status; absent fields are not written."""
    clock = FakeClock(1_800_000_000.5)
    with Journal.open(path, run=RUN, clock=clock) as journal:
        clock.advance(2)
        journal.record(KEY, status="succeeded", phase="job", attempts=1, elapsed=0.12345)
        journal.record(OTHER, status="skipped", reason="failure tolerance reached")

    assert lines(path) == [
        {
            "kind": "asyncauth journal",
            "version": 1,
            "job": "inventory.list_instances",
            "role": "manage-role",
            "begun": 1_800_000_000.5,
        },
        {
            "at": 1_800_000_002.5,
            "account": "123456789012",
            "partition": "aws",
            "region": "eu-west-1",
            "status": "succeeded",
            "phase": "job",
            "attempts": 1,
            "elapsed": 0.123,
        },
        {
            "at": 1_800_000_002.5,
            "account": "210987654321",
            "partition": "aws-cn",
            "region": "cn-north-1",
            "status": "skipped",
            "reason": "failure tolerance reached",
            "attempts": 0,
            "elapsed": 0.0,
        },
    ]


def test_a_line_is_in_the_file_when_record_returns(path: Path) -> None:
    """Nothing is buffered in the process, so a kill right after loses nothing."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="succeeded")

        assert len(lines(path)) == 2


def test_a_journal_holds_no_secret(path: Path) -> None:
    """An error code that does not look like one is left out; a reason is redacted and shortened."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="failed", error_code="message: secret_access_key=hunter2")
        journal.record(KEY, status="skipped", reason="SecretAccessKey: hunter2 " + "x" * 1000)

    text = path.read_text()
    assert "hunter2" not in text
    assert all(len(line) < 500 for line in text.splitlines())
    assert "code" not in lines(path)[1]


def test_a_target_that_an_earlier_run_has_done_is_not_recorded_again(path: Path) -> None:
    """A run that finds all targets done does not change the journal."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="skipped", reason=DONE_BEFORE)

    assert len(lines(path)) == 1


# Incomplete and damaged lines.


@pytest.mark.parametrize("torn", ['{"at":1800000000.0,"account":"2109', "\x00\x00\x00", '{"status":"succeeded"}'])
def test_an_incomplete_last_line_is_cut_off(path: Path, torn: str) -> None:
    """The complete lines are kept, and the next line is readable."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="succeeded")
    with path.open("a") as file:
        file.write(torn)

    with Journal.open(path, run=RUN) as journal:
        reason = journal.claim(KEY)
        journal.record(OTHER, status="succeeded")
    with Journal.open(path, run=RUN) as journal:
        assert reason == journal.claim(OTHER) == DONE_BEFORE
    assert len(lines(path)) == 3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_journal_can_be_cut_after_any_byte(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """It opens, holds exactly its complete lines, and accepts new ones."""
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    keys = [JournalKey("aws", f"{number:012d}", "eu-west-1") for number in range(4)]
    with Journal.open(path, run=RUN, clock=FakeClock()) as journal:
        for key in keys:
            journal.record(key, status="succeeded")
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    Journal.check(path, run=RUN)
    assert path.read_bytes() == whole[:cut]

    with Journal.open(path, run=RUN) as journal:
        done = [key for key in keys if journal.claim(key)]
        journal.record(OTHER, status="succeeded")
    with Journal.open(path, run=RUN) as journal:
        assert journal.claim(OTHER) == DONE_BEFORE

    assert done == keys[: max(0, whole[:cut].count(b"\n") - 1)]


def test_a_damaged_line_affects_only_its_own_target(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Targets of damaged lines are done again, and a warning gives the number of damaged lines."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="succeeded")
    with path.open("a") as file:
        file.write('\x00\x00\n[]\n{"account": 7, "partition": "aws", "region": "x", "status": "succeeded"}\n')
    with Journal.open(path, run=RUN) as journal:
        journal.record(OTHER, status="succeeded")

    with caplog.at_level(logging.WARNING, "asyncauth.journal"), Journal.open(path, run=RUN) as journal:
        assert journal.claim(KEY) == journal.claim(OTHER) == DONE_BEFORE
        assert len(journal) == 2
    assert "3 lines" in caplog.text


ODD = [
    '{"partition":"aws","account":"1","region":"r","status":"succeeded","role":["a"]}',
    '{"partition":"aws","account":"1","region":"r","status":"succeeded","role":{"a":1}}',
    '{"partition":"aws","account":"1","region":"r","status":"succeeded","role":7}',
    '{"partition":"aws","account":"1","region":"r","status":["succeeded"]}',
    '{"partition":"aws","account":"1","region":"r"}',
    "[" * 100_000,
    '{"a":' * 100_000,
    "\x00",
    "\x00{\x00",
    '{"partition":"aws\x00","account":"1","region":"r","status":"succeeded"}',
    "\ufffd",
    "1" * 10_000,
    "",
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_line_is_skipped_with_a_warning(path: Path, caplog: pytest.LogCaptureFixture, odd: str) -> None:
    """A role that is a list, deep nesting, a NUL: the journal opens, and its other lines count."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="succeeded")
    with path.open("a") as file:
        file.write(odd + "\n")
    with Journal.open(path, run=RUN) as journal:
        journal.record(OTHER, status="succeeded")

    caplog.clear()
    with Journal.open(path, run=RUN) as journal:
        assert journal.claim(KEY) == journal.claim(OTHER) == DONE_BEFORE
    assert "1 lines" in caplog.text


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_an_odd_first_line_is_no_header(path: Path, odd: str) -> None:
    """The file is refused, and not changed."""
    path.write_text(odd + "\n")
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="is no journal of asyncauth"):
        Journal.open(path, run=RUN)

    assert path.read_text() == odd + "\n"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_a_journal_with_any_bytes_opens(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """The lines before and after them count."""
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="succeeded")
    with path.open("ab") as file:
        file.write(data + b"\n")
    with Journal.open(path, run=RUN) as journal:
        journal.record(OTHER, status="succeeded")
    with Journal.open(path, run=RUN) as journal:
        assert journal.claim(KEY) == journal.claim(OTHER) == DONE_BEFORE


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["succeeded", "failed", "unknown"]), max_size=6), st.integers(0, 8), st.booleans())
def test_each_line_counts_for_one_target(
    tmp_path_factory: pytest.TempPathFactory, statuses: list[str], targets: int, read_only: bool
) -> None:
    """An account given twice that failed once is done again once; an unknown target only if the job is read-only."""
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    with Journal.open(path, run=RUN) as journal:
        for status in statuses:
            journal.record(KEY, status=status)

    with Journal.open(path, run=RUN) as journal:
        reasons = [journal.claim(KEY, read_only=read_only) for _ in range(targets)]

    done, unknown = statuses.count("succeeded"), 0 if read_only else statuses.count("unknown")
    expected = [DONE_BEFORE] * done + [STILL_RUNNING] * unknown + [None] * targets
    assert reasons == expected[:targets]


def test_a_target_that_is_still_running_is_not_recorded_again(path: Path) -> None:
    """The later run that skips it leaves the journal as it is."""
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="unknown", reason=STILL_RUNNING)
    with Journal.open(path, run=RUN) as journal:
        journal.record(KEY, status="skipped", reason=journal.claim(KEY))

    assert [line.get("status") for line in lines(path)[1:]] == ["unknown"]


def test_a_partial_line_on_a_full_disk_is_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`record` raises, so that the run stops, and the file holds complete lines only."""
    journal = Journal.open(path, run=RUN)
    journal.record(KEY, status="succeeded")
    real = journal._file

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def write(self, data: bytes) -> int:
            return real.write(data[:7])

    monkeypatch.setattr(journal, "_file", Full())
    with pytest.raises(OSError, match="only 7 of"):
        journal.record(OTHER, status="succeeded")
    journal.close()

    assert len(lines(path)) == 2
    assert path.read_bytes().endswith(b"\n")


# Files that are refused, by a check as well.

both = pytest.mark.parametrize("use", [Journal.open, Journal.check])


@both
def test_a_journal_of_another_job_or_role_is_refused(use: Any, path: Path) -> None:
    """A target that one job has done is not done for another job; the message names both."""
    Journal.open(path, run=RUN).close()

    with pytest.raises(ConfigurationError, match=r"job 'inventory.list_instances', and this run has job 'tags.rotate'"):
        use(path, run=RunIdentity("tags.rotate", "manage-role"))
    with pytest.raises(ConfigurationError, match=r"role 'manage-role', and this run has role 'audit'"):
        use(path, run=RunIdentity("inventory.list_instances", "audit"))


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "hello\n",
        'see {"kind":"asyncauth journal",',
        '{"a": 1}\n',
        "[]\n",
        "\n",
        '{"kind":"asyncauth'[:3] + "x",
    ],
)
@both
def test_a_file_that_is_no_journal_is_refused_and_left_alone(use: Any, path: Path, text: str) -> None:
    """No byte of the file is changed."""
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match="is no journal of asyncauth"):
        use(path, run=RUN)

    assert path.read_text() == text


@both
def test_a_later_version_is_refused(use: Any, path: Path) -> None:
    """A journal in a format that this library cannot read is not changed."""
    Journal.open(path, run=RUN).close()
    path.write_text(path.read_text().replace('"version":1', '"version":2'))

    with pytest.raises(ConfigurationError, match="has version 2, and this library reads version 1"):
        use(path, run=RUN)


def test_an_empty_file_gets_a_header(path: Path) -> None:
    """A file that was created before, by mktemp for instance, is treated like a missing one."""
    path.touch(mode=0o600)

    with Journal.open(path, run=RUN) as journal:
        assert len(journal) == 0
    assert len(lines(path)) == 1


@posix
def test_a_new_journal_is_accessible_to_its_owner_only(path: Path) -> None:
    """The file is created with mode 0600, whatever the umask allows."""
    before = os.umask(0)
    try:
        Journal.open(path, run=RUN).close()
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600


@posix
@both
def test_a_journal_that_other_users_can_write_is_refused(use: Any, path: Path) -> None:
    """A user who can write it could make targets look done."""
    Journal.open(path, run=RUN).close()
    path.chmod(0o620)

    with pytest.raises(ConfigurationError, match="can be written by other users"):
        use(path, run=RUN)


@posix
def test_a_journal_that_belongs_to_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could make targets look done."""
    Journal.open(path, run=RUN).close()
    if path.stat().st_uid == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)

    with pytest.raises(ConfigurationError, match="belongs to another user"):
        Journal.open(path, run=RUN)


@posix
@both
def test_a_link_is_refused(use: Any, path: Path, tmp_path: Path) -> None:
    """With a symbolic link, dangling or not, another user could choose the file that is appended to."""
    path.symlink_to(tmp_path / "target")

    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        use(path, run=RUN)
    assert not (tmp_path / "target").exists()


@posix
@both
def test_a_pipe_or_a_directory_is_refused_at_once(use: Any, path: Path, tmp_path: Path) -> None:
    """Opening a pipe does not wait for its other end."""
    os.mkfifo(path, 0o600)

    with pytest.raises(ConfigurationError, match=r"is no regular file|cannot be opened"):
        use(path, run=RUN)
    with pytest.raises(ConfigurationError, match="cannot be opened: Is a directory"):
        use(tmp_path, run=RUN)


@both
def test_a_missing_directory_is_named(use: Any, tmp_path: Path) -> None:
    """The error names the missing directory as the cause; it is not created."""
    with pytest.raises(ConfigurationError, match="its directory does not exist"):
        use(tmp_path / "nowhere" / "run.jsonl", run=RUN)


@pytest.mark.parametrize("path", ["", None, 7])
@both
def test_a_value_that_is_no_path_is_refused(use: Any, path: object) -> None:
    """The message names the value."""
    with pytest.raises(ConfigurationError, match="must be the path of a file"):
        use(path, run=RUN)


@posix
def test_a_check_creates_nothing_and_takes_no_lock(path: Path) -> None:
    """A missing file stays missing; the journal of a run that goes on is as good as one that has ended."""
    Journal.check(path, run=RUN)
    assert not path.exists()

    with Journal.open(path, run=RUN):
        Journal.check(path, run=RUN)


def test_two_runs_cannot_share_a_journal(path: Path) -> None:
    """The second run is refused, in this process or another one, until the first has closed the journal."""
    script = f"""
from asyncauth._runs.journal import Journal, RunIdentity
try:
    Journal.open({str(path)!r}, run=RunIdentity({RUN.job!r}, {RUN.role!r}))
except ValueError as error:
    print(error)
else:
    print("opened")
"""
    command = [sys.executable, "-c", script]
    with Journal.open(path, run=RUN):
        with pytest.raises(ConfigurationError, match="is in use by another run"):
            Journal.open(path, run=RUN)
        other = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    Journal.open(path, run=RUN).close()

    assert "is in use by another run" in other.stdout


# Identity of a run.


async def module_level_job(session: object) -> None: ...


class CallableJob:
    async def __call__(self, session: object) -> None: ...


def test_a_job_is_identified_by_its_qualified_name() -> None:
    """A partial counts as the function it wraps, a callable object as its class, a lambda as `<lambda>`."""
    module = __name__

    assert RunIdentity.of(module_level_job, "r") == RunIdentity(f"{module}.module_level_job", "r")
    assert (
        RunIdentity.of(functools.partial(functools.partial(module_level_job), 1), "r").job
        == f"{module}.module_level_job"
    )
    assert RunIdentity.of(CallableJob(), "r").job == f"{module}.CallableJob"
    assert RunIdentity.of(lambda session: None, "r").job.endswith("<lambda>")


# Life cycle.


def test_closing_twice_has_no_effect_and_recording_after_it_raises(path: Path) -> None:
    """The error and the repr name the state."""
    journal = Journal.open(path, run=RUN)
    journal.record(KEY, status="succeeded")
    opened = repr(journal)
    journal.close()
    journal.close()

    with pytest.raises(ValueError, match="closed"):
        journal.record(KEY, status="succeeded")
    assert opened == f"<Journal {str(path)!r} [open, 0 done before, 1 recorded]>"
    assert repr(journal) == f"<Journal {str(path)!r} [closed, 0 done before, 1 recorded]>"


@pytest.mark.anyio
async def test_lines_are_synced_every_five_seconds_in_a_worker_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`keep_synced` calls fsync only if there are new lines."""
    synced: list[bool] = []

    class WatchedClock(FakeClock):
        asleep = anyio.Event()

        async def sleep(self, seconds: float) -> None:
            self.asleep.set()
            await super().sleep(seconds)

    clock = WatchedClock()

    def fsync(_: int) -> None:
        synced.append(threading.current_thread() is threading.main_thread())

    journal = Journal.open(path, run=RUN, clock=clock)
    monkeypatch.setattr(os, "fsync", fsync)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.keep_synced)
        await clock.asleep.wait()
        journal.record(KEY, status="succeeded")
        before = list(synced)
        for _ in range(3):
            clock.asleep = anyio.Event()
            clock.advance(5)
            await clock.asleep.wait()
        tasks.cancel_scope.cancel()
    journal.close()

    assert before == []
    assert synced == [False]


SCRIPT = """
import os, sys, anyio
from asyncauth._fanout.engine import fan_out
from asyncauth._runs.journal import Journal, JournalKey, RunIdentity
from asyncauth._fanout.limits import Limits

path, effects = sys.argv[1:]
log = os.open(effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def work(number, attempt):
    await anyio.sleep(0.002)
    os.write(log, f"{number}\\n".encode())
    await anyio.sleep(0.002)

async def main():
    def key(number):
        return JournalKey("aws", f"{number:012d}", "eu-west-1")
    with Journal.open(path, run=RunIdentity("job", "role")) as journal:
        async with fan_out(
            work,
            range(2000),
            limits=Limits(max_at_once=20),
            check=lambda number: journal.claim(key(number)),
            on_result=lambda result: journal.record(key(result.target), status=result.status, reason=result.reason),
        ) as results:
            shown = 0
            async for result in results:
                if result.status == "succeeded":
                    print(result.target, flush=True)

anyio.run(main)
"""


@posix
def test_a_killed_run_and_its_repetition_do_every_target_once(path: Path, tmp_path: Path) -> None:
    """2,000 targets, SIGKILL, a second run: only the targets in flight at the kill may be done twice."""
    effects = tmp_path / "effects"
    command = [sys.executable, "-c", SCRIPT, str(path), str(effects)]
    root = Path(__file__).parents[2]
    shown: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as first:
        assert first.stdout is not None
        for line in first.stdout:
            shown.append(int(line))
            if len(shown) == 900:
                first.send_signal(signal.SIGKILL)
                break
        rest = first.stdout.read()
    shown += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    recorded = {int(str(line["account"])) for line in complete_lines(path)[1:]}
    second = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True, timeout=60)

    times = Counter(int(line) for line in effects.read_text().splitlines())
    again = [number for number, count in times.items() if count > 1]
    assert first.returncode == -signal.SIGKILL
    assert 900 <= len(recorded) < 2000
    assert recorded >= set(shown), "an outcome was shown before its line was written"
    assert set(times) == set(range(2000))
    assert max(times.values()) <= 2
    assert len(again) <= 20
    assert not recorded.intersection(again)
    assert {int(line) for line in second.stdout.splitlines()} == set(range(2000)) - recorded


def complete_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
