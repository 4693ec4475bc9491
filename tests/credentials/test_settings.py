"""Settings that botocore cannot read: each mistake is one ConfigurationError that names variable, file or profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiobotocore.session import AioSession
from botocore import args
from botocore.config import Config
from botocore.exceptions import InvalidRetryModeError
from botocore.session import Session
from botocore.utils import ensure_boolean

from asyncauth import ConfigurationError, Keys, Profile, SourceError
from asyncauth._credentials.sources.setting_values import CHOICES, EXACT, SECTIONS
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


#: A value that boto refuses when it builds a client, or ignores: setting, variable, value, and what it must be.
UNKNOWN_VALUES = [
    ("defaults_mode", "AWS_DEFAULTS_MODE", "must be one of legacy, auto, standard"),
    ("retry_mode", "AWS_RETRY_MODE", "must be one of legacy, standard, adaptive"),
    ("sts_regional_endpoints", "AWS_STS_REGIONAL_ENDPOINTS", "must be one of legacy, regional"),
    ("account_id_endpoint_mode", "AWS_ACCOUNT_ID_ENDPOINT_MODE", "must be one of preferred, disabled, required"),
    ("request_checksum_calculation", "AWS_REQUEST_CHECKSUM_CALCULATION", "must be one of when_supported"),
    ("response_checksum_validation", "AWS_RESPONSE_CHECKSUM_VALIDATION", "must be one of when_supported"),
    ("request_min_compression_size_bytes", "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES", "must be a whole number"),
    ("use_fips_endpoint", "AWS_USE_FIPS_ENDPOINT", "must be true or false"),
    ("use_dualstack_endpoint", "AWS_USE_DUALSTACK_ENDPOINT", "must be true or false"),
    ("ec2_metadata_v1_disabled", "AWS_EC2_METADATA_V1_DISABLED", "must be true or false"),
]


@pytest.mark.parametrize(("setting", "variable", "requirement"), UNKNOWN_VALUES)
@pytest.mark.parametrize("value", ["yes", "x" * 100_000, "\x1b[2Jred"])
async def test_a_value_that_boto_does_not_know_is_named(
    setting: str, variable: str, requirement: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped mode, number or switch is one ConfigurationError, from the environment and from the profile."""
    write_home_file(".aws/config", f"[profile p]\n{setting} = {value}\n{KEYS}")
    in_profile = await refusal_of(Profile("p"))
    monkeypatch.setenv(variable, value)
    in_variable = await refusal_of(Profile("p"))

    assert f"the setting {setting} of profile 'p' is" in in_profile
    assert f"the variable {variable} is" in in_variable
    for message in (in_profile, in_variable):
        assert requirement in message
        assert len(message) < 400
        assert message.isprintable()


