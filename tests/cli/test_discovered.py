"""Discovered accounts: the organization of the base credentials, its units and tags, and fleet files."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from hashlib import sha1
from typing import TYPE_CHECKING

import pytest

from asyncauth import Account
from asyncauth.testing import IdentityCenter, Organization, OrganizationalUnit, SimulatedFleet
from tests.support.command_line import CommandLine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MEMBERS = [Account(f"1{number:011d}", name=f"member-{number}") for number in range(1, 31)]
CHINA = [Account("200000000001", "aws-cn", name="china")]
UNIT = OrganizationalUnit("production", accounts=[account.id for account in MEMBERS[:5]])


@pytest.fixture(scope="module")
def organized() -> Iterator[SimulatedFleet]:
    organization = Organization(units=[UNIT])
    with SimulatedFleet([*MEMBERS, *CHINA], organization=organization, identity_center=IdentityCenter()) as fleet:
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


@pytest.mark.parametrize(("partition", "members"), [("aws", MEMBERS), ("aws-cn", CHINA)])
def test_the_accounts_of_a_login(cli: CommandLine, partition: str, members: list[Account]) -> None:
    """`--sso-session` selects what a login may enter, in both partitions, and the role is that of the portal."""
    login = cli.fleet.blocking.sso_login(partition)
    aws = cli.folder / "home" / ".aws"
    (aws / "sso" / "cache").mkdir(parents=True)
    (aws / "sso" / "cache" / f"{sha1(b'corp').hexdigest()}.json").write_text(login.cache_file())
    (aws / "config").write_text(f"[sso-session corp]\nsso_region = {login.region}\nsso_start_url = {login.start_url}\n")
    options = ("--sso-session", "corp", "--role", "ReadOnly")
    listed = cli.run("accounts", *options)
    checked = cli.run("check", *options, "--exclude", "*-2*,*-3*", "--no-progress")

    assert listed.code == 0, listed.stderr
    assert {account.id for account in members} <= {each["account"] for each in listed.records}
    assert {each["role"] for each in listed.records} == {"ReadOnly of sso-session corp"}
    assert checked.code == 0, checked.stdout + checked.stderr
    assert cli.fleet.blocking.counts().calls("sso", "GetRoleCredentials") == len(checked.records) > 0
    assert cli.fleet.blocking.counts().calls("sts", "AssumeRole") == 0


def test_a_login_needs_a_role_and_a_session(cli: CommandLine) -> None:
    """Without `--role` it is a usage error; a session that the configuration lacks is exit code 4."""
    without_role = cli.run("accounts", "--sso-session", "corp")
    unknown = cli.run("accounts", "--sso-session", "corpo", "--role", "ReadOnly")

    assert (without_role.code, unknown.code) == (2, 4)
    assert "--role" in without_role.stderr
    assert "corpo" in unknown.stderr


def test_the_enabled_regions(cli: CommandLine) -> None:
    """`--regions enabled` runs in the regions that each account has enabled, as its own ListRegions returns them."""
    (cli.folder / "jobs.py").write_text("async def where(session):\n    return session.region_name\n")
    accounts = ("--accounts", f"{MEMBERS[0].id},arn:aws-cn:iam::{CHINA[0].id}:role/manage-role", *cli.profiles())
    done = cli.run("run", "jobs.py:where", *accounts, "--regions", "enabled,!*-west-2", "--yes")

    assert done.code == 0, done.stderr
    found = {(each["account"], each["region"]) for each in done.records}
    assert (CHINA[0].id, "cn-northwest-1") in found
    assert (MEMBERS[0].id, "us-east-1") in found
    assert not any(region.endswith("-west-2") for _, region in found)
    assert cli.fleet.blocking.counts().calls("account", "ListRegions") == 2


class TestFleetFile:
    @pytest.fixture
    def fleet_file(self, cli: CommandLine) -> CommandLine:
        (cli.folder / "jobs.py").write_text(
            "async def where(session):\n    return session.region_name\nwhere.read_only = True\n"
            "async def hangs(session):\n    import asyncio\n    await asyncio.Event().wait()\nhangs.read_only = True\n"
        )
        (cli.folder / "asyncauth.toml").write_text(
            f'accounts = ["{MEMBERS[0].id}", "{MEMBERS[1].id}"]\nregions = ["us-*"]\n'
            '[sources.aws]\nprofile = "global"\n[run]\ntimeout = 60\nprogress = false\njournal = "run.journal"\n'
            '[[rate_limits]]\nservice = "ec2"\nrate = 100\nmax_at_once = 1\n'
        )
        return cli

    def test_regions_and_options_of_runs(self, fleet_file: CommandLine) -> None:
        """Regions, the time of a target, the journal and the progress are those of the file."""
        done = fleet_file.run("run", "jobs.py:where", "--fleet", "asyncauth.toml")

        assert (done.code, done.stderr) == (0, "")
        assert {each["region"] for each in done.records} == {"us-east-1", "us-east-2", "us-west-1", "us-west-2"}
        assert len(done.records) == 8
        assert (fleet_file.folder / "run.journal").exists()
        (fleet_file.folder / "run.journal").unlink()
        file = fleet_file.folder / "asyncauth.toml"
        file.write_text(file.read_text().replace("timeout = 60", "timeout = 2.5"))
        late = fleet_file.run("run", "jobs.py:hangs", "--fleet", "asyncauth.toml", "--regions", "us-east-1")
        assert late.code == 1
        assert {each["status"] for each in late.records} == {"timed_out"}
        assert "2.5" in late.records[0]["error"]

    def test_options_of_the_command_line_win(self, fleet_file: CommandLine) -> None:
        """What the command line has replaces what the file has."""
        options = ("--regions", "us-east-1", "--journal", "other.journal", "--progress")
        done = fleet_file.run("run", "jobs.py:where", "--fleet", "asyncauth.toml", *options)

        assert done.code == 0
        assert [each["region"] for each in done.records] == ["us-east-1"] * 2
        assert "2 targets" in done.stderr
        assert (fleet_file.folder / "other.journal").exists()
        assert not (fleet_file.folder / "run.journal").exists()

    def test_an_inventory_and_a_program(self, fleet_file: CommandLine) -> None:
        """`inventory` and `exec` take the regions of the file, too; straight out the journal is not used."""
        inventory = fleet_file.run("inventory", "ec2:vpc", "--fleet", "asyncauth.toml")
        program = fleet_file.run("exec", "--fleet", "asyncauth.toml", "--yes", "--", "true")

        assert (inventory.code, inventory.stderr.count("\n")) == (0, 1), inventory.stderr
        assert len(inventory.records) == 8
        assert program.code == 0, program.stderr
        assert (fleet_file.folder / "run.journal").read_text().count("us-west-1") == 2

    def test_a_cached_token_of_a_fleet_file(self, fleet_file: CommandLine) -> None:
        """`cache = true` keeps tokens for every command; the next one answers from them without botocore."""
        file = fleet_file.folder / "asyncauth.toml"
        file.write_text("cache = true\n" + file.read_text())
        first = fleet_file.run("credentials", MEMBERS[0].id, "--fleet", "asyncauth.toml")
        code = (
            "import sys\nfrom asyncauth.__main__ import main\ncode = main()\n"
            "print('botocore' in sys.modules, file=sys.stderr)\nsys.exit(code)"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, "credentials", MEMBERS[0].id, "--fleet", "asyncauth.toml"],
            cwd=fleet_file.folder,
            env=fleet_file.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        checked = fleet_file.run("check", "--fleet", "asyncauth.toml", "--exclude", MEMBERS[1].id)
        without = fleet_file.run("check", "--fleet", "asyncauth.toml", "--exclude", MEMBERS[1].id, "--no-cache")

        assert (first.code, second.returncode, checked.code, without.code) == (0, 0, 0, 0), second.stderr
        assert json.loads(first.stdout)["AccessKeyId"] == json.loads(second.stdout)["AccessKeyId"]
        assert second.stderr == "False\n"
        assert fleet_file.fleet.blocking.counts().calls("sts", "AssumeRole") == 2

    def test_another_profile_in_the_file_is_another_source(self, fleet_file: CommandLine) -> None:
        """A file whose source changes is not served the token of the former source, and a named role is another."""
        file = fleet_file.folder / "asyncauth.toml"
        text = "cache = true\n" + file.read_text()
        other = fleet_file.fleet.blocking.add_identity("other")
        config = fleet_file.folder / "home" / ".aws" / "config"
        config.write_text(
            f"{config.read_text()}\n[profile other]\naws_access_key_id = {other.access_key_id}\n"
            f"aws_secret_access_key = {other.secret_access_key}\n"
        )
        for content in (text, text.replace('"global"', '"other"'), 'role = "deploy"\n' + text):
            file.write_text(content)
            fleet_file.run("credentials", MEMBERS[0].id, "--fleet", "asyncauth.toml")

        assert fleet_file.fleet.blocking.counts().calls("sts", "AssumeRole") == 3

    def test_profiles_have_the_source_of_their_account(self, fleet_file: CommandLine) -> None:
        """An account of a fleet file that has its own profile gets that one in its section."""
        (fleet_file.folder / "accounts.toml").write_text(
            f'[sources.aws]\nprofile = "global"\n[[accounts]]\nid = "{MEMBERS[0].id}"\nprofile = "own"\n'
            f'[[accounts]]\nid = "{MEMBERS[1].id}"\nrole = "manage-role"\nprofile = "own"\n'
        )
        done = fleet_file.run("profiles", "--fleet", "accounts.toml")

        assert done.code == 0, done.stderr
        sections = done.stdout.split("[profile ")[1:]
        assert all("--profile own --fleet" in section for section in sections)
        assert sections

    def test_a_profile_replaces_the_sources_of_the_file(self, fleet_file: CommandLine) -> None:
        """`--profile` is the source of every partition, whatever sources the file has."""
        file = fleet_file.folder / "asyncauth.toml"
        file.write_text(file.read_text().replace('"global"', '"missing"'))
        refused = fleet_file.run("check", "--fleet", "asyncauth.toml")
        done = fleet_file.run("check", "--fleet", "asyncauth.toml", "--profile", "global")

        assert (refused.code, done.code) == (4, 0), done.stderr


class TestProfilesOfAFleetFile:
    def test_the_role_of_the_file_reaches_the_profile(self, cli: CommandLine) -> None:
        """A profile's command assumes the file's role with its session name, lifetime and tags, as a run does."""
        (cli.folder / "asyncauth.toml").write_text(
            f'accounts = ["{MEMBERS[0].id}"]\n[sources.aws]\nprofile = "global"\n'
            '[role]\nname = "manage-role"\nrole_session_name = "nightly"\nduration_seconds = 1800\n'
            'tags = { team = "net" }\n'
        )
        printed = cli.run("profiles", "--fleet", "asyncauth.toml", "--no-cache")
        line = next(line for line in printed.stdout.splitlines() if line.startswith("credential_process"))
        arguments = shlex.split(line)[shlex.split(line).index("credentials") :]
        done = cli.run(*arguments)
        assumed = cli.fleet.blocking.assumed(MEMBERS[0])[-1]

        assert done.code == 0, done.stderr
        assert "--role-session-name" not in arguments
        assert (assumed.role_session_name, assumed.duration_seconds) == ("nightly", 1800)
        assert assumed.tags == {"team": "net"}

    def test_an_account_with_a_role_of_its_own(self, cli: CommandLine) -> None:
        """Session name and lifetime become options; an account whose role has more gets no profile, and is named."""
        (cli.folder / "asyncauth.toml").write_text(
            f'[sources.aws]\nprofile = "global"\n[[accounts]]\nid = "{MEMBERS[0].id}"\nrole = "own"\n'
            f'[[accounts]]\nid = "{MEMBERS[1].id}"\nrole = "tagged"\n'
            '[roles.own]\nname = "audit"\nrole_session_name = "nightly"\nduration_seconds = 900\n'
            '[roles.tagged]\nname = "audit"\ntags = { team = "net" }\nsource_identity = "ops"\n'
        )
        printed = cli.run("profiles", "--fleet", "asyncauth.toml")

        assert printed.code == 0, printed.stderr
        assert printed.stdout.count("[profile ") == 1
        assert "--role-session-name nightly --duration-seconds 900" in printed.stdout
        assert f"1 accounts get no profile, the first is {MEMBERS[1].id}" in printed.stderr
        assert "source_identity, tags" in printed.stderr

    def test_a_fleet_file_is_read_once(self, cli: CommandLine) -> None:
        """Every part of a command works with the one content that was checked, whatever the file becomes meanwhile."""
        (cli.folder / "asyncauth.toml").write_text(
            f'accounts = ["{MEMBERS[0].id}"]\n[sources.aws]\nprofile = "global"\n'
        )
        code = (
            "import sys\nfrom asyncauth._models import fleet_file\nparse, reads = fleet_file.parse_toml, []\n"
            "fleet_file.parse_toml = lambda *each: (reads.append(each), parse(*each))[1]\n"
            "from asyncauth.__main__ import main\ncode = main()\nprint(len(reads), file=sys.stderr)\nsys.exit(code)"
        )
        for arguments in ([], ["--fleet", "asyncauth.toml", "--cache"]):
            done = subprocess.run(
                [sys.executable, "-c", code, "accounts", *arguments],
                cwd=cli.folder,
                env=cli.environ,
                capture_output=True,
                text=True,
                check=False,
            )

            assert (done.returncode, done.stderr.strip()) == (0, "1")
