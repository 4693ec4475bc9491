"""Fleet file end to end: a pool and its accounts, sources and options from one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncauth import Account, ConfigurationError, Keys, SessionPool
from asyncauth.discovery import fleet_accounts
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
