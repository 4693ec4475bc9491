"""Commands: every verb as a process against the simulated fleet, with pipes: stdout parsed, stderr apart."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from asyncauth.cli.program import COMMANDS
from tests.cli.conftest import DENIED
from tests.support.command_line import PROGRAM, ROOT, CommandLine

IMPORTED = (
    "print([n for n in sys.modules if n.partition('.')[0] in ('botocore', 'aiobotocore', 'rich')], file=sys.stderr)"
)
MANAGE_ROLES = ("arn:aws:iam::100000000001:role/manage-role", "arn:aws-cn:iam::200000000001:role/manage-role")


def counting_imports(arguments: list[str]) -> list[str]:
    """Return a command that runs the program, and lists on stderr what it imported."""
    lines = (
        "import sys",
        "from asyncauth.__main__ import main",
        f"sys.argv[1:] = {arguments}",
        "code = main()",
        IMPORTED,
        "sys.exit(code)",
    )
    return [sys.executable, "-c", "\n".join(lines)]


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and whose parent has not read that does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def write_job(folder: Path, body: str) -> str:
    """Write a file of jobs, and return its name."""
    (folder / "jobs.py").write_text(textwrap.dedent(body))
    return "jobs.py"


class TestHelp:
    @pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
    def test_help_imports_no_botocore(self, arguments: list[str]) -> None:
        """The help of the program and of each command imports neither botocore nor rich, and exits with 0."""

        done = subprocess.run(counting_imports(arguments), cwd=ROOT, capture_output=True, text=True, check=False)

        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == "[]"
        assert "asyncauth" in done.stdout

    def test_a_missing_extra_is_named(self, tmp_path: Path) -> None:
        """Without click the command prints one line that names the extra, and exits with 4."""
        code = (
            "import sys\nsys.modules['click'] = None\nimport importlib.util as u\nreal = u.find_spec\n"
            "u.find_spec = lambda name: None if name == 'click' else real(name)\n"
            "from asyncauth.__main__ import main\nsys.exit(main())"
        )

        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

        assert done.returncode == 4
        assert done.stderr == "asyncauth: the command line needs click: run pip install 'asyncauth[cli]'\n"
        assert done.stdout == ""

    def test_a_typo_names_the_nearest(self, cli: CommandLine) -> None:
        """A wrong command or option is a usage error that names the nearest one, with exit code 2."""
        command = cli.run("inventry") if "inventory" in COMMANDS else cli.run("acounts")
        option = cli.run("whoami", "--ouput", "json")

        assert (command.code, option.code) == (2, 2)
        assert "Did you mean" in command.stderr
        assert "--output" in option.stderr
        assert command.stdout == option.stdout == ""


class TestWhoami:
    def test_both_partitions(self, cli: CommandLine) -> None:
        """One record for each partition's source, with the identity that STS returned."""
        done = cli.run("whoami", *cli.profiles())

        assert done.code == 0, done.stderr
        assert [(each["partition"], each["account"]) for each in done.records] == [
            (name, cli.fleet.management(name).id) for name in ("aws", "aws-cn")
        ]
        assert all(":user/" in each["arn"] for each in done.records)

    def test_no_credentials(self, cli: CommandLine) -> None:
        """Without base credentials the exit code is 4, and stderr has one paragraph and no traceback."""
        done = cli.run("whoami")

        assert done.code == 4
        assert done.stdout == ""
        assert "asyncauth: error:" in done.stderr
        assert "Traceback" not in done.stderr

    def test_debug_shows_the_traceback(self, cli: CommandLine) -> None:
        """`--debug` adds the traceback."""
        done = cli.run("whoami", "--debug")

        assert done.code == 4
        assert "Traceback" in done.stderr

    @pytest.mark.parametrize("variable", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
    def test_the_profile_of_the_environment(self, cli: CommandLine, variable: str) -> None:
        """The variables of the AWS CLI select the profile."""
        done = cli.run("whoami", "--partition", "aws-cn", **{variable: "china"})

        assert done.code == 0, done.stderr
        assert done.records[0]["account"] == cli.fleet.management("aws-cn").id

    def test_the_region_of_the_environment(self, cli: CommandLine) -> None:
        """AWS_REGION is honoured, which botocore alone does not read."""
        keys = cli.fleet.keys()
        done = cli.run(
            "whoami",
            AWS_REGION="eu-west-1",
            AWS_ACCESS_KEY_ID=keys.access_key_id,
            AWS_SECRET_ACCESS_KEY=keys.secret_access_key,
        )

        assert done.code == 0, done.stderr
        assert done.records[0]["region"] == "eu-west-1"


class TestCheck:
    def test_the_reachable_and_the_others(self, cli: CommandLine) -> None:
        """Each account has a record; the denied one has its probable causes, and the exit code is 1."""
        done = cli.run("check", *cli.all_accounts())

        assert done.code == 1, done.stderr
        reachable = {each["account"]: each["reachable"] for each in done.records}
        assert reachable == {account.id: account.id != DENIED for account in cli.fleet.accounts}
        denied = next(each for each in done.records if each["account"] == DENIED)
        assert "trust policy" in denied["causes"]
        assert "3 of 4 accounts can be reached" in done.stderr

    def test_all_reachable_is_a_success(self, cli: CommandLine) -> None:
        """The exit code is 0 if every account can be reached, and `--exclude` leaves one out."""
        done = cli.run("check", *cli.all_accounts(), "--exclude", DENIED)

        assert done.code == 0
        assert len(done.records) == 3

    def test_nothing_matched(self, cli: CommandLine) -> None:
        """A selection without an account ends with exit code 3."""
        done = cli.run("check", *cli.all_accounts(), "--exclude", "*")

        assert done.code == 3
        assert done.stdout == ""

    def test_bad_base_credentials(self, cli: CommandLine) -> None:
        """Keys that STS does not know end with exit code 4."""
        done = cli.run(
            "check", "--accounts", "100000000001", AWS_ACCESS_KEY_ID="AKIAWRONG", AWS_SECRET_ACCESS_KEY="wrong"
        )

        assert done.code == 4, done.stdout + done.stderr

    def test_a_profile_that_does_not_exist(self, cli: CommandLine) -> None:
        """A missing profile is exit code 4 in every command that reaches accounts: it is no failure of a target."""
        job = write_job(cli.folder, TestRun.JOB)
        accounts = ("--accounts", "100000000001", "--profile", "missing")
        codes = [
            cli.run(*command, *accounts, "--no-progress").code
            for command in (("check",), ("run", f"{job}:who"), ("inventory", "ec2:vpc"))
        ]

        assert codes == [4, 4, 4]
        assert cli.run("credentials", "100000000001", "--profile", "missing").code == 4


class TestSelection:
    def test_files_and_stdin(self, cli: CommandLine) -> None:
        """`@file` and `-` are read with comments, commas and blank lines; an account given twice counts once."""
        (cli.folder / "accounts.txt").write_text("100000000001, 100000000002  # two\n\n# none\n")
        done = cli.run("accounts", "--accounts", "@accounts.txt,-", stdin="100000000002\n100000000003\n")

        assert [each["account"] for each in done.records] == ["100000000001", "100000000002", "100000000003"]

    def test_the_partition_of_bare_ids(self, cli: CommandLine) -> None:
        """`--partition` holds for ids, and a role ARN has its own."""
        arn = "arn:aws:iam::100000000001:role/team/deploy"
        done = cli.run("accounts", "--accounts", f"200000000001,{arn}", "--partition", "aws-cn")

        assert [each["role"] for each in done.records] == ["arn:aws-cn:iam::200000000001:role/manage-role", arn]

    @pytest.mark.parametrize("accounts", ["12345", "1e11", "@missing.txt", "arn:aws:iam::1:role/x"])
    def test_a_bad_account_is_a_usage_error(self, cli: CommandLine, accounts: str) -> None:
        """A wrong account ends with exit code 2, and is named."""
        done = cli.run("accounts", "--accounts", accounts)

        assert done.code == 2
        assert done.stdout == ""
        assert "Error: " in done.stderr

    def test_control_characters_never_reach_the_output(self, cli: CommandLine) -> None:
        """An escape sequence in an argument that is quoted back is replaced."""
        done = cli.run("accounts", "--accounts", "\x1b[31m123")

        assert done.code == 2
        assert "\x1b" not in done.stderr


class TestRun:
    JOB = """
        async def who(session):
            async with session.client("sts") as sts:
                return {"arn": (await sts.get_caller_identity())["Arn"], "region": session.region_name}
        who.read_only = True

        async def changes(session):
            return 1

        def fails(session):
            raise ValueError(f"broken in {session.account.id}")
        fails.read_only = True
    """

    def test_values_are_in_the_output(self, cli: CommandLine) -> None:
        """Each target has a record with the job's value; the denied account fails, so the exit code is 1."""
        job = write_job(cli.folder, self.JOB)
        done = cli.run("run", f"{job}:who", *cli.all_accounts())

        assert done.code == 1
        by_account = {each["account"]: each for each in done.records}
        assert by_account["200000000001"]["value"]["arn"].startswith("arn:aws-cn:sts::200000000001:assumed-role/")
        assert by_account["100000000001"]["status"] == "succeeded"
        assert by_account[DENIED]["error_code"] == "AccessDenied"
        assert f"AccessDenied: {DENIED}" in done.stderr

    @pytest.mark.parametrize(("fail_on", "code"), [("any", 1), ("all", 0), ("never", 0)])
    def test_fail_on(self, cli: CommandLine, fail_on: str, code: int) -> None:
        """`--fail-on` decides whether one failure of several targets is exit code 1."""
        job = write_job(cli.folder, self.JOB)

        assert cli.run("run", f"{job}:who", *cli.all_accounts(), "--fail-on", fail_on).code == code

    def test_all_failed(self, cli: CommandLine) -> None:
        """Under `--fail-on all` a run in which every target failed is exit code 1."""
        job = write_job(cli.folder, self.JOB)
        done = cli.run("run", f"{job}:fails", "--accounts", "100000000001", *cli.profiles(), "--fail-on", "all")

        assert done.code == 1
        assert done.records[0]["error"] == "ValueError: broken in 100000000001"

    def test_without_a_terminal_consent_is_refused(self, cli: CommandLine) -> None:
        """A job over several accounts that is not read-only needs `--yes`; nothing is assumed before."""
        job = write_job(cli.folder, self.JOB)
        done = cli.run("run", f"{job}:changes", *cli.all_accounts())

        assert done.code == 2
        assert "--yes" in done.stderr
        assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 0
        assert cli.run("run", f"{job}:changes", *cli.all_accounts(), "--yes", "--fail-on", "all").code == 0

    def test_one_account_needs_no_consent(self, cli: CommandLine) -> None:
        """A job in one account runs at once."""
        job = write_job(cli.folder, self.JOB)
        done = cli.run("run", f"{job}:changes", "--accounts", "100000000001", *cli.profiles())

        assert done.code == 0
        assert done.records[0]["value"] == 1

    def test_a_dry_run_calls_no_job(self, cli: CommandLine) -> None:
        """`--dry-run` reaches the accounts, and succeeds without a call of the job."""
        job = write_job(cli.folder, self.JOB)
        done = cli.run("run", f"{job}:fails", "--accounts", "100000000001", *cli.profiles(), "--dry-run")

        assert done.code == 0
        assert done.records[0]["reason"] == "dry run"

    def test_a_journal_resumes(self, cli: CommandLine) -> None:
        """A second run with the journal does only what failed; a run that has nothing left to do succeeds."""
        job = write_job(cli.folder, self.JOB)
        options = ("run", f"{job}:changes", "--accounts", "100000000001,100000000002", *cli.profiles(), "--yes")
        first = cli.run(*options, "--journal", "run.journal")
        second = cli.run(*options, "--journal", "run.journal")

        assert (first.code, second.code) == (0, 0)
        assert {each["status"] for each in second.records} == {"skipped"}

    @pytest.mark.parametrize("job", ["jobs", "jobs.py:", "missing.py:x", "jobs.py:missing", "no.such.module:x"])
    def test_a_bad_job_is_a_usage_error(self, cli: CommandLine, job: str) -> None:
        """A job that cannot be loaded ends with exit code 2, and is named."""
        write_job(cli.folder, self.JOB)
        done = cli.run("run", job, "--accounts", "100000000001")

        assert done.code == 2
        assert "JOB" in done.stderr

    def test_a_module_of_the_working_folder(self, cli: CommandLine) -> None:
        """`module:function` is found in the working folder."""
        write_job(cli.folder, self.JOB)
        done = cli.run("run", "jobs:who", "--accounts", "100000000001", *cli.profiles(), "--regions", "us-*")

        assert done.code == 0, done.stderr
        assert {each["value"]["region"] for each in done.records} >= {"us-east-1", "us-west-2"}


class TestFormats:
    @pytest.fixture
    def accounts(self, cli: CommandLine) -> tuple[str, ...]:
        return ("accounts", "--accounts", "100000000002,100000000001")

    def test_json_is_one_list(self, cli: CommandLine, accounts: tuple[str, ...]) -> None:
        """`json` prints one list, and `--query` is over the list."""
        assert len(json.loads(cli.run(*accounts, "--output", "json").stdout)) == 2
        query = cli.run(*accounts, "--output", "json", "--query", "[?account=='100000000001'].role | [0]")

        assert json.loads(query.stdout) == "arn:aws:iam::100000000001:role/manage-role"

    def test_json_lines_query_each_record(self, cli: CommandLine, accounts: tuple[str, ...]) -> None:
        """With `jsonl` the query is over each record."""
        done = cli.run(*accounts, "--output", "jsonl", "--query", "account")

        assert done.stdout == '"100000000002"\n"100000000001"\n'

    def test_text_is_separated_by_tabs(self, cli: CommandLine, accounts: tuple[str, ...]) -> None:
        """`text` has one line a record, with tabs and None, as the AWS CLI prints it."""
        done = cli.run(*accounts, "--output", "text", "--columns", "account,name,partition")

        assert done.stdout == "100000000002\tNone\taws\n100000000001\tNone\taws\n"

    def test_csv_has_a_header(self, cli: CommandLine, accounts: tuple[str, ...]) -> None:
        """`csv` can be read by a CSV reader, the header first; `--sort` orders it."""
        done = cli.run(*accounts, "--output", "csv", "--sort", "account", "--columns", "account,partition")

        assert list(csv.reader(io.StringIO(done.stdout))) == [
            ["account", "partition"],
            ["100000000001", "aws"],
            ["100000000002", "aws"],
        ]

    @pytest.mark.parametrize(("option", "value"), [("--query", "["), ("--columns", "nope"), ("--sort", "nope")])
    def test_a_bad_option_is_a_usage_error(
        self, cli: CommandLine, accounts: tuple[str, ...], option: str, value: str
    ) -> None:
        """A query that is no JMESPath and a column that does not exist end with exit code 2."""
        done = cli.run(*accounts, option, value)

        assert done.code == 2
        assert value in done.stderr


class TestCredentials:
    @pytest.mark.parametrize(
        "account", ["arn:aws:iam::100000000001:role/manage-role", "arn:aws-cn:iam::200000000001:role/manage-role"]
    )
    def test_the_process_format(self, cli: CommandLine, account: str) -> None:
        """The output is what credential_process expects, and STS knows the keys."""
        profile = "china" if "aws-cn" in account else "global"
        done = cli.run("credentials", account, "--profile", profile)
        found = json.loads(done.stdout)

        assert found["Version"] == 1
        assert set(found) == {"Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"}
        who = cli.run(
            "whoami",
            "--partition",
            account.split(":")[1],
            AWS_ACCESS_KEY_ID=found["AccessKeyId"],
            AWS_SECRET_ACCESS_KEY=found["SecretAccessKey"],
            AWS_SESSION_TOKEN=found["SessionToken"],
            AWS_DEFAULT_REGION="cn-north-1" if "aws-cn" in account else "us-east-1",
        )
        assert who.records[0]["account"] == account.split(":")[4]

    def test_a_shell_can_evaluate_it(self, cli: CommandLine) -> None:
        """`--format env` sets the variables of a shell, whatever characters the keys have."""
        done = cli.run("credentials", "100000000001", "--profile", "global", "--format", "env")
        shell = subprocess.run(
            ["bash", "-c", f"{done.stdout}\nprintenv AWS_SECRET_ACCESS_KEY"], capture_output=True, text=True, check=True
        )

        assert len(shell.stdout.strip()) > 20
        assert (
            cli.run("credentials", "100000000001", "--profile", "global", "--format", "fish").stdout.count("set -gx")
            == 4
        )
        assert (
            "$Env:AWS_SESSION_TOKEN = '"
            in cli.run("credentials", "100000000001", "--profile", "global", "--format", "powershell").stdout
        )

    @pytest.mark.parametrize(("name", "line"), [("fish", "set -gx AWS_"), ("powershell", "$Env:AWS_")])
    def test_other_shells(self, cli: CommandLine, name: str, line: str) -> None:
        """fish and PowerShell get an assignment of each of the four variables."""
        done = cli.run("credentials", "100000000001", "--profile", "global", "--format", name)

        assert done.stdout.count(line) == 4

    def test_a_denied_role(self, cli: CommandLine) -> None:
        """A role that STS denies ends with exit code 1, and prints nothing on stdout."""
        done = cli.run("credentials", DENIED, "--profile", "global")

        assert done.code == 1
        assert done.stdout == ""
        assert "AccessDenied" in done.stderr

    def test_a_cached_token_needs_no_botocore(self, cli: CommandLine) -> None:
        """With `--cache` the second call makes no AssumeRole, prints the same keys, and imports no botocore.

        A cached token ends by the local clock, whole seconds rounded down: up to a second before STS's own date.
        """
        arguments = ["credentials", "100000000001", "--profile", "global", "--cache"]
        first = cli.run(*arguments)
        second = subprocess.run(
            counting_imports(arguments), cwd=cli.folder, env=cli.environ, capture_output=True, text=True, check=False
        )

        assert first.code == second.returncode == 0, first.stderr + second.stderr
        assumed, cached = json.loads(first.stdout), json.loads(second.stdout)
        ends = [datetime.fromisoformat(each.pop("Expiration")) for each in (cached, assumed)]
        assert cached == assumed
        assert timedelta(0) <= ends[1] - ends[0] <= timedelta(seconds=1)
        assert second.stderr.strip() == "[]"
        assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 1

    def test_another_source_is_not_served(self, cli: CommandLine) -> None:
        """Other base credentials, another role or external id never get the cached token."""
        arguments = ("credentials", "100000000001", "--cache")
        cli.run(*arguments, "--profile", "global")
        other = cli.fleet.blocking.add_identity("other")
        done = cli.run(*arguments, AWS_ACCESS_KEY_ID=other.access_key_id, AWS_SECRET_ACCESS_KEY=other.secret_access_key)
        cli.run(*arguments, "--profile", "global", "--external-id", "xyz")

        assert done.code == 0, done.stderr
        assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 3


class TestConsole:
    @pytest.mark.parametrize(
        ("account", "host"),
        [
            ("100000000001", "console.aws.amazon.com"),
            (MANAGE_ROLES[1], "console.amazonaws.cn"),
        ],
    )
    def test_a_sign_in_url(self, cli: CommandLine, account: str, host: str) -> None:
        """The URL has the token that the federation endpoint returned, and the console of the partition."""
        done = cli.run("console", account, *cli.profiles(), "--destination", "ec2/home")

        assert done.code == 0, done.stderr
        query = parse_qs(urlsplit(done.stdout.strip()).query)
        assert query["Action"] == ["login"]
        assert query["Destination"] == [f"https://{host}/ec2/home"]
        assert len(query["SigninToken"][0]) > 40
        assert cli.fleet.blocking.counts().calls("signin", "GetSigninToken") == 1

    def test_an_endpoint_over_plain_http_is_refused(self, cli: CommandLine) -> None:
        """Credentials are not sent over plain http to another machine."""
        done = cli.run("console", "100000000001", *cli.profiles(), AWS_ENDPOINT_URL_SIGNIN="http://signin.example")

        assert done.code == 4
        assert "http" in done.stderr


class TestProfiles:
    def test_a_fragment_for_every_account(self, cli: CommandLine) -> None:
        """Each account has a section with its region and the command that prints its credentials."""
        done = cli.run("profiles", *cli.all_accounts(), "--prefix", "x-")

        assert done.code == 0, done.stderr
        assert done.stdout.count("[profile x-") == 4
        assert "credentials arn:aws-cn:iam::200000000001:role/manage-role --profile china --cache" in done.stdout
        assert "region = cn-north-1" in done.stdout

    def test_writing_keeps_what_is_there(self, cli: CommandLine) -> None:
        """`--write` adds one block, replaces it the second time, and keeps a copy, the mode and all other lines."""
        config = cli.folder / "home" / ".aws" / "config"
        before = config.read_text()
        for _ in range(2):
            done = cli.run("profiles", *cli.all_accounts(), "--write")
            assert done.code == 0, done.stderr
            assert done.stdout == ""

        after = config.read_text()
        assert after.startswith(before)
        assert after.count("# >>> profiles of asyncauth >>>") == 1
        assert oct(config.stat().st_mode & 0o777) == "0o600"
        assert any(path.read_text() == before for path in config.parent.glob("config.asyncauth-*.bak"))

    def test_a_profile_of_the_user_is_not_replaced(self, cli: CommandLine) -> None:
        """A profile of the same name outside of the block is an error, and the file stays as it is."""
        config = cli.folder / "home" / ".aws" / "config"
        config.write_text(config.read_text() + "\n[profile 100000000001]\nregion = us-east-1\n")
        before = config.read_text()
        done = cli.run("profiles", *cli.all_accounts(), "--write")

        assert done.code == 4
        assert "--prefix" in done.stderr
        assert config.read_text() == before


class TestExec:
    SHOW = "import os; e = os.environ;print(e['ASYNCAUTH_ACCOUNT_ID'], e['ASYNCAUTH_PARTITION'], e['AWS_REGION'])"

    def accounts(self, cli: CommandLine) -> tuple[str, ...]:
        return (*cli.all_accounts(), "--exclude", DENIED, "--yes", "--no-progress")

    def test_lines_have_a_prefix(self, cli: CommandLine) -> None:
        """Each line of a program comes with its account and region; the environment names them as well."""
        done = cli.run("exec", *self.accounts(cli), "--", sys.executable, "-c", self.SHOW)

        assert done.code == 0, done.stderr
        assert sorted(done.stdout.splitlines()) == [
            "100000000001/us-east-1: 100000000001 aws us-east-1",
            "100000000002/us-east-1: 100000000002 aws us-east-1",
            "200000000001/cn-north-1: 200000000001 aws-cn cn-north-1",
        ]

    @pytest.mark.parametrize("static", [(), ("--static-keys",)])
    def test_a_program_acts_in_its_account(self, cli: CommandLine, static: tuple[str, ...]) -> None:
        """boto3 in the program finds the account's credentials, refreshing or static, and no profile of the caller."""
        code = (
            "import boto3, os; assert not {'AWS_PROFILE', 'AWS_DEFAULT_PROFILE', 'AWS_VAULT'} & set(os.environ);"
            "print(boto3.client('sts').get_caller_identity()['Arn'])"
        )
        done = cli.run(
            "exec", *self.accounts(cli), *static, "--", sys.executable, "-W", "ignore", "-c", code, AWS_VAULT="x"
        )

        assert done.code == 0, done.stderr
        assert "200000000001/cn-north-1: arn:aws-cn:sts::200000000001:assumed-role/manage-role" in done.stdout
        assert done.stdout.count("assumed-role") == 3

    def test_an_exit_code_is_a_failure(self, cli: CommandLine) -> None:
        """A code other than 0 fails the target; the JSON line has code, stdout and stderr."""
        code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
        done = cli.run(
            "exec",
            "--accounts",
            "100000000001",
            *cli.profiles(),
            "--exec-output",
            "jsonl",
            "--",
            sys.executable,
            "-c",
            code,
        )

        assert done.code == 1
        record = done.records[0]
        assert (record["status"], record["code"], record["stdout"], record["stderr"]) == ("failed", 7, "out\n", "err\n")
        assert record["error_code"] == "ExitCode7"

    def test_files_of_each_target(self, cli: CommandLine) -> None:
        """`dir=PATH` writes two files a target, which only the user can find."""
        done = cli.run("exec", *self.accounts(cli), "--exec-output", "dir=logs", "--", sys.executable, "-c", self.SHOW)

        assert done.code == 0
        assert done.stdout == ""
        logs = cli.folder / "logs"
        assert (logs / "100000000001-us-east-1.stdout.log").read_text() == "100000000001 aws us-east-1\n"
        assert len(list(logs.iterdir())) == 6
        assert oct(logs.stat().st_mode & 0o777) == "0o700"

    def test_blocks(self, cli: CommandLine) -> None:
        """`group` writes the output of a target as one block with a header."""
        done = cli.run("exec", *self.accounts(cli), "--exec-output", "group", "--", sys.executable, "-c", self.SHOW)

        assert "==> 100000000001/us-east-1: ok\n100000000001 aws us-east-1\n" in done.stdout

    def test_stdin_is_closed_or_the_same(self, cli: CommandLine) -> None:
        """A program reads nothing from stdin; with `--stdin` each reads the same bytes."""
        code = "import sys; print(len(sys.stdin.read()))"
        closed = cli.run("exec", *self.accounts(cli), "--", sys.executable, "-c", code, stdin="x" * 100_000)
        given = cli.run("exec", *self.accounts(cli), "--stdin", "--", sys.executable, "-c", code, stdin="x" * 100_000)

        assert [line.split(": ")[1] for line in closed.stdout.splitlines()] == ["0"] * 3
        assert [line.split(": ")[1] for line in given.stdout.splitlines()] == ["100000"] * 3

    def test_options_of_the_program_stay_its_own(self, cli: CommandLine) -> None:
        """What follows `--` goes to the program unchanged, `--` and options of this command included."""
        code = "import sys; print(sys.argv[1:])"
        done = cli.run(
            "exec", "--accounts", "100000000001", *cli.profiles(), "--", sys.executable, "-c", code, "--yes", "--", "-x"
        )

        assert done.stdout.strip().endswith("['--yes', '--', '-x']")

    def test_a_program_that_does_not_exist(self, cli: CommandLine) -> None:
        """A program that cannot be started fails its targets, and is named."""
        done = cli.run("exec", "--accounts", "100000000001", *cli.profiles(), "--", "no-such-program")

        assert done.code == 1
        assert "no-such-program cannot be started" in done.stderr

    def test_a_timeout_ends_the_whole_group(self, cli: CommandLine) -> None:
        """At its timeout a program and its children get SIGTERM; the target has timed out."""
        code = (
            "import os, subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
            "print(os.getpid(), c.pid, flush=True); c.wait()"
        )
        done = cli.run(
            "exec", "--accounts", "100000000001", *cli.profiles(), "--timeout", "3", "--", sys.executable, "-c", code
        )

        assert done.code == 1
        assert "TargetTimeout" in done.stderr
        assert not any(is_alive(int(pid)) for pid in done.stdout.split(": ")[1].split())

    def test_sigterm_ends_programs_and_exits_with_143(self, cli: CommandLine) -> None:
        """SIGTERM ends the programs, and the exit code is 143."""
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
        process = cli.start("exec", "--accounts", "100000000001", *cli.profiles(), "--", sys.executable, "-c", code)
        assert process.stdout is not None
        pid = int(process.stdout.readline().split(": ")[1])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)

        assert process.returncode == 143
        assert not is_alive(pid)


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_a_script_for_each_shell(self, cli: CommandLine, shell: str) -> None:
        """The script defines the completion of `asyncauth`."""
        done = cli.run("completion", shell)

        assert done.code == 0, done.stderr
        assert "_ASYNCAUTH_COMPLETE" in done.stdout

    def test_tab_imports_no_botocore(self, cli: CommandLine) -> None:
        """Completing commands and options imports no botocore."""
        code = f"import sys\nfrom asyncauth.__main__ import main\ntry:\n    main()\nfinally:\n    {IMPORTED}"
        for words, expected in (("asyncauth wh", "whoami"), ("asyncauth check --acc", "--accounts")):
            done = subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env=cli.environ
                | {"_ASYNCAUTH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
                capture_output=True,
                text=True,
                check=False,
            )

            assert expected in done.stdout
            assert done.stderr.strip() == "[]"


