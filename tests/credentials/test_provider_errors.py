"""Errors of boto's providers: each names the setting, variable or answer that is invalid, and no secret."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import AsyncAuthError, Profile
from tests.support.sources import open_source, write_home_file
from tests.support.wire.stubs import SECRET

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.botocore]

ANSWER = {
    "Version": 1,
    "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
    "SecretAccessKey": SECRET,
    "SessionToken": f"{SECRET}-token",
}
ROLE_PROFILE = "[profile p]\nregion = us-east-1\nrole_arn = {arn}\n"


async def message_of(profile: str | None) -> str:
    """Return the message of the error that resolving a profile raises."""
    async with open_source(None if profile is None else Profile(profile)) as source:
        with pytest.raises(AsyncAuthError) as raised:
            await source.credentials()
    message = str(raised.value)
    assert SECRET not in message
    assert "boto failed with" not in message
    return message


def process_that_prints(directory: Path, text: str) -> str:
    """Return the command of a program that prints a text."""
    program = directory / "process.py"
    program.write_text(f"import sys; sys.stdout.write({text!r})")
    return f"{sys.executable} {program}"


@pytest.mark.parametrize("expiration", ["", "soon", 1893456000, "2030-01-01T00:00:00", "9" * 30])
@pytest.mark.parametrize("behind_a_role", [False, True])
async def test_an_expiration_that_is_not_a_time_is_named(tmp_path: Path, expiration: Any, behind_a_role: bool) -> None:
    """An Expiration of a `credential_process` that boto cannot read is named, also if a role is assumed with it."""
    command = process_that_prints(tmp_path, json.dumps({**ANSWER, "Expiration": expiration}))
    name = "base" if behind_a_role else "p"
    config = f"[profile {name}]\ncredential_process = {command}\n"
    if behind_a_role:
        config += ROLE_PROFILE.format(arn="arn:aws-cn:iam::222222222222:role/r") + "source_profile = base\n"
    write_home_file(".aws/config", config)

    message = await message_of("p")

    assert "profile 'p': the Expiration in the answer of the credential_process is not a time" in message


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("[1]", "the answer of the credential_process is not a JSON object"),
        (json.dumps({**ANSWER, "Version": 2}), "its credential_process failed or printed an unusable answer"),
        (json.dumps({name: value for name, value in ANSWER.items() if name != "Version"}), "unusable answer"),
        (json.dumps({**ANSWER, "Expiration": "2001-01-01T00:00:00Z"}), "expired"),
        ("not JSON {", "is not JSON (not shown"),
        ("", "is not JSON (not shown"),
        (json.dumps({**ANSWER, "SecretAccessKey": None}), "the secret access key is empty"),
        (json.dumps({**ANSWER, "SecretAccessKey": 5}), "the secret access key is not a text"),
        (json.dumps({**ANSWER, "AccessKeyId": ""}), "the access key id is empty"),
    ],
)
async def test_an_unusable_answer_of_a_credential_process_is_named(tmp_path: Path, printed: str, expected: str) -> None:
    """An answer that is no JSON object, or has no usable keys, is named and not quoted."""
    write_home_file(".aws/config", f"[profile p]\ncredential_process = {process_that_prints(tmp_path, printed)}\n")

    assert expected in await message_of("p")


@pytest.mark.parametrize("command", ["", 'program "argument'])
async def test_a_credential_process_that_is_not_a_command_is_named(command: str) -> None:
    """An empty command, and one with an open quote, is an error of the setting."""
    write_home_file(".aws/config", f"[profile p]\ncredential_process = {command}\n")

    assert "its credential_process is not a command" in await message_of("p")


@pytest.mark.parametrize(
    ("credential_source", "expected"),
    [
        ("Environment", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"),
        ("Ec2InstanceMetadata", "EC2's metadata service gave no keys"),
        ("EcsContainer", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI are not set"),
    ],
)
async def test_a_credential_source_that_finds_nothing_is_named(credential_source: str, expected: str) -> None:
    """The error names the `credential_source` and the settings that it lacks."""
    arn = "arn:aws:iam::222222222222:role/r"
    write_home_file(".aws/config", ROLE_PROFILE.format(arn=arn) + f"credential_source = {credential_source}\n")

    assert f"its credential_source {credential_source} found no keys: {expected}" in await message_of("p")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/x"}, "AWS_CONTAINER_CREDENTIALS_FULL_URI: it must"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "localhost/x"}, "AWS_CONTAINER_CREDENTIALS_FULL_URI: it must begin"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": ""}, "AWS_CONTAINER_CREDENTIALS_FULL_URI: it must begin"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "v2/x y"}, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path"),
        (
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"{SECRET}\n",
            },
            "the token of AWS_CONTAINER_AUTHORIZATION_TOKEN (not shown",
        ),
        (
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/x",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "token",
            },
            "the token of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE (not shown",
        ),
        (
            {
                "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_CREDENTIAL_EXPIRATION": "soon",
            },
            "the variable AWS_CREDENTIAL_EXPIRATION is not a time",
        ),
        (
            {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "localhost", "AWS_EC2_METADATA_DISABLED": "false"},
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        ),
    ],
)
async def test_a_variable_that_boto_refuses_is_named(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An invalid address, token or time in a variable is an error that names the variable."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert expected in await message_of(None)
