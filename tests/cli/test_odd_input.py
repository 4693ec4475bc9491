"""Odd input: values that JSON lacks, queries that fail, closed streams, encodings, and files that cannot be used.

Whatever it is, the results of a run are written, and the exit code is the documented one.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncauth.cli.output import Output
from asyncauth.cli.programs import end_group
from asyncauth.cli.text import to_json
from tests.cli.conftest import DENIED
from tests.support.command_line import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command_line import CommandLine

ONE = ("--accounts", "100000000001", "--profile", "global", "--no-progress")


class Broken:
    """A value whose text is an error."""

    def __str__(self) -> str:
        raise ValueError("no text")


def in_itself() -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    value["self"] = value
    return value


class TestValues:
    @pytest.mark.parametrize(
        ("value", "found"),
        [
            (math.nan, "nan"),
            ([1.5, -math.inf], [1.5, "-inf"]),
            ({1: {"b"}, (2, 3): b"\xff"}, {"1": ["b"], "<tuple>": "\N{REPLACEMENT CHARACTER}"}),
            (Broken(), "<Broken>"),
            ({"x": Broken()}, {"x": "<Broken>"}),
        ],
        ids=["nan", "infinity", "keys", "broken", "broken in a mapping"],
    )
    def test_what_json_lacks_becomes_text(self, value: object, found: object) -> None:
        """An infinite number, a key that is no text and an object without a text are text in JSON, and end nothing."""
        assert json.loads(to_json(value)) == found

    def test_a_value_that_holds_itself_ends(self) -> None:
        """A mapping that holds itself is written to a bounded depth."""
        text = to_json(in_itself())

        assert 10 <= text.count('"self"') <= 30
        assert "<dict>" in text

    @given(
        st.recursive(st.none() | st.floats() | st.text() | st.binary(), lambda each: st.lists(each) | st.tuples(each))
    )
    def test_json_is_always_strict(self, value: object) -> None:
        """The text is JSON without NaN or Infinity, which other programs refuse, on one printable line."""

        def refuse(constant: str) -> None:
            pytest.fail(f"{constant} is no JSON")

        text = to_json(value)
        json.loads(text, parse_constant=refuse)

        assert text.isprintable()
        assert to_json(value, ascii_only=True).isascii()

    def test_a_run_with_such_values_is_complete(self, cli: CommandLine) -> None:
        """Each target has its record, whatever its job has returned, in every format."""
        (cli.folder / "odd.py").write_text(
            "async def odd(session):\n    value = {'n': float('nan')}\n    value['self'] = value\n    return value\n"
            "odd.read_only = True\n"
        )
        for name in ("jsonl", "table"):
            done = cli.run("run", "odd.py:odd", *cli.all_accounts(), "--no-progress", "--output", name)

            assert done.code == 1, done.stderr
            assert done.stdout.count("succeeded") == 3
            assert "Traceback" not in done.stderr


class TestQueries:
    @pytest.mark.parametrize("name", ["jsonl", "json", "table", "csv"])
    def test_a_query_that_fails_leaves_the_record_whole(self, name: str) -> None:
        """A query that fails on a record writes that record whole and the others as it finds them, then raises."""
        stream = io.StringIO()
        output = Output(
            ("value",),
            format_name=name,
            query="length(value)" if name == "jsonl" else "[].length(value)",
            stream=stream,
        )
        for value in ("text", 7):
            output.write({"value": value})
        with pytest.raises(click.UsageError, match="failed, and the record is written whole"):
            output.close()

        expected = {"jsonl": '4\n{"value": 7}\n', "csv": "value\ntext\n7\n"}
        assert stream.getvalue() == expected.get(name, stream.getvalue())
        assert "7" in stream.getvalue()

    def test_the_run_goes_on(self, cli: CommandLine) -> None:
        """The query's failure in one target is exit code 2 at the end; every target has run and has its record."""
        (cli.folder / "mixed.py").write_text(
            "async def mixed(session):\n    return 'text' if session.account.id.endswith('1') else 7\n"
            "mixed.read_only = True\n"
        )
        accounts = ("--exclude", DENIED, "--no-progress")
        done = cli.run("run", "mixed.py:mixed", *cli.all_accounts(), *accounts, "--query", "length(value)")

        assert done.code == 2
        assert sorted(line[:1] for line in done.stdout.splitlines()) == ["4", "4", "{"]
        assert done.stderr.count("--query 'length(value)' failed") == 1


