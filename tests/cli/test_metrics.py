"""Command `metrics`: its estimate and consent to it, metrics straight out and into a store, against the fleet."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
import pytest

from asyncauth.cli.commands import metrics
from asyncauth.cli.metric_options import (
    NAMESPACES,
    DurationType,
    NamespaceType,
    TimeType,
    check_statistics,
    find_presets,
)
from asyncauth.jobs import PRESETS
from tests.cli.conftest import DENIED
from tests.support.command_line import PROGRAM, CommandLine

if TYPE_CHECKING:
    from pathlib import Path


QUESTION = "Go on? [y/N] "


def reachable(cli: CommandLine) -> tuple[str, ...]:
    """Return the options that select every account except the denied one."""
    return (*cli.all_accounts(), "--exclude", DENIED, "--no-progress")


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query over a store."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def fetches(cli: CommandLine) -> int:
    """Return the number of GetMetricData calls."""
    return cli.fleet.blocking.counts().calls("cloudwatch", "GetMetricData")


class TestStraightOut:
    def test_points_of_both_partitions(self, cli: CommandLine) -> None:
        """A record for each point; the estimate is on stderr before, equals what was charged, and lists for the run."""
        done = cli.run("metrics", *reachable(cli), "--metric-name", "CPUUtilization")
        counts = cli.fleet.blocking.counts()

        assert done.code == 0, done.stderr
        assert {each["partition"] for each in done.records} == {"aws", "aws-cn"}
        assert {each["stat"] for each in done.records} == {"Average", "Maximum"}
        assert all(each["resource"].startswith("i-") and each["unit"] == "Percent" for each in done.records)
        assert all(each["dimensions"] == {"InstanceId": each["resource"]} for each in done.records)
        assert all(isinstance(each["value"], float) and each["timestamp"] % 300 == 0 for each in done.records)
        assert len({(each["resource"], each["stat"], each["at"]) for each in done.records}) == len(done.records) > 300
        estimate, end = done.stderr.splitlines()
        assert estimate.startswith("asyncauth: estimate: 3 calls, 6 metrics charged, 432 data points, ")
        assert estimate.endswith("0.00006 USD")
        assert (counts.calls("cloudwatch", "GetMetricData"), counts.billed_metrics) == (3, 6)
        assert counts.calls("cloudwatch", "ListMetrics") == 3
        assert end == f"asyncauth: {len(done.records):,} points; 3 scopes are complete, 0 incomplete"

    def test_csv_has_every_digit(self, cli: CommandLine) -> None:
        """A point in CSV is the same number as in JSON; a table rounds it."""
        options = ("metrics", *reachable(cli), "--statistics", "average", "--start-time", "1h", "--end-time", "30m")
        lines = cli.run(*options, "--sort", "resource")
        text = cli.run(*options, "--sort", "resource", "--output", "csv").stdout

        found = list(csv.DictReader(io.StringIO(text)))
        assert [float(each["value"]) for each in found] == [each["value"] for each in lines.records] != []
        assert json.loads(found[0]["dimensions"]) == {"InstanceId": found[0]["resource"]}

    def test_a_denied_account_is_a_failure_beside_the_points(self, cli: CommandLine) -> None:
        """The estimate counts it as unknown, the points of the others are written, and the exit code is 1."""
        done = cli.run("metrics", *cli.all_accounts())

        assert done.code == 1
        assert len({each["account"] for each in done.records}) == 3
        assert "1 of 4 targets could not be estimated" in done.stderr
        assert done.stderr.count(f"AccessDenied: {DENIED}") == 1
        assert "3 scopes are complete, 1 incomplete" in done.stderr

    def test_incomplete_results_are_a_failure(self, cli: CommandLine) -> None:
        """Calls that CloudWatch fails leave their scope incomplete: exit code 1, and the others' points."""
        cli.fleet.blocking.fault(action="GetMetricData", account="100000000001", code="InvalidParameterValue")
        done = cli.run("metrics", *reachable(cli))

        assert done.code == 1
        assert {each["account"] for each in done.records} == {"100000000002", "200000000001"}
        assert "2 scopes are complete, 1 incomplete" in done.stderr

    def test_a_closed_pipe_ends_the_run(self, cli: CommandLine) -> None:
        """A reader that closes the pipe ends the run with 141: it is no failure of a target, and quiet."""
        read, write = os.pipe()
        process = subprocess.Popen(
            [*PROGRAM, "metrics", *reachable(cli)],
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
        assert "failed" not in errors

    def test_a_namespace_without_a_preset(self, cli: CommandLine) -> None:
        """With dimension, metric and statistics any namespace is fetched."""
        own = ("AWS/EC2", "--dimension", "InstanceId", "--metric-name", "CPUUtilization", "--statistics", "p90")
        done = cli.run("metrics", *own, *reachable(cli), "--regions", "us-east-1", "--exclude", "2*")

        assert done.code == 0, done.stderr
        assert {(each["metric"], each["stat"]) for each in done.records} == {("CPUUtilization", "p90")}


class TestEstimate:
    def test_the_estimate_alone(self, cli: CommandLine) -> None:
        """It is a record on stdout and a sentence on stderr; nothing is charged, and no store is made."""
        done = cli.run(
            "metrics", "--estimate-only", "--store", "new.db", "--price", "20", "--history", "6h", *reachable(cli)
        )

        assert done.code == 0, done.stderr
        [record] = done.records
        assert record["seconds"] > 0
        assert {**record, "seconds": 0} == {
            "price": 0.12,
            "calls": 3,
            "metrics": 6,
            "data_points": 6 * 2 * 72,
            "seconds": 0,
            "targets": 3,
            "unknown": 0,
        }
        assert "0.12 USD" in done.stderr
        assert fetches(cli) == 0
        assert not (cli.folder / "new.db").exists()

    def test_exit_codes_of_an_estimate(self, cli: CommandLine) -> None:
        """1 if an account could not be estimated, 4 if the base credentials are wrong, 3 without an account."""
        assert cli.run("metrics", "--dry-run", *cli.all_accounts()).code == 1
        wrong = cli.run("metrics", "--estimate-only", "--accounts", "100000000001", "--profile", "missing")
        assert wrong.code == 4
        assert cli.run("metrics", "--estimate-only", *cli.all_accounts(), "--exclude", "*").code == 3


class TestConsent:
    """Above `--ask-above` the command requests consent."""

    def options(self, cli: CommandLine) -> tuple[str, ...]:
        return ("metrics", *reachable(cli), "--ask-above", "0.00001", "--output", "jsonl")

    def test_y_fetches(self, cli: CommandLine) -> None:
        """After `y` on a terminal the points are fetched; the question has the price."""
        done = cli.on_terminal(*self.options(cli), typed="y\n")

        assert done.code == 0, done.stdout
        assert "0.00006 USD is above the limit of 0.00001 USD." in done.stdout
        assert done.stdout.count(QUESTION) == 1
        assert fetches(cli) == 3

    @pytest.mark.parametrize("typed", ["n\n", "\x04"], ids=["n", "end of input"])
    def test_everything_else_fetches_nothing(self, cli: CommandLine, typed: str) -> None:
        """`n` and the end of input are no consent: nothing is fetched, and the exit code is 1."""
        done = cli.on_terminal(*self.options(cli), typed=typed)

        assert done.code == 1
        assert QUESTION in done.stdout
        assert "not confirmed; nothing was fetched" in done.stdout
        assert fetches(cli) == 0

    def test_ctrl_c_at_the_question(self, cli: CommandLine) -> None:
        """Ctrl-C instead of an answer ends with 130; nothing is fetched."""
        parent, child = pty.openpty()
        with subprocess.Popen(
            [*PROGRAM, *self.options(cli)],
            cwd=cli.folder,
            env=cli.environ,
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process:
            os.close(child)
            shown = b""
            while QUESTION.encode() not in shown:
                shown += os.read(parent, 65536)
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=60)
        os.close(parent)

        assert code == 130
        assert fetches(cli) == 0

    def test_without_a_terminal_it_needs_yes(self, cli: CommandLine) -> None:
        """A pipe is refused with 2, the price and what to add; with `--yes` it is fetched."""
        refused = cli.run(*self.options(cli))
        assert (refused.code, refused.stdout) == (2, "")
        assert "0.00006 USD is above the limit of 0.00001 USD. There is no terminal" in refused.stderr
        assert "--yes" in refused.stderr
        assert fetches(cli) == 0

        assert cli.run(*self.options(cli), "--yes").code == 0
        assert fetches(cli) == 3

    def test_what_was_not_estimated_is_not_fetched(self, cli: CommandLine) -> None:
        """An account that could be listed only in the run has no price, so it fails; with `--yes` it is fetched."""
        options = ("metrics", "--accounts", "100000000001", "--profile", "global", "--no-progress")
        fault = {"action": "ListMetrics", "code": "AccessDenied", "status": 403, "times": 1}
        cli.fleet.blocking.fault(**fault)  # type: ignore[arg-type]
        refused = cli.run(*options, "-v")
        assert (refused.code, refused.stdout) == (1, "")
        assert "1 of 1 targets could not be estimated" in refused.stderr
        assert fetches(cli) == 0

        cli.fleet.blocking.fault(**fault)  # type: ignore[arg-type]
        assert cli.run(*options, "--yes").code == 0
        assert fetches(cli) == 1


class TestStore:
    def test_metrics_of_an_inventory(self, cli: CommandLine) -> None:
        """The resources come from the store, the summary has what is incomplete, the next run goes on."""
        cli.run("inventory", "ec2:instance", *reachable(cli), "--store", "inventory.db")
        options = ("metrics", "EC2", "--inventory", "inventory.db", "--store", "inventory.db", *cli.all_accounts())
        first = cli.run(*options)
        counts = cli.fleet.blocking.counts()
        estimate = cli.run(*options, "--estimate-only").records[0]
        store = cli.folder / "inventory.db"

        assert first.code == 1, first.stderr
        [summary] = first.records
        assert rows(store, "select count(*) from metric_values") == [(summary["points"],)] != [(0,)]
        assert {name: summary[name] for name in ("namespace", "complete", "incomplete", "reasons")} == {
            "namespace": "AWS/EC2",
            "complete": 3,
            "incomplete": 1,
            "reasons": "1 AccessDenied",
        }
        failed = rows(store, "select account, status from scopes where kind = 'metrics:AWS/EC2' and status != 'ok'")
        assert failed == [(DENIED, "denied")]
        assert counts.calls("cloudwatch", "ListMetrics") == 0
        # Four metrics of six instances; the second estimate has the ten minutes before the end, and what is new.
        assert "3 calls, 24 metrics charged, 1,080 data points" in first.stderr
        assert (estimate["metrics"], counts.billed_metrics) == (24, 24)
        assert 0 < estimate["data_points"] <= 30 * 4

    def test_ctrl_c_keeps_what_had_finished(self, cli: CommandLine) -> None:
        """Ctrl-C ends with 130; the store has the points of whole scopes, is not locked, and marks the rest."""
        cli.fleet.blocking.fault(action="GetMetricData", account="100000000002", kind="hang")
        process = cli.start("metrics", *cli.all_accounts(), "--store", "inventory.db", "--output", "jsonl")
        assert process.stderr is not None
        while "AccessDenied" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        store = cli.folder / "inventory.db"

        assert process.returncode == 130
        assert json.loads(out)["namespace"] == "AWS/EC2"
        assert json.loads(out)["incomplete"] >= 2
        assert rows(store, "select state from syncs") == [("interrupted",)]
        found = dict(rows(store, "select account, status from scopes"))
        assert found["100000000002"] != "ok"
        measured = {account for (account,) in rows(store, "select distinct account from metric_values")}
        assert measured == {account for account, status in found.items() if status == "ok"}
        cli.fleet.blocking.clear_faults()
        assert cli.run("metrics", *reachable(cli), "--store", "inventory.db").code == 0

    def test_metrics_in_a_data_set(self, cli: CommandLine) -> None:
        """A store of Parquet has the points as well, for `asyncauth sql`."""
        pytest.importorskip("duckdb")
        done = cli.run("metrics", *reachable(cli), "--store", "fleet.parquet")
        counted = cli.run("sql", "--store", "fleet.parquet", "select count(*) as points from metric_values")

        assert done.code == 0, done.stderr
        assert counted.records == [{"points": done.records[0]["points"]}] != [{"points": 0}]

    def test_a_given_time_does_not_move_the_next_sync(self, cli: CommandLine) -> None:
        """A sync of an hour of yesterday fetches it, and the next one begins at its own history."""
        options = ("metrics", *reachable(cli), "--store", "inventory.db")
        past = cli.run(*options, "--start-time", "25h", "--end-time", "24h")
        whole = cli.run(*options, "--estimate-only").records[0]

        assert past.code == 0, past.stderr
        assert rows(cli.folder / "inventory.db", "select count(*) from metric_windows") == [(0,)]
        assert whole["data_points"] == 6 * 2 * 36


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("ec3",), "Did you mean 'AWS/EC2'?"),
            (("AWS/SQS",), "needs --dimension, --metric-name and --statistics"),
            (("--dimension", "QueueName"), "--dimension needs one NAMESPACE"),
            (("ec2", "--metric-name", "Cpu"), "'Cpu' is not in the presets of AWS/EC2: CPUUtilization"),
            (("--statistics", "Mean"), "'Mean' is none of Average"),
            (("--period", "7"), "period=7 is not a period of CloudWatch"),
            (("--history", "soon"), "'soon' is no duration"),
            (("--start-time", "soon"), "'soon' is no time"),
            (("--start-time", "1h", "--end-time", "2h"), "is not before"),
            (("--start-time", "1h", "--history", "2h"), "in place of --history"),
            (("--mode", "upsert"), "--mode needs --store"),
            (("--journal", "j"), "--journal needs --store"),
            (("--store", "points.csv"), "this format has no metrics"),
            (("--inventory", "missing.db"), "there is no such store"),
            (("--inventory", "x", "--linked"), "so not with --inventory"),
            (("--price", "nan"), "finite"),
            (("--ask-above", "nan"), "finite"),
            (("--start-time", "2999-01-01"), "--start-time 2999-01-01T00:00:00+00:00 is in the future"),
        ],
    )
    def test_mistakes_are_named(self, arguments: tuple[str, ...], message: str) -> None:
        """A mistake on the command line names what is wrong, before any call."""
        with pytest.raises(click.UsageError) as raised:
            metrics.command.main([*arguments, "--accounts", "100000000001"], "metrics", standalone_mode=False)

        assert message in raised.value.message

    def test_a_store_of_another_program(self, cli: CommandLine) -> None:
        """A file that is no store ends with 4 and names it, before anything is charged."""
        (cli.folder / "notes.db").write_text("notes " * 1_000)
        done = cli.run("metrics", *reachable(cli), "--store", "notes.db")

        assert done.code == 4
        assert "notes.db" in done.stderr
        assert fetches(cli) == 0


