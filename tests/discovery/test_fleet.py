"""Fleet file end to end: a pool and its accounts, sources and options from one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asyncauth import Account, ConfigurationError, Keys, RateLimit, Role, SessionPool
from asyncauth.discovery import FleetRun, fleet_accounts, fleet_run
from asyncauth.testing import SimulatedFleet
from tests.support.fleets import who_am_i

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]


async def keys_of_the_test() -> Keys:
    raise AssertionError("not called")


def set_keys(monkeypatch: pytest.MonkeyPatch, keys: Keys, prefix: str) -> None:
    monkeypatch.setenv(f"{prefix}AWS_ACCESS_KEY_ID", keys.access_key_id)
    monkeypatch.setenv(f"{prefix}AWS_SECRET_ACCESS_KEY", keys.secret_access_key)


async def test_one_file_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inline accounts, another file and an organization in two partitions, each account once."""
    china = [Account("210987654321", partition="aws-cn")]
    async with SimulatedFleet([Account(f"11111111111{n}") for n in range(5)] + china) as fleet:
        set_keys(monkeypatch, fleet.keys(), "")
        set_keys(monkeypatch, fleet.keys("aws-cn"), "CN_")
        (tmp_path / "vendors.csv").write_text("id,tag:team\n111111111111,blue\n111111111110,red\n", encoding="utf-8")
        path = tmp_path / "fleet.toml"
        path.write_text(
            f"""
regions = ["us-east-1", "cn-north-1"]

[sources.aws]
environment = ""

[sources.aws-cn]
environment = "CN_"

[pool]
endpoint_url = "{fleet.endpoint_url}"
allow_long_term = true
max_at_once = 3

[[rate_limits]]
service = "sts"
action = "GetCallerIdentity"
rate = 1000

[run]
timeout = 60
journal = "journal"

[[accounts]]
id = "arn:aws-cn:iam::210987654321:role/manage-role"

[[accounts]]
id = "111111111110"
name = "first"

[discovery]
exclude = ["111111111114"]
files = [{{ path = "vendors.csv" }}]
organizations = [{{ management = "auto", organization_id = "{fleet.organization_id()}" }}]
""",
            encoding="utf-8",
        )
        async with SessionPool.from_file(path) as pool:
            options = pool.run_options
            found = [account async for account in fleet_accounts(path, pool)]
            own = [account for account in found if account.id != fleet.management().id]
            report = await pool.map(who_am_i, own, **options)
            with pytest.raises(ConfigurationError, match="needs the open pool to list them"):
                await anext(fleet_accounts(path))

    assert options == {"timeout": 60, "journal": tmp_path / "journal", "regions": ("us-east-1", "cn-north-1")}
    assert [(account.id, account.name, dict(account.tags)) for account in found[:3]] == [
        ("210987654321", None, {}),
        ("111111111110", "first", {}),
        ("111111111111", None, {"team": "blue"}),
    ]
    assert sorted(account.id for account in found[3:]) == ["111111111112", "111111111113", fleet.management().id]
    assert {outcome.account.id: outcome.value.split(":")[4] for outcome in report.succeeded} == {
        account.id: account.id for account in own
    }


ROLES = """
role = "spoke"

[roles.spoke]
external_id = "from-the-table"

[roles.audit]
name = "team/auditor"
duration_seconds = 900

[roles]
chained = ["arn:aws:iam::999999999999:role/hub", "deploy"]

[[accounts]]
id = "111111111111"

[[accounts]]
id = "222222222222"
role = "audit"

[[accounts]]
id = "333333333333"
role = "chained"

[[accounts]]
id = "444444444444"
role = "named-by-aws"
"""


