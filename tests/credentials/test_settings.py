"""Settings that botocore cannot read: each mistake is one ConfigurationError that names variable, file or profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiobotocore.session import AioSession
from botocore.session import Session

from asyncauth import ConfigurationError, Keys, Profile, SourceError
from asyncauth._credentials.sources.settings import describe_slow_setting
from tests.support.sources import open_source, write_home_file
from tests.support.wire.stubs import SECRET

if TYPE_CHECKING:
    from asyncauth._credentials.sources import SourceSpec

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ID = "AKIAIOSFODNN7EXAMPLE"
KEYS = f"aws_access_key_id = {ID}\naws_secret_access_key = {SECRET}\n"


async def refusal_of(spec: SourceSpec) -> str:
    """Return the message of the ConfigurationError that resolving a source raises."""
    async with open_source(spec) as source:
        with pytest.raises(ConfigurationError) as raised:
            await source.credentials()
    assert SECRET not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("value", ["", "many", "5s"])
@pytest.mark.parametrize(
    "variable", ["AWS_MAX_ATTEMPTS", "AWS_METADATA_SERVICE_TIMEOUT", "AWS_METADATA_SERVICE_NUM_ATTEMPTS"]
)
@pytest.mark.parametrize("spec", [None, Keys(ID, SECRET), AioSession()])
async def test_a_variable_that_is_no_number_is_named(
    variable: str, value: str, spec: SourceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that botocore converts to a number is named when it is empty or a text, for every kind of source."""
    monkeypatch.setenv(variable, value)

    message = await refusal_of(spec)

    assert (
        f"the variable {variable} {'is empty' if not value else f'is {value!r}'}, it must be a whole number" in message
    )


async def test_a_setting_that_is_no_number_is_named() -> None:
    """A number of a profile is named with the profile."""
    write_home_file(".aws/config", f"[profile p]\nmax_attempts = many\n{KEYS}")

    assert "the setting max_attempts of profile 'p' is 'many'" in await refusal_of(Profile("p"))


@pytest.mark.parametrize("setting", ["source_profile", "credential_source"])
async def test_a_long_value_is_cut(setting: str) -> None:
    """botocore quotes a value as it is; the message has its beginning."""
    role = "role_arn = arn:aws:iam::111111111111:role/r\n"
    write_home_file(".aws/config", f"[profile p]\n{role}{setting} = {'x' * 100_000}\n")
    async with open_source(Profile("p")) as source:
        with pytest.raises(SourceError) as raised:
            await source.credentials()

    assert "xxx" in str(raised.value)
    assert len(str(raised.value)) < 600


async def test_a_long_name_of_a_profile_is_cut() -> None:
    """A name that is not there is a mistake, and the message has its beginning."""
    assert len(await refusal_of(Profile("x" * 100_000))) < 600


