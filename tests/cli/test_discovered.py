"""Discovered accounts: the organization of the base credentials, its units and tags, and fleet files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asyncauth import Account
from asyncauth.testing import Organization, OrganizationalUnit, SimulatedFleet
from tests.support.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.botocore

MEMBERS = [Account(f"1{number:011d}", name=f"member-{number}") for number in range(1, 31)]
CHINA = [Account("200000000001", "aws-cn", name="china")]
UNIT = OrganizationalUnit("production", accounts=[account.id for account in MEMBERS[:5]])


@pytest.fixture(scope="module")
def organized() -> Iterator[SimulatedFleet]:
    with SimulatedFleet([*MEMBERS, *CHINA], organization=Organization(units=[UNIT])) as fleet:
        yield fleet


@pytest.fixture
def cli(organized: SimulatedFleet, tmp_path: Path) -> CommandLine:
    organized.blocking.reset_counts()
    return CommandLine(organized, tmp_path)


@pytest.mark.parametrize(("profile", "partition", "expected"), [("global", "aws", MEMBERS), ("china", "aws-cn", CHINA)])
def test_the_organization_of_each_partition(
    cli: CommandLine, profile: str, partition: str, expected: list[Account]
) -> None:
    """`--organization` lists every active member with its name; no role is assumed for it."""
    done = cli.run("accounts", "--organization", "--profile", profile, "--partition", partition)

    assert done.code == 0, done.stderr
    found = {each["account"]: each["name"] for each in done.records}
    assert {account.id: account.name for account in expected}.items() <= found.items()
    assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 0


def test_a_tag_costs_a_call_and_is_announced(cli: CommandLine) -> None:
    """`--tag` prints what it costs; a tag that no account has is exit code 3."""
    done = cli.run("accounts", "--organization", "--profile", "global", "--tag", "team=none")

    assert done.code == 3, done.stderr
    assert "a ListTagsForResource call for each account" in done.stderr
    assert cli.run("accounts", "--tag", "nonsense").code == 2


def test_exclude_by_name(cli: CommandLine) -> None:
    """`--exclude` matches the names that discovery finds."""
    done = cli.run("accounts", "--organization", "--profile", "global", "--exclude", "member-*")

    assert done.code in (0, 3)
    assert not {each["account"] for each in done.records} & {account.id for account in MEMBERS}


def test_a_fleet_file_gives_settings_and_accounts(cli: CommandLine) -> None:
    """A fleet file has the sources, the role and the accounts of both partitions; one in a parent folder is found."""
    (cli.folder / "asyncauth.toml").write_text(
        'role = "manage-role"\n[sources.aws]\nprofile = "global"\n[sources.aws-cn]\nprofile = "china"\n'
        f'[[accounts]]\nid = "{MEMBERS[0].id}"\nname = "first"\n'
        f'[[accounts]]\nid = "{CHINA[0].id}"\npartition = "aws-cn"\n'
    )
    (cli.folder / "asyncauth.toml").chmod(0o600)
    named = cli.run("check", "--fleet", "asyncauth.toml", "--no-progress")
    found = cli.run("check", "--no-progress")

    assert named.code == found.code == 0, named.stderr + found.stderr
    assert {each["account"] for each in named.records} == {MEMBERS[0].id, CHINA[0].id}
    assert sorted(map(str, found.records)) == sorted(map(str, named.records))


def test_a_found_file_that_others_can_write_is_refused(cli: CommandLine) -> None:
    """A fleet file that was found and that others can write is an error of the configuration."""
    (cli.folder / "asyncauth.toml").write_text('role = "manage-role"\n')
    (cli.folder / "asyncauth.toml").chmod(0o666)
    done = cli.run("check")

    assert done.code == 4, done.stderr
    assert done.stdout == ""


def test_without_a_selection_the_ways_are_named(cli: CommandLine) -> None:
    """Without accounts and without a fleet file the usage error lists what selects accounts."""
    done = cli.run("check")

    assert done.code == 2
    assert "--organization" in done.stderr
