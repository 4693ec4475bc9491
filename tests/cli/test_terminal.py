"""Terminal: screens of every verb at three widths, consent, progress, Ctrl-C and closed pipes."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import textwrap
from pathlib import Path

import pytest

from asyncauth import Account
from asyncauth.cli import program
from asyncauth.cli.endings import OutputClosedError
from asyncauth.cli.output import FORMATS, Output
from asyncauth.testing import SimulatedFleet
from tests.cli.conftest import DENIED
from tests.support import fork_server
from tests.support.command_line import PROGRAM, CommandLine, check_output

SCREENS = Path(__file__).parent / "screens"
WIDTHS = (60, 80, 200)
JOB = """
async def where(session):
    return session.region_name
where.read_only = True

async def changes(session):
    return 1
"""
SHOW = "import os; print('in', os.environ['ASYNCAUTH_REGION'])"

#: The commands of the screens. What differs from run to run (seconds, paths) is not part of them.
COMMANDS = {
    "help": ("--help",),
    "whoami": ("whoami", "PROFILES"),
    "accounts": ("accounts", "ALL"),
    "check": ("check", "ALL", "--no-progress", "--sort", "account"),
    "run": (
        "run",
        "jobs.py:where",
        "ALL",
        "--no-progress",
        "--sort",
        "account",
        "--columns",
        "account,status,value,error_code",
    ),
    "exec": (
        "exec",
        "ALL",
        "--exclude",
        f"{DENIED},1000*2,2*",
        "--exec-output",
        "group",
        "--no-progress",
        "--",
        sys.executable,
        "-c",
        SHOW,
    ),
    "inventory": (
        "inventory",
        "ec2:vpc",
        "ALL",
        "--no-progress",
        "--sort",
        "account",
        "--columns",
        "account,partition,region,cidr",
    ),
    "profiles": ("profiles", "ALL"),
    "sql": ("sql", "select partition, account, region, cidr, is_default from ec2_vpc order by account"),
    "metrics": ("metrics", "ec2", "ALL", "--estimate-only", "--no-progress"),
    "report": ("report",),
    "demo": ("demo", "--accounts", "5", "--no-progress"),
    "error": ("whoami",),
    "usage": ("check", "--accounts", "12345"),
}


def expand(cli: CommandLine, arguments: tuple[str, ...]) -> list[str]:
    words: list[str] = []
    for argument in arguments:
        words += {"PROFILES": cli.profiles(), "ALL": cli.all_accounts()}.get(argument, (argument,))
    return words


def normalized(screen: str) -> str:
    """Return a screen without paths of this machine, seconds and spaces at the ends of lines."""
    screen = re.sub(r"credential_process = .*? credentials", "credential_process = asyncauth credentials", screen)
    screen = re.sub(r"\d+\.\d s", "0.0 s", screen)
    screen = re.sub(r"\d+ AssumeRole calls", "N AssumeRole calls", screen)
    return "\n".join(line.rstrip() for line in screen.splitlines()) + "\n"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_the_screen_is_the_kept_one(cli: CommandLine, name: str, width: int) -> None:
    """On a terminal of each width the screen is the one that is kept, and no line is longer than the terminal."""
    (cli.folder / "jobs.py").write_text(JOB)
    if name in ("sql", "report"):
        cli.run("inventory", "ec2:vpc", "--store", "inventory.db", *cli.all_accounts())
    done = cli.on_terminal(*expand(cli, COMMANDS[name]), width=width)
    path, screen = SCREENS / f"{name}-{width}.txt", normalized(done.stdout)
    if os.environ.get("UPDATE_SCREENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(screen)

    assert screen == path.read_text()
    if name not in ("profiles", "usage"):  # lines of a file must not be folded, and click does not fold its messages
        assert max(map(len, screen.splitlines())) <= width


#: Commands whose screen has a secret or a script: no line of them may be folded.
UNFOLDED = {
    "credentials": ("credentials", "100000000001", "--profile", "global"),
    "console": ("console", "100000000001", "--profile", "global"),
    "completion": ("completion", "bash"),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_what_programs_read_is_never_folded(cli: CommandLine, name: str) -> None:
    """JSON, URLs and scripts have the same number of lines on a terminal of 60 columns as in a pipe."""
    piped, shown = cli.run(*UNFOLDED[name]), cli.on_terminal(*UNFOLDED[name], width=60)

    assert (piped.code, shown.code) == (0, 0), piped.stderr
    assert max(map(len, shown.stdout.splitlines())) > 60
    assert shown.stdout.count("\n") == piped.stdout.count("\n")
    assert shown.stdout.split("{", 1)[0] == piped.stdout.split("{", 1)[0] or name == "console"


def test_every_command_has_screens() -> None:
    """Each command is shown on a terminal by a test of this file."""
    shown = {arguments[0] for arguments in (*COMMANDS.values(), *UNFOLDED.values())}

    assert program.COMMANDS.keys() <= shown


EVIL = "\x1b[2J\u202egnp.exe\n\x9b31m"
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class TestConsent:
    def test_consent_is_requested_once(self, cli: CommandLine) -> None:
        """On a terminal a job over several accounts shows accounts, regions, partitions and role, and waits for y."""
        (cli.folder / "jobs.py").write_text(JOB)
        options = ("run", "jobs.py:changes", *cli.all_accounts(), "--no-progress", "--output", "jsonl")
        refused = cli.on_terminal(*options, typed="n\n")
        granted = cli.on_terminal(*options, typed="y\n")

        assert "will touch 4 targets in 4 accounts" in refused.stdout
        assert "partitions: aws (3), aws-cn (1)" in refused.stdout
        assert "manage-role" in refused.stdout
        assert refused.code == 1
        assert refused.stdout.count('"reason": "not confirmed"') == 4
        assert granted.stdout.count('"status": "succeeded"') == 3


class TestProgress:
    def test_a_permanent_line_for_each_new_code(self, cli: CommandLine) -> None:
        """Above the live display stays one line for the first failure of a code, with its target."""
        (cli.folder / "jobs.py").write_text(JOB)
        done = cli.on_terminal("run", "jobs.py:where", *cli.all_accounts(), width=200)

        assert f"AccessDenied: {DENIED} sandbox us-east-1: cannot assume" in done.stdout or (
            f"AccessDenied: {DENIED} us-east-1: cannot assume" in done.stdout
        )
        assert "4 targets in" in done.stdout

    def test_each_new_code_has_one_line(self, cli: CommandLine) -> None:
        """Two failure codes over three accounts are two permanent lines; the end counts the others of a code."""
        (cli.folder / "jobs.py").write_text(
            "async def breaks(session):\n"
            "    raise (KeyError if session.account.id.endswith('1') else ValueError)(session.account.id)\n"
            "breaks.read_only = True\n"
        )
        done = cli.run("run", "jobs.py:breaks", *cli.all_accounts(), "--output", "text")
        shown = cli.on_terminal("run", "jobs.py:breaks", *cli.all_accounts(), width=200)

        for text in (done.stderr, shown.stdout):
            assert len(re.findall(r"KeyError: \d{12} (?:\S+ )?\w+-\w+-1: ", text)) == 1
            assert len(re.findall(r"ValueError: \d{12} (?:\S+ )?\w+-\w+-1: ", text)) == 1
            assert len(re.findall(r"AccessDenied: \d{12} (?:\S+ )?\w+-\w+-1: ", text)) == 1
            assert "KeyError: and 1 more" in text
            assert "ValueError: and" not in text

    def test_what_requests_wait_for(self, cli: CommandLine, tmp_path: Path) -> None:
        """While roles wait for the rate that STS allows, the display has a line with the rate and their number."""
        accounts = [Account(f"4{n:011d}") for n in range(12)]
        with SimulatedFleet([*accounts, Account("200000000001", "aws-cn")]) as fleet:
            many = CommandLine(fleet, tmp_path)
            (tmp_path / "slow.toml").write_text(
                "accounts = [" + ",".join(f'"{account.id}"' for account in accounts) + "]\n"
                '[sources.aws]\nprofile = "global"\n'
                '[[rate_limits]]\nservice = "sts"\nper = ["region"]\nrate = 4\nburst = 1\n'
            )
            done = many.on_terminal("check", "--fleet", "slow.toml", width=200)

        assert done.code == 0, done.stdout
        waiting = re.findall(r"STS: 4 roles a second, (\d+) waiting", done.stdout)
        assert waiting
        assert 1 <= int(waiting[0]) <= 11

    def test_no_progress_is_quiet(self, cli: CommandLine) -> None:
        """With `--no-progress` stderr is empty when all is well."""
        (cli.folder / "jobs.py").write_text(JOB)
        done = cli.run("run", "jobs.py:where", *cli.all_accounts(), "--exclude", DENIED, "--no-progress")

        assert (done.code, done.stderr) == (0, "")

    @pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_no_colours_where_none_are_wanted(self, cli: CommandLine, environ: dict[str, str]) -> None:
        """NO_COLOR and TERM=dumb keep every escape sequence out of a table."""
        parent, child = pty.openpty()
        process = fork_server.start(
            ["accounts", "--accounts", "100000000001"],
            cli.folder,
            {"TERM": "xterm-256color", **cli.environ, **environ},
            (child, child, child),
        )
        os.close(child)
        shown = b""
        try:
            while chunk := os.read(parent, 65536):
                shown += chunk
        except OSError:
            pass
        os.close(parent)

        assert process.wait() == 0
        assert b"100000000001" in shown
        assert b"\x1b" not in shown


def interrupt_at(text: str, arguments: list[str], cli: CommandLine) -> tuple[int, str]:
    """Run the program on a terminal that controls it, type Ctrl-C after a text, and return exit code and screen."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=cli.folder,
        env=cli.environ,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(child)
    shown, is_typed = b"", False
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
            if text.encode() in shown and not is_typed:
                os.write(parent, b"\x03")
                is_typed = True
    except OSError:  # EIO: the program has ended
        pass
    os.close(parent)
    return process.wait(), shown.decode()