@pytest.mark.parametrize(("setting", "variable", "_"), UNKNOWN_VALUES)
async def test_a_value_that_boto_knows_is_accepted(
    setting: str, variable: str, _: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each accepted value resolves, and so do capitals where boto takes them."""
    values: tuple[str, ...] = CHOICES.get(setting) or ("1024",)
    if requirement_is_a_switch(setting):
        values = ("true", "FALSE", "")
    elif setting in CHOICES and setting not in EXACT:
        values = (*values, values[0].upper())
    write_home_file(".aws/config", f"[profile p]\n{KEYS}")
    for value in values:
        monkeypatch.setenv(variable, value)
        async with open_source(Profile("p")) as source:
            assert (await source.credentials()).access_key_id == ID


def requirement_is_a_switch(setting: str) -> bool:
    return Session().session_var_map[setting][3] is ensure_boolean


@pytest.mark.parametrize("setting", SECTIONS)
async def test_a_section_with_a_value_is_named(setting: str) -> None:
    """`s3` and `api_versions` hold other settings; a value there is a mistake."""
    write_home_file(".aws/config", f"[profile p]\n{setting} = foo\n{KEYS}")

    assert f"the setting {setting} of profile 'p' is 'foo', it must be empty, with" in await refusal_of(Profile("p"))


async def test_a_value_in_the_section_of_s3_is_named() -> None:
    """boto would refuse it at the first client of S3."""
    write_home_file(".aws/config", f"[profile p]\n{KEYS}s3 =\n  addressing_style = paths\n")

    assert "the setting addressing_style below s3 of profile 'p' is 'paths'" in await refusal_of(Profile("p"))


async def test_a_value_of_the_program_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose program sets the mode does not read the variable."""
    monkeypatch.setenv("AWS_DEFAULTS_MODE", "foo")
    session = AioSession()
    session.set_config_variable("defaults_mode", "legacy")
    session.set_credentials(ID, SECRET)
    async with open_source(session) as source:
        assert (await source.credentials()).access_key_id == ID


def test_the_choices_are_those_of_botocore() -> None:
    """botocore's own lists, so that a value that it learns is accepted here too."""
    modes = Session()._get_internal_component("default_config_resolver").get_default_modes()

    assert list(CHOICES["defaults_mode"]) == modes
    assert list(CHOICES["sts_regional_endpoints"]) == args.VALID_REGIONAL_ENDPOINTS_CONFIG
    assert CHOICES["request_checksum_calculation"] == args.VALID_REQUEST_CHECKSUM_CALCULATION_CONFIG
    assert CHOICES["response_checksum_validation"] == args.VALID_RESPONSE_CHECKSUM_VALIDATION_CONFIG
    assert CHOICES["account_id_endpoint_mode"] == args.VALID_ACCOUNT_ID_ENDPOINT_MODE_CONFIG
    with pytest.raises(InvalidRetryModeError, match=r"legacy.*standard.*adaptive|standard") as raised:
        Config(retries={"mode": "foo"})
    assert all(mode in str(raised.value) for mode in CHOICES["retry_mode"])


@pytest.mark.parametrize(
    ("variables", "setting", "name"),
    [
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/missing/token", "AWS_ROLE_ARN": "arn:aws:iam::222222222222:role/r"},
            "",
            "the variable AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        (
            {},
            "role_arn = arn:aws:iam::222222222222:role/r\nweb_identity_token_file = /missing/token\n",
            "the setting web_identity_token_file of the profile",
        ),
        ({}, "credential_process = /missing/token\n", "the setting credential_process of the profile"),
        (
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/missing/token",
            },
            "",
            "the variable AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ),
    ],
)
async def test_a_missing_file_is_named_with_its_setting(
    variables: dict[str, str], setting: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a token and a program that are not there are named with the variable or the setting."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    if setting:
        write_home_file(".aws/config", f"[default]\n{setting}")
    async with open_source(None) as source:
        with pytest.raises(SourceError) as raised:
            await source.credentials()

    assert f"{name} names '/missing/token', which cannot be used: No such file or directory" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"[profile p]\n{KEYS}no setting\n", ": line 4 is neither [profile NAME] nor a setting"),
        (f"{KEYS}", ": line 1 is neither [profile NAME] nor a setting"),
        (f"[profile p\n{KEYS}", ": line 1 is neither [profile NAME] nor a setting"),
        (f"[profile p]\n[profile q]\n[profile p]\n{KEYS}", ": line 3 repeats 'profile p'"),
        (f"[profile p]\n{KEYS}region = a\nregion = b\n", ": line 5 repeats 'region'"),
    ],
)
async def test_the_wrong_line_of_a_config_file_is_named(text: str, problem: str) -> None:
    """botocore's own error has the path only. The line itself is not quoted, because it may hold a secret."""
    write_home_file(".aws/config", text)

    assert f"config is not a config file that boto can read{problem}" in await refusal_of(Profile("p"))


async def test_a_config_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong AWS_CONFIG_FILE is why a profile is missing."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/missing/config")

    assert "AWS_CONFIG_FILE names '/missing/config', which does not exist" in await refusal_of(Profile("p"))
