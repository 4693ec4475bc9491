"""Sources without usable credentials: the setup of each, and the parts of its error."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.wire.files import env_of, keys_in, login_files, sso_files
from tests.support.wire.scenarios import HAS_LOGIN, KNOWS_LOGIN
from tests.support.wire.world import stamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.wire.world import World


@dataclass
class Failure:
    """A source that fails.

    Args:
        error: the name of the error's type.
        message: texts that its message must contain.
        env, files: the environment and the files below the home directory.
        source: the source, as `probe.spec_of` reads it.
        own_process: it runs in a process of its own, because botocore sets the directory of SSO's tokens when it is
            imported, or because it is slow and runs beside the others.
    """

    error: str
    message: list[str]
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    own_process: bool = False


FAILURES: dict[str, Callable[[World, Path], Failure]] = {}


def failure(make: Callable[[World, Path], Failure]) -> Callable[[World, Path], Failure]:
    """Register a failure under its function's name."""
    FAILURES[make.__name__] = make
    return make


@failure
def no_provider_configured(world: World, home: Path) -> Failure:
    return Failure(
        "NoSourceCredentials",
        [
            "boto's default chain: no base credentials found",
            "AWS_ACCESS_KEY_ID is not set",
            "profile 'default' has no role_arn",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "sso_account_id",
            "~/.aws/credentials: there is no such file",
            *(["login_session"] if KNOWS_LOGIN else []),
            "credential_process",
            "~/.aws/config: there is no such file",
            "AWS_CREDENTIAL_FILE is not set",
            "~/.boto",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/nothing/ (1 attempts of 1 s each",
        ],
        env={"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{world.wire.url}/nothing/"},
        own_process=True,
    )


@failure
def files_without_keys(world: World, home: Path) -> Failure:
    return Failure(
        "NoSourceCredentials",
        [
            "profile 'empty': no base credentials found",
            "~/.aws/credentials: profile 'empty' has no aws_access_key_id in it",
            "~/.aws/config: profile 'empty' has no aws_access_key_id in it",
            f"{home / 'ec2.txt'} has no AWSAccessKeyId",
            f"{home / 'boto.cfg'} has no aws_access_key_id",
            "switched off by AWS_EC2_METADATA_DISABLED",
        ],
        env={"AWS_CREDENTIAL_FILE": str(home / "ec2.txt"), "BOTO_CONFIG": str(home / "boto.cfg")},
        files={
            ".aws/credentials": "[empty]\n",
            ".aws/config": "[profile empty]\n",
            "ec2.txt": "x=y\n",
            "boto.cfg": "[Boto]\n",
        },
        source={"profile": "empty"},
    )


@failure
def profile_that_does_not_exist(world: World, home: Path) -> Failure:
    return Failure(
        "ConfigurationError",
        ["profile 'taem'", "there are team"],
        files={".aws/credentials": keys_in("team", world.user("team"))},
        source={"profile": "taem"},
    )


@failure
def sso_session_that_expired(world: World, home: Path) -> Failure:
    return Failure(
        "SourceExpired",
        ["aws sso login --profile p"],
        files=sso_files("expired", "444444444444", refresh_token="unknown"),
        source={"profile": "p"},
        own_process=True,
    )


@failure
def sso_session_that_does_not_exist(world: World, home: Path) -> Failure:
    files = sso_files("never", "444444444444", refresh_token="unknown")
    return Failure(
        "SourceExpired",
        ["aws sso login --profile p"],
        files={".aws/config": files[".aws/config"]},
        source={"profile": "p"},
        own_process=True,
    )


if HAS_LOGIN:

    @failure
    def login_that_expired(world: World, home: Path) -> Failure:
        return Failure(
            "SourceExpired",
            ["aws login --profile p"],
            files=login_files("expired", refresh_token="unknown"),
            source={"profile": "p"},
        )

    @failure
    def login_that_does_not_exist(world: World, home: Path) -> Failure:
        return Failure(
            "SourceExpired",
            ["aws login --profile p"],
            files={".aws/config": "[profile p]\nlogin_session = never\n"},
            source={"profile": "p"},
        )


if KNOWS_LOGIN and not HAS_LOGIN:

    @failure
    def login_without_the_crt(world: World, home: Path) -> Failure:
        return Failure(
            "SourceError",
            ["pip install 'botocore[crt]'"],
            files={".aws/config": "[profile p]\nlogin_session = any\n"},
            source={"profile": "p"},
        )


@failure
def credential_process_that_fails(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["profile 'p'", "credential_process"],
        files={
            "process.py": "import sys; print('SecretAccessKey: s3cr3t'); sys.exit('secret_key=s3cr3t')",
            ".aws/config": f"[profile p]\ncredential_process = {sys.executable} {home / 'process.py'}\n",
        },
        source={"profile": "p"},
    )


@failure
def credential_process_that_prints_no_json(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["profile 'p'", "not JSON"],
        files={
            "process.py": "print('AKIAIOSFODNN7EXAMPLE s3cr3t')",
            ".aws/config": f"[profile p]\ncredential_process = {sys.executable} {home / 'process.py'}\n",
        },
        source={"profile": "p"},
    )


@failure
def credential_process_that_is_missing(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["No such file", "no-such-program"],
        files={".aws/config": "[profile p]\ncredential_process = no-such-program --password s3cr3t\n"},
        source={"profile": "p"},
    )


@failure
def web_identity_token_that_is_missing(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["No such file", str(home / "token")],
        env={
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"),
            "AWS_ROLE_ARN": "arn:aws:iam::222222222222:role/web",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
    )


@failure
def web_identity_token_that_is_refused(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["AssumeRoleWithWebIdentity answered InvalidIdentityToken"],
        env={
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"),
            "AWS_ROLE_ARN": "arn:aws:iam::222222222222:role/web",
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        files={"token": "s3cr3t.s3cr3t.s3cr3t"},
    )


def mfa_without_a_terminal(world: World, home: Path, partition: str) -> Failure:
    """A process of its own has no terminal."""
    return Failure(
        "SourceError",
        ["profile 'p': its mfa_serial needs a code, and there is no terminal", "Role(mfa_serial=, mfa_token=)"],
        files={
            ".aws/config": f"[profile p]\nrole_arn = {world.role('with-mfa', partition)}\nsource_profile = base\n"
            f"mfa_serial = arn:{partition}:iam::222222222222:mfa/user\n",
            ".aws/credentials": keys_in("base", world.user("with-mfa", partition)),
        },
        source={"profile": "p"},
        own_process=True,
    )


@failure
def mfa_without_a_terminal_in_the_global_partition(world: World, home: Path) -> Failure:
    return mfa_without_a_terminal(world, home, "aws")


@failure
def mfa_without_a_terminal_in_china(world: World, home: Path) -> Failure:
    return mfa_without_a_terminal(world, home, "aws-cn")


@failure
def container_that_refuses(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{world.wire.url}/container/refused",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic s3cr3t",
        },
        own_process=True,
    )


@failure
def environment_that_expired(world: World, home: Path) -> Failure:
    return Failure(
        "SourceExpired",
        ["AWS_CREDENTIAL_EXPIRATION"],
        env={**env_of(world.session("expired")), "AWS_CREDENTIAL_EXPIRATION": stamp(-60)},
    )


@failure
def half_of_the_keys(world: World, home: Path) -> Failure:
    return Failure("SourceError", ["AWS_SECRET_ACCESS_KEY"], env={"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"})


@failure
def role_whose_source_has_expired(world: World, home: Path) -> Failure:
    return Failure(
        "SourceExpired",
        ["profile 'p'", "AssumeRole answered ExpiredToken"],
        files={
            ".aws/config": f"[profile p]\nrole_arn = {world.role('after-the-end')}\nregion = us-east-1\n"
            "source_profile = base\n",
            ".aws/credentials": keys_in("base", world.session("expired", lifetime=0.0)),
        },
        source={"profile": "p"},
    )


@failure
def role_that_is_denied(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ["profile 'p'", "AssumeRole answered AccessDenied"],
        files={
            ".aws/config": "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/unknown\nregion = us-east-1\n"
            "source_profile = base\n",
            ".aws/credentials": keys_in("base", world.user("denied")),
        },
        source={"profile": "p"},
    )


@failure
def role_with_two_sources(world: World, home: Path) -> Failure:
    return Failure(
        "SourceError",
        ['"p" contains both source_profile and credential_source'],
        files={
            ".aws/config": "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/r\nregion = us-east-1\n"
            "source_profile = p\ncredential_source = Environment\n"
        },
        source={"profile": "p"},
    )


@failure
def role_without_an_answer(world: World, home: Path) -> Failure:
    """Port 1 of loopback is closed on every machine."""
    return Failure(
        "SourceError",
        ["no answer from http://127.0.0.1:1"],
        env={"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"},
        files={
            ".aws/config": "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/r\nregion = us-east-1\n"
            "source_profile = base\n",
            ".aws/credentials": keys_in("base", world.user("unreachable")),
        },
        source={"profile": "p"},
    )


@failure
def role_over_plain_http(world: World, home: Path) -> Failure:
    """AssumeRole's answer would arrive over plain http from another machine: no request is sent."""
    return Failure(
        "ConfigurationError",
        ["the sts endpoint http://sts.example.invalid is not encrypted"],
        env={"AWS_ENDPOINT_URL_STS": "http://sts.example.invalid"},
        files={
            ".aws/config": "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/r\nregion = us-east-1\n"
            "source_profile = base\n",
            ".aws/credentials": keys_in("base", world.user("in-the-clear")),
        },
        source={"profile": "p"},
    )


@failure
def role_over_plain_http_that_is_allowed(world: World, home: Path) -> Failure:
    """With `allow_http_sts` the request is sent; here the host does not exist."""
    failing = role_over_plain_http(world, home)
    failing.error, failing.message = "SourceError", ["no answer from http://sts.example.invalid"]
    failing.env |= {"AWS_MAX_ATTEMPTS": "1"}
    failing.source |= {"allow_http_sts": True}
    return failing


@failure
def config_file_that_cannot_be_read(world: World, home: Path) -> Failure:
    return Failure("ConfigurationError", [".aws/config"], files={".aws/config": "aws_secret_access_key = s3cr3t\n"})


@failure
def region_that_does_not_exist(world: World, home: Path) -> Failure:
    return Failure(
        "ConfigurationError",
        ["boto's default chain", "mars-east-1"],
        env={**env_of(world.user("mars")), "AWS_DEFAULT_REGION": "mars-east-1"},
    )