class TestControlCharacters:
    def test_names_from_aws_cannot_move_the_cursor(self, cli: CommandLine) -> None:
        """An escape sequence that a job returns is escaped in JSON, and replaced in every other format."""
        (cli.folder / "evil.py").write_text(
            "async def evil(session):\n    return '\\x1b[2J\\u202egnp.exe\\n\\x9b31m'\n"
        )
        options = ("--accounts", "100000000001", *cli.profiles(), "--no-progress")
        table = cli.run("run", "evil.py:evil", *options, "--output", "table", COLUMNS="200")
        lines = cli.run("run", "evil.py:evil", *options)

        assert (table.code, table.stderr, lines.code, lines.stderr) == (0, "", 0, "")
        assert not UNPRINTABLE.search(table.stdout + lines.stdout)
        assert lines.records[0]["value"] == EVIL

    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_replaces_or_escapes_them(self, name: str) -> None:
        """No format writes an unprintable character of a value, a key or a column's name."""
        stream = io.StringIO()
        output = Output(("value",), format_name=name, stream=stream, query="{value: value}" if name == "text" else None)
        output.write({"value": {EVIL: [EVIL]}})
        output.close()

        assert "png" in stream.getvalue() or "gnp" in stream.getvalue()
        assert not UNPRINTABLE.search(stream.getvalue())