async def test_accounts_refer_to_named_roles(tmp_path: Path) -> None:
    """A table's name is by default its key, an array is a chain, and any other name is a role of the account."""
    path = tmp_path / "fleet.toml"
    path.write_text(ROLES, encoding="utf-8")

    pool = SessionPool.from_file(path)
    found = [account async for account in fleet_accounts(path)]

    assert pool.role == Role("spoke", external_id="from-the-table")
    assert [account.role for account in found] == [
        None,
        Role("auditor", "/team/", duration_seconds=900),
        Role("deploy", via=("arn:aws:iam::999999999999:role/hub",)),
        "named-by-aws",
    ]


@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_an_organization_has_a_role_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition: str
) -> None:
    """It is assumed in each account of the organization; the management account keeps acting as the source."""
    members = [Account(f"11111111111{n}", partition=partition) for n in range(3)]
    async with SimulatedFleet(members, role="deploy") as fleet:
        set_keys(monkeypatch, fleet.keys(partition), "")
        path = tmp_path / "fleet.toml"
        path.write_text(
            f"""
sources.{partition} = {{ environment = "" }}
roles.spoke = {{ name = "deploy", duration_seconds = 900 }}
[pool]
endpoint_url = "{fleet.endpoint_url}"
allow_long_term = true
[[discovery.organizations]]
partition = "{partition}"
role = "spoke"
""",
            encoding="utf-8",
        )
        async with SessionPool.from_file(path) as pool:
            report = await pool.map(who_am_i, fleet_accounts(path, pool))
        management = fleet.management(partition).id

    arns = {outcome.account.id: outcome.value for outcome in report.succeeded}
    assert arns.keys() == {management, *(account.id for account in members)}
    assert all((":assumed-role/deploy/" in arn) == (one_id != management) for one_id, arn in arns.items())


async def test_the_settings_of_runs_are_one_object(tmp_path: Path) -> None:
    """Regions, options with the journal beside the file, rate limits and the cache, as `pool.map` takes them."""
    path = tmp_path / "fleet.toml"
    path.write_text(
        """
regions = ["enabled", "!ap-*"]
cache = "tokens"
[run]
max_at_once = 7
journal = "runs/journal"
failure_tolerance = 0.5
progress = false
[[rate_limits]]
service = "ec2"
rate = 20.0
""",
        encoding="utf-8",
    )

    run = fleet_run(path)
    pool = SessionPool.from_file(path)

    options = {"max_at_once": 7, "journal": tmp_path / "runs/journal", "failure_tolerance": 0.5, "progress": False}
    assert run == FleetRun(
        path=path,
        regions=("enabled", "!ap-*"),
        options=options,  # type: ignore[arg-type]
        rate_limits=(RateLimit("ec2", rate=20),),
        cache=True,
        cache_directory=tmp_path / "tokens",
    )
    assert pool.run_options == {**options, "regions": run.regions}
    path.write_text("", encoding="utf-8")
    assert fleet_run(path) == FleetRun(path, None, {}, (), False, None)


async def test_the_settings_of_runs_need_no_botocore(tmp_path: Path) -> None:
    """A command that answers from the cache reads them in a few milliseconds."""
    (tmp_path / "asyncauth.toml").write_text('cache = true\nregions = ["us-east-1"]', encoding="utf-8")
    code = (
        "import sys; from asyncauth.discovery import fleet_run; run = fleet_run('asyncauth.toml'); "
        "assert run.cache and run.regions; assert 'botocore' not in sys.modules"
    )

    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: ASYNC221 - there is nothing else to run

    assert (result.returncode, result.stderr) == (0, "")