class TestOptions:
    def test_the_namespaces_are_those_of_the_library(self) -> None:
        """Help and Tab show them without an import of botocore."""
        assert list(PRESETS) == list(NAMESPACES)

    def test_tab_completes_namespaces(self) -> None:
        """With or without `AWS/`, in any case."""
        context, argument = click.Context(click.Command("metrics")), click.Argument(["namespaces"])

        def completed(word: str) -> list[str]:
            return [item.value for item in NamespaceType().shell_complete(context, argument, word)]

        assert completed("e") == ["AWS/EC2", "AWS/EBS"]
        assert completed("AWS/L") == ["AWS/Lambda"]
        assert completed("") == list(NAMESPACES)

    def test_names_and_patterns(self) -> None:
        """With or without `AWS/`, in any case, as a pattern, each once."""
        found = find_presets(["ec2", "AWS/EC2", "*elb"], metrics=(), statistics=(), dimension=None)

        assert [each.namespace for each in found] == ["AWS/EC2", "AWS/ApplicationELB", "AWS/NetworkELB"]

    def test_metrics_and_statistics_of_a_preset(self) -> None:
        """Chosen metrics keep their statistics; given statistics are those of every metric, also of a further one."""
        (own,) = find_presets(["rds"], metrics=("CPUUtilization",), statistics=(), dimension=None)
        (given,) = find_presets(["rds"], metrics=("CPUUtilization", "SwapUsage"), statistics=("p99",), dimension=None)

        assert dict(own.stats) == {"CPUUtilization": ("Average", "Maximum")}
        assert dict(given.stats) == {"CPUUtilization": ("p99",), "SwapUsage": ("p99",)}
        assert given.kind == "rds:instance"

    def test_statistics_as_cloudwatch_writes_them(self) -> None:
        """Simple ones in any case, extended ones as they are, each once."""
        context, option = click.Context(click.Command("metrics")), click.Option(["--statistics"])

        found = check_statistics(context, option, ("average,SUM", "p99.9,TM(10%:90%),Average"))

        assert found == ("Average", "Sum", "p99.9", "TM(10%:90%)")

    def test_times(self) -> None:
        """A time without an offset is in UTC, and a duration is before now."""
        option = TimeType()
        before = datetime.now(UTC)

        assert option.convert("2026-11-25", None, None) == datetime(2026, 11, 25, tzinfo=UTC)
        assert option.convert("2026-11-25T08:00+01:00", None, None) == datetime(2026, 11, 25, 7, tzinfo=UTC)
        assert timedelta(0) <= option.convert("3h", None, None) - before + timedelta(hours=3) < timedelta(minutes=5)
        assert [DurationType().convert(text, None, None) for text in ("90", "1.5h", "2d")] == [90, 5_400, 172_800]