class TestStreams:
    @pytest.mark.parametrize(
        ("closed", "code"), [("<&-", 0), (">&-", 0), ("2>&-", 0), (">/dev/full", 1), ("2>/dev/full", 0)]
    )
    def test_a_closed_or_full_stream(self, cli: CommandLine, closed: str, code: int) -> None:
        """A stream that is closed or on a full disk is no traceback and no warning; the exit code is right."""
        done = subprocess.run(
            ["bash", "-c", f"{' '.join(PROGRAM)} whoami --profile global {closed}"],
            cwd=cli.folder,
            env=cli.environ,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "Warning" not in done.stderr
        assert ("199999999999" in done.stdout) == (">" not in closed or closed.startswith("2"))

    @pytest.mark.parametrize(
        ("arguments", "code"), [("check --accounts 100000000001 --profile global", 0), ("whoami --missing", 2)]
    )
    def test_a_message_that_cannot_be_written(self, cli: CommandLine, arguments: str, code: int) -> None:
        """A note or a usage error that stderr does not take changes no exit code."""
        done = subprocess.run(
            ["bash", "-c", f"{' '.join(PROGRAM)} {arguments} 2>/dev/full"],
            cwd=cli.folder,
            env=cli.environ,
            capture_output=True,
            check=False,
        )

        assert done.returncode == code

    def test_an_encoding_without_a_character(self, cli: CommandLine) -> None:
        """In ASCII JSON escapes the character, and a table shows its number."""
        (cli.folder / "named.py").write_text("async def named(session):\n    return 'Zürich'\n", encoding="utf-8")
        arguments = ("run", "named.py:named", *ONE)
        environ = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
        lines = cli.run(*arguments, **environ)
        table = cli.run(*arguments, "--output", "table", **environ)

        assert (lines.code, table.code) == (0, 0), lines.stderr + table.stderr
        assert lines.records[0]["value"] == "Zürich"
        assert lines.stdout.isascii()
        assert "Z\\xfcrich" in table.stdout

    def test_a_closed_pipe_of_exec_is_quiet(self, cli: CommandLine) -> None:
        """A reader that closes the pipe of `exec` is no failure of a target: 141, and no code in the progress."""
        code = "import sys\nwhile True: sys.stdout.write('x' * 1000 + chr(10))"
        command = [*PROGRAM, "exec", *cli.all_accounts(), "--exclude", DENIED, "--yes"]
        process = subprocess.Popen(
            [*command, "--", sys.executable, "-c", code],
            cwd=cli.folder,
            env=cli.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        process.stderr.close()

        assert process.wait(60) == 141
        assert errors == ""


@pytest.mark.anyio
async def test_a_program_that_is_ended_leaks_no_pipe() -> None:
    """More than the pipes hold, written by a program when it is ended, is read, so that its pipes are closed."""
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'x' * 170_000), os._exit(0)))\n"
        "os.write(2, b'.')\ntime.sleep(600)"
    )
    before = len(os.listdir("/proc/self/fd"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    assert process.stderr is not None
    await process.stderr.read(1)
    await end_group(process)

    assert process.returncode == 0
    assert len(os.listdir("/proc/self/fd")) <= before


class TestOptions:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("check", *ONE, "--timeout", "0"), "timeout=0.0 must be more than 0 seconds"),
            (("check", *ONE, "--timeout", "nan"), "timeout=nan must be a finite number"),
            (("accounts", "--accounts", "100000000001", "--partition", "aws-moon"), "--partition: unknown partition"),
            (("accounts", "--accounts", "100000000001", "--via", "hub"), "--via 'hub' must be the ARN of a role"),
            (("accounts", "--accounts", "100000000001", "--role", ""), "role"),
            (("accounts", "--accounts", ""), "--accounts': it is empty"),
            (("accounts", "--ou", " , "), "--ou': it is empty"),
            (("accounts", "--accounts", "100000000001", "--exclude", ""), "--exclude': it is empty"),
            (("run", "jobs.py:x", *ONE, "--regions", ""), "--regions': it is empty"),
            (("run", "jobs.py:x", *ONE, "--failure-tolerance", "200%"), "from 0% to 100%"),
            (("run", "jobs.py:x", *ONE, "--failure-tolerance", "nan%"), "from 0% to 100%"),
            (("credentials", "100000000001", "--duration-seconds", "0"), "duration_seconds must be from 900"),
            (("exec", *ONE, "--", ""), "COMMAND is empty"),
            (("profiles", "--accounts", "100000000001", "--prefix", "x]\n[profile y"), "--prefix"),
        ],
        ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
    )
    def test_a_value_that_is_none_is_a_usage_error(
        self, cli: CommandLine, arguments: tuple[str, ...], message: str
    ) -> None:
        """A value that is empty or out of range is exit code 2 and named; nothing is reached with another one."""
        (cli.folder / "jobs.py").write_text("async def x(session):\n    return 1\n")
        done = cli.run(*arguments)

        assert (done.code, done.stdout) == (2, ""), done.stderr
        assert message in done.stderr
        assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 0

    @pytest.mark.parametrize("accounts", ["-", "@empty.txt"])
    def test_an_empty_file_selects_nothing(self, cli: CommandLine, accounts: str) -> None:
        """Accounts from an empty file are none: those of a fleet file are not taken in their place."""
        (cli.folder / "empty.txt").write_text("# none today\n")
        (cli.folder / "asyncauth.toml").write_text('accounts = ["100000000001"]\n[sources.aws]\nprofile = "global"\n')
        for fleet in ((), ("--fleet", "asyncauth.toml")):
            done = cli.run("accounts", "--accounts", accounts, *fleet)

            assert (done.code, done.stdout) == (3, "")
            assert "what it reads is empty" in done.stderr