@pytest.mark.parametrize("value", ["many", "1.5", "1h", "x" * 100_000])
async def test_a_duration_that_is_no_number_is_named(value: str) -> None:
    """botocore ignores such a duration_seconds; the message has the beginning of a long one."""
    role = "role_arn = arn:aws:iam::111111111111:role/r\nsource_profile = q\n"
    write_home_file(".aws/config", f"[profile p]\n{role}duration_seconds = {value}\n[profile q]\n{KEYS}")

    message = await refusal_of(Profile("p"))

    assert f"the setting duration_seconds of profile 'p' is '{value[:20]}" in message
    assert len(message) < 400


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO"])
@pytest.mark.parametrize("partition", ["aws", "aws-cn"])
async def test_an_endpoint_variable_without_scheme_is_named(
    variable: str, partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint for credentials without http or https is named; other services' endpoints are not checked."""
    monkeypatch.setenv(variable, "localhost:4566")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    role = f"[profile p]\nrole_arn = arn:{partition}:iam::222222222222:role/r\nsource_profile = b\n[profile b]\n{KEYS}"
    write_home_file(".aws/config", role)

    assert f"the variable {variable} is 'localhost:4566': an endpoint must begin with" in await refusal_of(Profile("p"))


async def test_an_endpoint_setting_without_scheme_is_named() -> None:
    """The endpoint of a profile is named with the profile."""
    write_home_file(".aws/config", f"[profile p]\nendpoint_url = localhost:4566\n{KEYS}")

    assert "the setting endpoint_url of profile 'p' is 'localhost:4566'" in await refusal_of(Profile("p"))


@pytest.mark.parametrize("variables", [{"AWS_ENDPOINT_URL": ""}, {"AWS_ENDPOINT_URL": "x", "IGNORE": "true"}])
async def test_endpoints_that_botocore_ignores_are_not_checked(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty endpoint counts as unset, and AWS_IGNORE_CONFIGURED_ENDPOINT_URLS switches all of them off."""
    for name, value in variables.items():
        monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS" if name == "IGNORE" else name, value)
    write_home_file(".aws/config", f"[profile p]\n{KEYS}")
    async with open_source(Profile("p")) as source:
        assert (await source.credentials()).access_key_id == ID


@pytest.mark.parametrize(
    "setting",
    [
        "region = eu-west-1 # home",
        "region = cn-north-1 ; Beijing",
        "role_arn = arn:aws-cn:iam::222222222222:role/r # reader",
        "source_profile = base # keys",
        "endpoint_url = http://localhost #local",
    ],
)
@pytest.mark.parametrize("in_source_profile", [False, True])
async def test_a_comment_after_a_value_is_named(setting: str, in_source_profile: bool) -> None:
    """A comment on the line of a setting becomes part of its value; the error names profile, setting and value."""
    name = "q" if in_source_profile else "p"
    config = f"[profile base]\n{KEYS}[profile {name}]\n{setting}\n"
    if in_source_profile:
        config += "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/r\nsource_profile = q\n"
    write_home_file(".aws/config", config)

    message = await refusal_of(Profile("p"))

    key, _, value = setting.partition(" = ")
    assert (
        f"in profile {name!r} the setting {key} is {value!r}: a comment after a value is part of the value" in message
    )


async def test_a_name_of_a_profile_may_contain_a_comment_sign() -> None:
    """A source profile that exists is not taken for a name with a comment."""
    write_home_file(".aws/config", f"[profile 'a # b']\n{KEYS}")
    async with open_source(Profile("a # b")) as source:
        assert (await source.credentials()).access_key_id == ID


@pytest.mark.parametrize(
    ("file", "section", "correction"),
    [
        (".aws/config", "p", "~/.aws/config has a section [p]; in that file it must be [profile p]"),
        (".aws/credentials", "profile p", "~/.aws/credentials has a section [profile p]; in that file it must be [p]"),
    ],
)
async def test_a_section_with_a_wrong_prefix_is_named(file: str, section: str, correction: str) -> None:
    """A profile that does not exist because of the prefix of its section: the error names the section and the file."""
    write_home_file(file, f"[{section}]\n{KEYS}")

    message = await refusal_of(Profile("p"))

    assert "the profile 'p' is neither in the config file nor in the credentials file" in message
    assert correction in message


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AWS_PROFILE": ""}, (ID, "eu-west-1")),
        ({"AWS_DEFAULT_PROFILE": ""}, (ID, "eu-west-1")),
        ({"AWS_DEFAULT_PROFILE": "", "AWS_PROFILE": "other"}, ("AKIAI44QH8DHBEXAMPLE", "cn-north-1")),
        ({"AWS_DEFAULT_REGION": ""}, (ID, "eu-west-1")),
        ({"AWS_DEFAULT_REGION": "", "AWS_PROFILE": "other"}, ("AKIAI44QH8DHBEXAMPLE", "cn-north-1")),
        ({"AWS_CONFIG_FILE": "", "AWS_SESSION_TOKEN": "", "AWS_RETRY_MODE": ""}, (ID, None)),
    ],
)
async def test_an_empty_variable_counts_as_unset(
    variables: dict[str, str], expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Profile and region are those of the files when their variables are empty."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    other = KEYS.replace(ID, "AKIAI44QH8DHBEXAMPLE")
    write_home_file(".aws/config", "[default]\nregion = eu-west-1\n[profile other]\nregion = cn-north-1\n")
    write_home_file(".aws/credentials", f"[default]\n{KEYS}[other]\n{other}")
    async with open_source(None) as source:
        found = (await source.credentials()).access_key_id, (await source.facts()).region_name
        session = await source.aio_session()

    assert found == expected
    assert (session.get_config_variable("region") or None) == expected[1]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("credential_process = program", "the credential_process of profile 'q' may not have ended"),
        ("mfa_serial = arn:aws:iam::222222222222:mfa/user", "the code for the mfa_serial of profile 'q'"),
        ("region = eu-west-1", None),
    ],
)
def test_the_setting_of_a_slow_load_is_described(setting: str, expected: str | None) -> None:
    """A `credential_process` or an MFA code of a source profile may take forever; other settings do not."""
    role = "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/r\nsource_profile = q\n"
    write_home_file(".aws/config", f"{role}[profile q]\n{setting}\nsource_profile = p\n")

    described = describe_slow_setting(Session(profile="p"))

    assert (described and described[: len(expected or "")]) == expected