def test_the_demo_shows_both_partitions(cli: CommandLine) -> None:
    """`demo` needs no credentials, prints targets of both partitions and the failure of the denied account.

    It leaves a store with metrics and a report, and the query that it ends with works.
    """
    done = cli.run("demo", "--accounts", "5")

    assert done.code == 0, done.stderr
    assert {each["partition"] for each in done.records} == {"aws", "aws-cn"}
    assert {each["status"] for each in done.records} == {"succeeded", "failed"}
    assert done.stderr.count("AccessDenied: 100000000001") == 1
    assert "5 AssumeRole calls for 5 accounts" in done.stderr
    assert re.search(r"4,464 points of metrics; AWS would charge 0.00124 USD for 124 metrics in 7 calls", done.stderr)
    assert "the store is asyncauth-demo.db, its report asyncauth-demo.html" in done.stderr
    query = shlex.split(done.stderr.partition("a query for metrics:\n")[2])
    assert query[0] == "asyncauth"
    busiest = cli.run(*query[1:]).records
    assert len(busiest) == len({each["resource"] for each in busiest}) == 5
    assert "AWS/EC2 CPUUtilization" in (cli.folder / "asyncauth-demo.html").read_text(encoding="utf-8")


def test_the_module_is_the_program() -> None:
    """`python -m asyncauth` is the same program as the console script."""
    assert PROGRAM[1:] == ("-m", "asyncauth")
    entry = (ROOT / "pyproject.toml").read_text()

    assert 'asyncauth = "asyncauth.__main__:main"' in entry


class TestWindows:
    """Windows has neither modes of files nor process groups; the platform is what the checks read."""

    CODE = (
        "import sys\nfrom asyncauth.cli import program\nimport asyncauth.caches\n"
        "for name in program.COMMANDS:\n    program.program.get_command(None, name)\n"
        "sys.platform = 'win32'\nsys.exit(program.run(sys.argv[1:]))"
    )

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (("exec", "--accounts", "100000000001", "--", "true"), "no process groups"),
            (("credentials", "100000000001", "--cache"), "modes of files do not keep other users"),
        ],
    )
    def test_it_is_refused_with_the_reason(self, tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
        """`exec` and the file cache end with exit code 4 and the reason, before anything is read or started."""
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 4, done.stderr
        assert "refused on Windows" in done.stderr
        assert reason in done.stderr
        assert not list(tmp_path.iterdir())