class TestFiles:
    def test_a_byte_order_mark(self, cli: CommandLine) -> None:
        """A file of accounts, or stdin, can begin with a byte order mark, as editors on Windows write it."""
        (cli.folder / "accounts.txt").write_text("\ufeff100000000001\n", encoding="utf-8")
        done = cli.run("accounts", "--accounts", "@accounts.txt,-", stdin="\ufeff100000000002\n")

        assert [each["account"] for each in done.records] == ["100000000001", "100000000002"], done.stderr

    @pytest.mark.parametrize("content", ["import sys\nsys.exit(0)\n", "raise SystemExit\n"])
    def test_a_job_file_that_ends_the_program(self, cli: CommandLine, content: str) -> None:
        """A script that exits when it is imported is a usage error, not a success."""
        (cli.folder / "script.py").write_text(content)
        done = cli.run("run", "script.py:main", *ONE)

        assert done.code == 2
        assert "it ends the program (SystemExit)" in done.stderr

    def test_a_configuration_that_cannot_be_written(self, cli: CommandLine) -> None:
        """`profiles --write` names the file that it cannot write, and why, with exit code 4."""
        (cli.folder / "file").touch()
        path = str(cli.folder / "file" / "config")
        done = cli.run("profiles", "--accounts", "100000000001", "--write", AWS_CONFIG_FILE=path)

        assert done.code == 4
        assert f"{path} cannot be written: " in done.stderr

    def test_an_output_folder_that_cannot_be_made(self, cli: CommandLine) -> None:
        """`--exec-output dir=PATH` with an unusable path is a usage error before anything runs."""
        (cli.folder / "file").touch()
        done = cli.run("exec", *ONE, "--exec-output", "dir=file/x", "--", "true")

        assert done.code == 2
        assert "--exec-output 'dir=file/x' cannot be created: " in done.stderr
        assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 0

    @pytest.mark.parametrize("command", [("credentials", "100000000001"), ("check", "--accounts", "100000000001")])
    def test_a_cache_that_cannot_be_made_is_one_note(self, cli: CommandLine, command: tuple[str, ...]) -> None:
        """A directory of the cache that cannot be made costs the cache, not the command: one note has the reason."""
        done = cli.run(*command, "--profile", "global", "--cache", XDG_CACHE_HOME="/proc/x")

        assert done.code == 0, done.stderr
        assert done.stderr.count("tokens are not kept in files: the directory of the cache cannot be used") == 1


def test_a_stream_that_was_closed_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stream that is None gets a file that takes everything, and that no collector warns about."""
    from asyncauth.cli import program

    monkeypatch.setattr(sys, "stdout", None)
    program._open_streams()
    stream: Any = sys.stdout
    stream.write("x")
    stream.flush()
    descriptor = stream.fileno()
    del stream
    monkeypatch.undo()

    os.close(descriptor)  # it is the program's, for as long as it runs
