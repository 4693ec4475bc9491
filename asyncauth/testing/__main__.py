"""Command that runs a program against a simulated fleet and changes only its environment.

    python -m asyncauth.testing python examples/ec2_inventory.py
    python -m asyncauth.testing --accounts aws=3 aws-cn=1 -- python examples/global_and_china.py

The program's environment has the base credentials of the global partition, AWS_CONFIG_FILE with the profiles `global`
and `china`, ACCOUNTS with the fleet's accounts (role ARNs outside the global partition), and AWS_ENDPOINT_URL with the
fleet's address.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.testing import SimulatedFleet

#: The profile name of each partition's base identity.
PROFILES: Final[Mapping[str, str]] = {"aws": "global", "aws-cn": "china"}


def environ_of(fleet: SimulatedFleet, folder: Path) -> dict[str, str]:
    """Return this process's environment with its AWS settings replaced by those of a running fleet.

    Args:
        fleet: a running fleet.
        folder: an existing folder, into which the config and credentials files are written. Only the owner can read
            the credentials file.
    """
    config, credentials = folder / "config", folder / "credentials"
    partitions = sorted({account.partition for account in fleet.accounts})
    config.write_text("".join(_profile(fleet, name) for name in partitions), encoding="utf-8")
    credentials.touch(mode=0o600)
    credentials.write_text("".join(_keys(fleet, name) for name in partitions), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        **fleet.environ(partitions[0]),
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "ACCOUNTS": " ".join(
            account.id if account.partition == "aws" else fleet.role_arn(account) for account in fleet.accounts
        ),
    }


def _profile(fleet: SimulatedFleet, partition: str) -> str:
    return f"[profile {PROFILES.get(partition, partition)}]\nregion = {fleet.regions[partition][0]}\n"


def _keys(fleet: SimulatedFleet, partition: str) -> str:
    keys = fleet.keys(partition)
    return (
        f"[{PROFILES.get(partition, partition)}]\n"
        f"aws_access_key_id = {keys.access_key_id}\naws_secret_access_key = {keys.secret_access_key}\n"
    )


def _count(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    return name, int(count)


def main(arguments: list[str] | None = None) -> int:
    """Start a fleet, run the command, stop the fleet; return the command's exit code."""
    from asyncauth.testing import SimulatedFleet

    parser = argparse.ArgumentParser(prog="python -m asyncauth.testing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--accounts",
        nargs="+",
        type=_count,
        default=[("aws", 3)],
        metavar="PARTITION=N",
        help="number of accounts in each partition (default: aws=3)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its arguments")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("no program given; for example: python -m asyncauth.testing python examples/ec2_inventory.py")
    with (
        SimulatedFleet(dict(options.accounts), preload=("ec2", "cloudwatch")) as fleet,
        tempfile.TemporaryDirectory() as folder,
    ):
        return subprocess.run(command, env=environ_of(fleet, Path(folder)), check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
