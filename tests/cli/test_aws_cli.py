"""Stock AWS CLI, in an environment of its own, with profiles that `profiles --write` wrote."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import ROOT

if TYPE_CHECKING:
    from tests.support.command_line import CommandLine

AWS = Path(os.environ.get("AWS_CLI") or ROOT / ".venv-awscli" / "bin" / "aws")

pytestmark = [
    pytest.mark.skipif(not AWS.exists() and not os.environ.get("CI"), reason="make .venv-awscli/.ready installs it"),
]


def aws(cli: CommandLine, profile: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in cli.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    return subprocess.Popen(
        [str(AWS), "--profile", profile, "sts", "get-caller-identity", "--output", "json"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def written(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Return the program after it has written the profiles, which run `python -m asyncauth` of this folder."""
    done = cli.run("profiles", *cli.all_accounts(), "--write")
    assert done.code == 0, done.stderr
    config = cli.folder / "home" / ".aws" / "config"
    # The AWS CLI starts the program with its own environment, in which this package is not on the path.
    config.write_text(
        config.read_text().replace("credential_process = ", f"credential_process = env PYTHONPATH={ROOT} ")
    )
    return cli


@pytest.mark.parametrize(("profile", "partition"), [("100000000001", "aws"), ("200000000001", "aws-cn")])
def test_a_written_profile_works(written: CommandLine, profile: str, partition: str) -> None:
    """The AWS CLI acts as the role of the profile's account, in both partitions."""
    process = aws(written, profile)
    out, errors = process.communicate(timeout=100)

    assert process.returncode == 0, errors
    found = json.loads(out)
    assert found["Account"] == profile
    assert found["Arn"].startswith(f"arn:{partition}:sts::{profile}:assumed-role/manage-role/")


def test_twenty_parallel_calls_assume_the_role_once(written: CommandLine) -> None:
    """Twenty processes of the AWS CLI on one profile make one AssumeRole: one refreshes, the others read its entry."""
    processes = [aws(written, "100000000001") for _ in range(20)]
    ended = [process.communicate(timeout=200) for process in processes]

    assert [process.returncode for process in processes] == [0] * 20, ended[0][1]
    assert {json.loads(out)["Account"] for out, _ in ended} == {"100000000001"}
    assert written.fleet.blocking.counts().calls("sts", "AssumeRole") == 1