class TestInterruptions:
    @pytest.mark.parametrize(("number", "code", "size"), [(signal.SIGINT, 130, 500), (signal.SIGTERM, 143, 100)])
    def test_a_signal_during_many_accounts(self, tmp_path: Path, number: signal.Signals, code: int, size: int) -> None:
        """Ctrl-C ends with 130, SIGTERM with 143; what had finished is there, and the journal resumes."""
        accounts = [Account(f"3{n:011d}") for n in range(size)]
        with SimulatedFleet([*accounts, Account("200000000001", "aws-cn")]) as fleet:
            cli = CommandLine(fleet, tmp_path)
            (tmp_path / "slow.py").write_text(
                "import asyncio\nasync def slow(session):\n    await asyncio.sleep(0.5)\n    return 1\n"
            )
            (tmp_path / "accounts.txt").write_text("\n".join(account.id for account in accounts))
            options = ("run", "slow.py:slow", "--accounts", "@accounts.txt", "--profile", "global", "--yes")
            limit = ("--max-at-once", str(size // 5))
            process = cli.start(*options, *limit, "--journal", "j", "--no-progress", "--output", "text")
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(20)]
            process.send_signal(number)
            # Not communicate(), which does not read what readline() has buffered.
            lines += process.stdout.readlines()
            _, errors = process.communicate(timeout=60)
            done = [line.split("\t")[0] for line in lines]
            rest = [account.id for account in accounts if account.id not in done][:5]
            (tmp_path / "accounts.txt").write_text("\n".join([*done, *rest]))
            second = cli.run(*options, "--journal", "j", "--no-progress")

        assert process.returncode == code, errors
        assert "Traceback" not in errors
        assert 20 <= len(lines) < size
        assert all(line.count("\t") == 11 and line.endswith("\n") for line in lines)
        assert second.code == 0, second.stderr
        done_before = {each["account"] for each in second.records if each["reason"] == "done in an earlier run"}
        assert set(done) == done_before
        assert len(second.records) == len(done) + 5

    def test_ctrl_c_at_the_question(self, cli: CommandLine) -> None:
        """Ctrl-C while consent is requested ends with 130: no role was assumed, and there is no result to show."""
        (cli.folder / "jobs.py").write_text(JOB)
        code, screen = interrupt_at("Go on?", ["run", "jobs.py:changes", *cli.all_accounts(), "--no-progress"], cli)

        assert code == 130
        assert screen.partition("Go on? [y/N]")[2].strip(" ^C\r\n") == ""
        assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 0

    @pytest.mark.parametrize("name", FORMATS)
    def test_every_format_notices_a_closed_pipe(self, name: str) -> None:
        """A pipe without a reader is one exception of its own in every format, at the latest at the end."""
        reader, writer = os.pipe()
        os.close(reader)
        stream = io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True)
        output = Output(("value",), format_name=name, stream=stream)

        def write() -> None:
            output.write({"value": "x"})
            output.close()

        with pytest.raises(OutputClosedError):
            write()
        stream.close()

    @pytest.mark.parametrize("output", ["jsonl", "table"])
    def test_a_closed_pipe_is_quiet(self, cli: CommandLine, output: str) -> None:
        """A reader that closes the pipe ends the program with 141 and without a word."""
        (cli.folder / "many.py").write_text("async def many(session):\n    return 'x' * 100_000\n")
        command = [*PROGRAM, "run", "many.py:many", *cli.all_accounts(), "--yes", "--no-progress", "--output", output]
        read, write = os.pipe()
        process = subprocess.Popen(
            command, cwd=cli.folder, env=cli.environ, stdout=write, stderr=subprocess.PIPE, text=True
        )
        os.close(write)
        os.close(read)
        _, errors = process.communicate(timeout=60)

        assert (process.returncode, errors) == (141, "")

    def test_a_million_lines_into_head(self, cli: CommandLine) -> None:
        """A program that would write a million lines ends as soon as `head -1` has its line."""
        (cli.folder / "lines.py").write_text(
            textwrap.dedent(
                """
                from asyncauth.cli.output import Output
                from asyncauth.cli.endings import OutputClosedError
                from asyncauth.cli import program
                import click, sys
                written = 0
                @click.command()
                def lines():
                    global written
                    output = Output(("number",), format_name="jsonl")
                    for written in range(1_000_000):
                        output.write({"number": written})
                    output.close()
                program.program = lines
                code = program.run([])
                print(written, file=sys.stderr)
                sys.exit(code)
                """
            )
        )
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} lines.py | head -1; echo ${{PIPESTATUS[0]}}"],
            cwd=cli.folder,
            env=cli.environ,
            capture_output=True,
            text=True,
            check=True,
        )

        assert done.stdout == '{"number": 0}\n141\n'
        assert int(done.stderr) < 100_000


def test_the_scan_of_outputs_finds_a_planted_key(cli: CommandLine) -> None:
    """The check that every run of these tests passes finds a key of the fleet, except where keys belong."""
    secret = cli.fleet.keys().secret_access_key

    with pytest.raises(AssertionError, match="a secret is in the output"):
        check_output(["run"], f"x{secret}y")
    check_output(["credentials"], secret)
    for arguments in (("-vv",), ("--debug",)):
        done = cli.run("check", *cli.all_accounts(), *arguments)
        assert done.code == 1
        assert "DEBUG" in done.stderr
