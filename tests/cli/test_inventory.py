"""Command `inventory`: resources of the simulated fleet, straight out and into stores of each format."""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from asyncauth.cli.resource_kinds import KIND_NAMES
from asyncauth.jobs import KINDS
from tests.cli.conftest import DENIED
from tests.support.command_line import PROGRAM, ROOT, CommandLine

HOLDER = """
import anyio, sys
from asyncauth.stores import SqliteStore

async def main():
    store = SqliteStore("inventory.db")
    await store.begin("1", [])
    print("open", flush=True)
    sys.stdin.read()
    await store.close()

anyio.run(main)
"""


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query over a store."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def reachable(cli: CommandLine) -> tuple[str, ...]:
    """Return the options that select every account except the denied one."""
    return (*cli.all_accounts(), "--exclude", DENIED, "--no-progress")


class TestStraightOut:
    def test_one_kind_has_its_columns(self, cli: CommandLine) -> None:
        """A record for each instance of both partitions, with the columns of the kind and no raw answer."""
        done = cli.run("inventory", "ec2:instance", *reachable(cli))

        assert done.code == 0, done.stderr
        assert {each["partition"] for each in done.records} == {"aws", "aws-cn"}
        assert {each["account"] for each in done.records} == {account.id for account in cli.fleet.accounts} - {DENIED}
        assert all(each["id"].startswith("i-") and each["type"] and "raw" not in each for each in done.records)
        assert list(done.records[0])[:8] == [
            "kind",
            "partition",
            "account",
            "account_name",
            "region",
            "id",
            "arn",
            "name",
        ]

    def test_several_kinds_have_one_mapping_of_columns(self, cli: CommandLine) -> None:
        """With several kinds the columns of each are in `columns`, and `--raw` adds the answer of AWS."""
        done = cli.run("inventory", "ec2:vpc", "ec2_subnet", "--raw", *reachable(cli))

        assert done.code == 0, done.stderr
        assert {each["kind"] for each in done.records} == {"ec2:vpc", "ec2:subnet"}
        vpc = next(each for each in done.records if each["kind"] == "ec2:vpc")
        assert vpc["columns"]["cidr"] == vpc["raw"]["CidrBlock"]

    def test_a_denied_account_is_a_failure_beside_the_records(self, cli: CommandLine) -> None:
        """The records of the other accounts are written, and the exit code is 1."""
        done = cli.run("inventory", "ec2:instance", *cli.all_accounts(), "--output", "csv")

        assert done.code == 1
        assert len(list(csv.DictReader(done.stdout.splitlines()))) == 6
        assert "1 incomplete" in done.stderr

    def test_a_kind_that_fails_leaves_the_others(self, cli: CommandLine) -> None:
        """A kind that an account denies is missing, and the other kinds of the account are written."""
        cli.fleet.blocking.fault(service="ec2", action="DescribeVolumes", code="UnauthorizedOperation", status=403)
        done = cli.run("inventory", "ec2:volume", "ec2:vpc", *reachable(cli))

        assert done.code == 1
        assert {each["kind"] for each in done.records} == {"ec2:vpc"}

    def test_options_of_a_store_need_one(self, cli: CommandLine) -> None:
        """`--mode`, `--wait`, `--store-format` and `--journal` without `--store` are usage errors."""
        for options in (("--mode", "mirror"), ("--wait", "1"), ("--store-format", "csv"), ("--journal", "j")):
            done = cli.run("inventory", *options, *reachable(cli))

            assert done.code == 2
            assert f"{options[0]} needs --store" in done.stderr

    def test_an_unknown_kind_names_the_nearest(self, cli: CommandLine) -> None:
        """A kind that does not exist is a usage error."""
        done = cli.run("inventory", "ec2:instanc")

        assert done.code == 2
        assert "Did you mean 'ec2:instance'?" in done.stderr

    def test_a_dry_run_lists_nothing(self, cli: CommandLine) -> None:
        """`--dry-run` assumes the roles; no resource is listed, and no store is made."""
        done = cli.run("inventory", "ec2:instance", "--dry-run", "--store", "new.db", *reachable(cli))

        assert (done.code, done.stdout) == (0, ""), done.stderr
        assert "3 targets" in done.stderr
        assert cli.fleet.blocking.counts().calls("ec2", "DescribeInstances") == 0
        assert not (cli.folder / "new.db").exists()

    def test_a_closed_pipe_ends_the_run(self, cli: CommandLine) -> None:
        """A reader that closes the pipe ends the run with 141: it is no failure of a target, and quiet."""
        read, write = os.pipe()
        process = subprocess.Popen(
            [*PROGRAM, "inventory", "ec2:instance", *reachable(cli), "--output", "jsonl"],
            cwd=cli.folder,
            env=cli.environ,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(write)
        os.close(read)
        _, errors = process.communicate(timeout=60)

        assert process.returncode == 141
        assert "Traceback" not in errors
        assert "BrokenPipe" not in errors


class TestStores:
    def test_sqlite_and_its_modes(self, cli: CommandLine) -> None:
        """A store holds every kind that was named; `mirror` marks what is gone, and `sql` reads it."""
        options = ("inventory", "ec2:instance", "ec2:vpc", "--store", "inventory.db", "--mode", "mirror")
        done = cli.run(*options, *cli.all_accounts(), "--no-progress")

        assert done.code == 1
        assert done.records[0] == {
            "kind": "ec2:instance",
            "resources": 6,
            "complete": 3,
            "incomplete": 1,
            "reasons": "1 AccessDenied",
        }
        store = cli.folder / "inventory.db"
        assert oct(store.stat().st_mode & 0o777) == "0o600"
        assert rows(store, "select count(*), min(json_extract(data, '$.InstanceType')) > '' from raw") == [(9, 1)] or (
            rows(store, "select count(*) from raw") == [(9,)]
        )
        assert rows(store, f"select distinct status, code from scopes where account = '{DENIED}'") == [
            ("denied", "AccessDenied")
        ]
        sql = cli.run("sql", "select partition, count(*) as n from ec2_instance group by 1 order by 1")
        assert sql.records == [{"partition": "aws", "n": 4}, {"partition": "aws-cn", "n": 2}]

        with closing(sqlite3.connect(store)) as connection, connection:
            connection.execute(
                "insert into resources select null, sync, kind, partition, account, account_name, region, 'i-gone', "
                "arn, name, columns, first_seen, last_seen, null from resources where kind = 'ec2:instance' limit 1"
            )
        assert cli.run(*options, *reachable(cli)).code == 0
        assert rows(store, "select count(*) from resources where gone_at is not null and id = 'i-gone'") == [(1,)]

    def test_text_stores_by_suffix(self, cli: CommandLine) -> None:
        """`.jsonl`, `.csv` and `.parquet` choose the format, `--store-format` wins, and other options are refused."""
        options = ("inventory", "ec2:vpc", *reachable(cli))
        done = [
            cli.run(*options, "--store", "x.jsonl", "--no-raw"),
            cli.run(*options, "--store", "x.csv"),
            cli.run(*options, "--store", "plain", "--store-format", "jsonl"),
            cli.run(*options, "--store", "x.parquet"),
        ]

        assert [each.code for each in done] == [0, 0, 0, 0], done[-1].stderr
        for name in ("x.jsonl", "plain"):
            records = [json.loads(line) for line in (cli.folder / name).read_text().splitlines()]
            assert sum(each["record"] == "resource" for each in records) == 3
        assert (cli.folder / "x.csv" / "ec2_vpc.csv").read_text().count("\n") == 4
        assert cli.run("sql", "--store", "x.parquet", "select count(*) as n from ec2_vpc").records == [{"n": 3}]
        refused = cli.run(*options, "--store", "x.parquet", "--mode", "upsert")
        assert (refused.code, "--mode upsert is for SQLite stores" in refused.stderr) == (2, True)
        for option in (("--mode", "mirror"), ("--wait", "3")):
            refused = cli.run(*options, "--store", "y.jsonl", *option)
            assert refused.code == 2
            assert f"{option[0]} is for stores of SQLite and Parquet" in refused.stderr

    def test_a_folder_that_does_not_exist(self, cli: CommandLine) -> None:
        """A store in a missing folder is a usage error before any call."""
        done = cli.run("inventory", "ec2:vpc", *reachable(cli), "--store", "none/inventory.db")

        assert done.code == 2
        assert "does not exist" in done.stderr

    def test_a_second_run_waits_or_is_refused(self, cli: CommandLine) -> None:
        """While another run writes, the store is refused with exit code 4 and names that run; `--wait` waits."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            cwd=cli.folder,
            env=cli.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        options = ("inventory", "ec2:vpc", *reachable(cli), "--store", "inventory.db")
        refused = cli.run(*options)
        waiting = cli.start(*options, "--wait", "60")
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        _, errors = waiting.communicate(timeout=60)

        assert refused.code == 4
        assert str(holder.pid) in refused.stderr
        assert waiting.returncode == 0, errors

    def test_a_journal_resumes_under_the_same_sync(self, cli: CommandLine) -> None:
        """A second run with the journal does what failed alone, under the id of the first."""
        options = ("inventory", "ec2:vpc", "--store", "inventory.db", "--journal", "sync.journal", "--no-progress")
        first = cli.run(*options, *cli.all_accounts())
        second = cli.run(*options, *cli.all_accounts())

        assert (first.code, second.code) == (1, 1), second.stderr
        assert second.records[0]["complete"] == 0
        assert rows(cli.folder / "inventory.db", "select count(*) from syncs") == [(1,)]

    def test_ctrl_c_leaves_whole_scopes(self, cli: CommandLine) -> None:
        """Ctrl-C ends with 130; the store has whole scopes, and is not locked."""
        cli.fleet.blocking.fault(service="ec2", region="cn-north-1", kind="hang")
        process = cli.start("inventory", "ec2:instance", *cli.all_accounts(), "--store", "inventory.db")
        assert process.stderr is not None
        while "AccessDenied" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)

        assert process.returncode == 130
        assert json.loads(out.splitlines()[0])["kind"] == "ec2:instance"
        torn = "select count(*) from resources where (account, region) not in (select account, region from scopes)"
        assert rows(cli.folder / "inventory.db", torn) == [(0,)]
        cli.fleet.blocking.clear_faults()
        assert cli.run("inventory", "ec2:instance", *reachable(cli), "--store", "inventory.db").code == 0


def test_the_names_of_kinds_are_those_of_the_library() -> None:
    """The table for help and completion equals `asyncauth.jobs.KINDS`."""
    assert tuple(KINDS) == KIND_NAMES


def test_tab_completes_kinds_without_botocore(tmp_path: Path) -> None:
    """Completion of a kind imports no botocore."""
    code = (
        "import sys\nfrom asyncauth.__main__ import main\ntry:\n    main()\nfinally:\n"
        "    print('botocore' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_ASYNCAUTH_COMPLETE": "bash_complete",
            "COMP_WORDS": "asyncauth inventory rds",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert "rds:instance" in done.stdout
    assert done.stderr.strip() == "False"
