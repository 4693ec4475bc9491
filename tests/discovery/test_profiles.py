"""Profiles: the accounts that boto's configuration files name, as boto reads them."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from asyncauth import SELF, Account, ConfigurationError, Profile, Role, SsoRole
from asyncauth.discovery import profile_accounts

HUB = "[profile hub]\naws_access_key_id = x\naws_secret_access_key = y\n"


def read(text: str, credentials: str = "", **arguments: Any) -> list[Account]:
    """Return the accounts of configuration files with this content, found as boto finds them."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name, content in (("config", text), ("credentials", credentials)):
            Path(folder, name).write_text(content, encoding="utf-8")
        patch.setenv("AWS_CONFIG_FILE", str(Path(folder, "config")))
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(Path(folder, "credentials")))

        async def collect() -> list[Account]:
            return [account async for account in profile_accounts(**arguments)]

        return anyio.run(collect)


NAMES = st.from_regex(r"[A-Za-z0-9_.-][A-Za-z0-9_. -]{0,10}[a-z]", fullmatch=True).filter(
    lambda name: name != "default"
)
IDS = st.from_regex(r"[0-9]{12}", fullmatch=True)
ROLES = st.from_regex(r"(team/)?[A-Za-z0-9+=,.@_-]{1,20}", fullmatch=True)
REGIONS = {"aws": "eu-west-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}


@st.composite
def profiles(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Return the settings of a profile, and the fields of its account; None if it names none."""
    partition = draw(st.sampled_from(sorted(REGIONS)))
    account_id, role = draw(IDS), draw(ROLES)
    settings = {"region": REGIONS[partition]}
    fields: dict[str, Any] = {"id": account_id, "partition": partition, "regions": (REGIONS[partition],)}
    kind = draw(st.sampled_from(["role", "credential_source", "sso", "legacy sso", "keys"]))
    if kind == "role":
        extra = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "external_id": st.from_regex(r"[A-Za-z0-9]{2,9}", fullmatch=True),
                    "role_session_name": st.from_regex(r"[A-Za-z]{2,9}", fullmatch=True),
                    "duration_seconds": st.integers(900, 43_200),
                },
            )
        )
        arn = f"arn:{partition}:iam::{account_id}:role/{role}"
        settings |= {"role_arn": arn, "source_profile": "hub", **{name: str(value) for name, value in extra.items()}}
        before, _, name = role.rpartition("/")
        fields |= {"role": Role(name, path=f"/{before}/" if before else "/", **extra), "source": Profile("hub")}
    elif kind == "credential_source":
        arn = f"arn:{partition}:iam::{account_id}:role/{role}"
        settings |= {"role_arn": arn, "credential_source": "Environment"}
        fields |= {"role": SELF, "source": None}
    elif kind == "keys":
        return settings | {"aws_access_key_id": "x"}, None
    else:
        settings |= {"sso_account_id": account_id, "sso_role_name": "ReadOnly"}
        settings |= (
            {"sso_session": "corp"} if kind == "sso" else {"sso_start_url": "https://x", "sso_region": "eu-west-1"}
        )
        fields |= {"role": SELF, "source": SsoRole("corp", account_id, "ReadOnly") if kind == "sso" else None}
    return settings, fields


@given(st.dictionaries(NAMES, profiles(), max_size=5))
def test_a_valid_configuration_is_read_back_equal(
    given: dict[str, tuple[dict[str, str], dict[str, Any] | None]],
) -> None:
    """Each profile that names an account is that account, in its partition, with its source; the others are none."""
    text = HUB + "[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://x\n"
    expected = []
    for name, (settings, fields) in given.items():
        text += f'[profile "{name}"]\n' + "".join(f"{key} = {value}\n" for key, value in settings.items())
        if fields is not None and name != "hub":
            source = fields["source"] or Profile(name)
            expected.append(Account(**{**fields, "source": source, "name": name}))

    keys = {(account.id, account.partition, account.role, account.source) for account in expected}
    if "hub" not in given and len(keys) == len(expected):
        assert read(text) == expected


#: Settings that make a profile invalid, and how its error begins, after the profile's name.
MISTAKES = st.sampled_from(
    [
        ({"sso_account_id": "12345678901"}, ".sso_account_id: "),
        ({"aws_account_id": "1234-5678-9012"}, ".aws_account_id: "),
        ({"role_arn": "arn:aws:iam::1:role/a"}, ": "),
        ({"role_arn": "deploy"}, ": "),
        ({"role_arn": "arn:aws:iam::111111111111:role/a", "source_profile": "b", "external_id": "x"}, ": external_id"),
        (
            {"role_arn": "arn:aws:iam::111111111111:role/a", "source_profile": "b", "duration_seconds": "1"},
            ": duration",
        ),
        ({"role_arn": "arn:aws:iam::111111111111:role/a", "source_profile": "b", "region": "mars-1"}, ": unknown reg"),
        ({"aws_account_id": "111111111111", "region": "us-eats-1"}, ": unknown region"),
        ({"login_session": "arn:aws:iam::1:user/a"}, ".login_session: "),
    ]
)
#: Lines that boto refuses at the place where they are put: between two sections.
BROKEN_LINES = st.sampled_from(["neither section nor setting", "[hidden", "= value", "[profile hub]"])


@examples(max_examples=60)
@given(
    valid=st.dictionaries(NAMES, profiles(), max_size=4),
    wrong=st.dictionaries(NAMES.map("x{}".format), MISTAKES, min_size=1, max_size=3),
)
def test_an_invalid_profile_is_named(
    valid: dict[str, tuple[dict[str, str], dict[str, Any] | None]],
    wrong: dict[str, tuple[dict[str, str], str]],
) -> None:
    """One error for the file, with the profile and the setting of each mistake, before any account is used."""
    sections = {name: settings for name, (settings, _) in [*valid.items(), *wrong.items()]}
    text = "".join(
        f'[profile "{name}"]\n' + "".join(f"{key} = {value}\n" for key, value in settings.items())
        for name, settings in sections.items()
    )

    with pytest.raises(ConfigurationError) as caught:
        read(text)

    lines = str(caught.value).splitlines()
    assert len(lines) == (1 if len(wrong) == 1 else len(wrong) + 1)
    for name, (_, message) in wrong.items():
        assert any(f"config: profile {name}{message}" in line for line in lines), lines


@examples(max_examples=60)
@given(
    valid=st.dictionaries(NAMES, profiles(), min_size=1, max_size=5),
    line=BROKEN_LINES,
    where=st.floats(0, 1),
    crlf=st.booleans(),
)
def test_a_line_that_boto_refuses_has_its_number(
    valid: dict[str, tuple[dict[str, str], dict[str, Any] | None]], line: str, where: float, crlf: bool
) -> None:
    """Wherever it is, in files with either kind of line ends."""
    sections = [HUB.splitlines()]
    for name, (settings, _) in valid.items():
        if name != "hub":
            sections.append([f'[profile "{name}"]', *(f"{key} = {value}" for key, value in settings.items())])
    at = 1 + int(where * (len(sections) - 1))
    sections.insert(at, [line])
    text = ("\r\n" if crlf else "\n").join(each for section in sections for each in section)

    with pytest.raises(ConfigurationError) as caught:
        read(text)

    number = sum(map(len, sections[:at])) + 1
    assert f"config, line {number}: boto cannot parse this file: " in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_profiles_of_both_files_are_merged_and_matched() -> None:
    """A profile's settings may be in the credentials file; only the profiles that match are read."""
    text = (
        "[default]\nregion = eu-west-1\n"
        "[profile prod-a]\nrole_arn = arn:aws:iam::111111111111:role/a\nsource_profile = default\n"
        "[profile prod-b]\nsource_profile = prod-a\n"
        "[profile dev]\nrole_arn = broken\n"
    )

    accounts = read(text, "[prod-b]\nrole_arn = arn:aws:iam::222222222222:role/team/b\n", match="prod-*")

    assert accounts == [
        Account("111111111111", name="prod-a", role=Role("a"), source=Profile("default")),
        Account("222222222222", name="prod-b", role=Role("b", path="/team/"), source=Profile("prod-a")),
    ]


@pytest.mark.parametrize(
    ("settings", "partition"),
    [
        ("role_arn = arn:aws:iam::111111111111:role/a\nsource_profile = hub\nmfa_serial = arn:aws:iam::1:mfa/a", "aws"),
        ("role_arn = arn:aws-cn:iam::111111111111:role/a\nweb_identity_token_file = t\nregion = us-east-1", "aws-cn"),
        ("role_arn = arn:aws:iam::111111111111:role/a\nsource_profile = one", "aws"),
        ("login_session = arn:aws-cn:sts::111111111111:assumed-role/a/b", "aws-cn"),
        ("aws_account_id = 111111111111\naws_access_key_id = x", "aws"),
    ],
)
def test_what_boto_alone_can_do_is_left_to_boto(settings: str, partition: str) -> None:
    """The account acts as its profile, without another role."""
    assert read(f"{HUB}[profile one]\n{settings}\n") == [
        Account("111111111111", partition=partition, name="one", source=Profile("one"), role=SELF)
    ]


def test_two_profiles_of_one_account_and_role_are_one() -> None:
    """The first name stays."""
    settings = "role_arn = arn:aws:iam::111111111111:role/a\nsource_profile = hub\n"

    assert [account.name for account in read(f"{HUB}[profile b]\n{settings}[profile a]\n{settings}")] == ["b"]


def test_a_section_that_boto_ignores_is_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """`[b]` without `profile`, and a profile with two words; the sections with a meaning of their own are not named."""
    with caplog.at_level(logging.WARNING, logger="asyncauth.discovery"):
        assert (
            read("[b]\nregion=x\n[profile a b]\n[profile 'x]\n[default]\n[plugins]\n[sso-session s]\n[services t]\n")
            == []
        )

    assert len(caplog.records) == 1
    assert "boto ignores the sections [b], [profile a b], [profile 'x]; a profile's section is [profile NAME]" in (
        caplog.text
    )


@pytest.mark.parametrize(
    ("text", "credentials", "message"),
    [
        ("[profile a]\nregion=x\n[profile a]\n", "", r"config, line 3: .*\[profile a\] is there twice"),
        ("[profile a]\nregion=x\nregion=y\n", "", r"config, line 3: .*region is there twice in \[profile a\]"),
        ("region=x\n", "", "config, line 1: .*before the first"),
        ("[profile a]\nregion\n", "", "config, line 2: .*neither"),
        (
            "[profile a]\n[profile b]\ns3 =\n  a = b\n  hidden-secret\n",
            "",
            "config, line 5: .*below s3 in .profile b. has no =",
        ),
        ("", "[a]\nhidden-secret\n", "credentials, line 2: .*neither"),
        ("[profile a]\nsso_account_id = 12345678901\n", "", "profile a.sso_account_id: .*leading zeros, 012345678901"),
        ("[profile a]\nrole_arn = arn:x\n", "", "profile a: not a role ARN"),
        (
            "[profile a]\nrole_arn = arn:aws:iam::111111111111:role/a\nsource_profile = b\nduration_seconds = 1h\n",
            "",
            "profile a: duration_seconds must be a whole number, got '1h'",
        ),
        ("[profile a]\naws_account_id = 111111111111\nregion = mars-1\n", "", "profile a: unknown region 'mars-1'"),
        ("[profile a]\nlogin_session = arn:aws:iam::1:user/a\n", "", "profile a.login_session: an account id"),
    ],
)
def test_a_mistake_is_located(text: str, credentials: str, message: str) -> None:
    """The file and the line for what boto cannot parse, else the profile; never the line itself."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(text, credentials)

    assert "hidden-secret" not in str(caught.value)


def test_a_named_file_is_read_in_place_of_botos(tmp_path: Path) -> None:
    """A named file must exist; without any file there are no accounts."""
    path = tmp_path / "team"
    path.write_text("[profile a]\naws_account_id = 111111111111\n", encoding="utf-8")

    assert [account.id for account in read("", config_file=path)] == ["111111111111"]
    with pytest.raises(ConfigurationError, match="gone: cannot be read: no such file"):
        read("", config_file=tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="match= must be a pattern"):
        profile_accounts(match=3)  # type: ignore[arg-type]


def test_no_configuration_is_no_account() -> None:
    """boto works without files, and so does this."""

    async def collect() -> list[Account]:
        return [account async for account in profile_accounts()]

    assert not Path(os.environ["HOME"], ".aws").exists()
    assert anyio.run(collect) == []