async def test_the_cache_of_the_file_keeps_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second pool needs no AssumeRole; an argument switches the cache off; an unsafe directory has its place."""
    async with SimulatedFleet(1) as fleet:
        set_keys(monkeypatch, fleet.keys(), "")
        path = tmp_path / "fleet.toml"
        path.write_text(
            f'cache = "tokens"\n[pool]\nendpoint_url = "{fleet.endpoint_url}"\n[sources.aws]\nenvironment = ""',
            encoding="utf-8",
        )
        for _ in range(2):
            async with SessionPool.from_file(path) as pool:
                await pool.map(who_am_i, fleet.accounts)
        once = (await fleet.counts()).calls("sts", "AssumeRole")
        async with SessionPool.from_file(path, token_cache=None) as pool:
            await pool.map(who_am_i, fleet.accounts)
        twice = (await fleet.counts()).calls("sts", "AssumeRole")
    (tmp_path / "tokens").chmod(0o777)

    assert (once, twice) == (1, 2)
    with pytest.raises(ConfigurationError, match=r"fleet.toml: cache: .*tokens"):
        SessionPool.from_file(path)


async def test_arguments_replace_those_of_the_file(tmp_path: Path) -> None:
    """A role table, a function, a CA bundle and a proxy become the pool's; an argument wins."""
    path = tmp_path / "fleet.toml"
    path.write_text(
        """
role = { name = "team/deploy", duration_seconds = 900 }
[sources.aws]
function = "tests.discovery.test_fleet:keys_of_the_test"
[sources.aws-cn]
profile = "china"
[pool]
ca_bundle = "ca.pem"
proxy = "http://proxy:3128"
""",
        encoding="utf-8",
    )

    pool = SessionPool.from_file(path, max_at_once=4)

    assert (pool.role.path, pool.role.name, pool.role.duration_seconds) == ("/team/", "deploy", 900)
    settings = pool._settings
    assert settings.max_at_once == 4
    assert settings.verify == str(tmp_path / "ca.pem")
    assert settings.config.proxies == {"http": "http://proxy:3128", "https": "http://proxy:3128"}  # type: ignore[union-attr]
    assert SessionPool.from_file(path).run_options == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("role = 'a b'", "role's name"),
        ("role = { duration_seconds = 1 }", "fleet.toml: role: duration_seconds must be"),
        ("[[rate_limits]]\nservice = 'ec2'", r"rate_limits\[0\]: a RateLimit on 'ec2' limits nothing"),
        ("[sources.aws]\nfunction = 'no_such_module:f'", "sources.aws.function: no_such_module:f cannot be imported"),
        ("[sources.aws]\nfunction = 'os:nothing'", "os:nothing cannot be imported"),
        ("[sources.aws]\nfunction = 'os:sep'", "os:sep is no function"),
        ("[sources.aws]\nenvironment = 'X_'", "X_AWS_ACCESS_KEY_ID and X_AWS_SECRET_ACCESS_KEY is not set"),
    ],
)
async def test_a_mistake_is_found_before_the_pool_opens(tmp_path: Path, text: str, message: str) -> None:
    """With the path of the value in the file."""
    path = tmp_path / "fleet.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=message):
        SessionPool.from_file(path)


async def test_malformed_keys_in_variables_are_named_without_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the place in the file."""
    monkeypatch.setenv("X_AWS_ACCESS_KEY_ID", "short")
    monkeypatch.setenv("X_AWS_SECRET_ACCESS_KEY", "hidden-value")
    path = tmp_path / "fleet.toml"
    path.write_text("[sources.aws]\nenvironment = 'X_'", encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"sources.aws.environment: access_key_id must be") as caught:
        SessionPool.from_file(path)

    assert "hidden-value" not in str(caught.value)


async def test_profiles_and_portals_of_the_file(tmp_path: Path) -> None:
    """A profile's account comes from the file that the table names, a portal is looked up by its session."""
    (tmp_path / "config").write_text("[profile one]\naws_account_id = 111111111111\n", encoding="utf-8")
    path = tmp_path / "fleet.toml"
    path.write_text('[[discovery.profiles]]\nconfig_file = "config"\nmatch = "o*"\n', encoding="utf-8")
    found = [account.name async for account in fleet_accounts(path)]
    path.write_text('[[discovery.portals]]\nsso_session = "corp"\nrole = "ReadOnly"\n', encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"no section \[sso-session corp\]"):
        await anext(fleet_accounts(path))
    assert found == ["one"]
