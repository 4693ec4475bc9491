"""Every source that boto knows, over real HTTP on loopback, each in a process of its own with a clean home.

What each process prints is the last four of the key id, so a source that silently gave way to another one is seen; what
the stub kept says which keys signed the AssumeRole that followed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.credentials
import pytest

from tests.wire.stubs import SECRET, Wire, key_id_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.botocore

HAS_LOGIN = hasattr(botocore.credentials, "LoginProvider")
PROBE = Path(__file__).parent / "wire" / "probe.py"
ROOT = Path(__file__).parent.parent


def stamp(seconds: float) -> str:
    """Return a moment `seconds` from now as AWS writes it."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def key(name: str) -> str:
    """Return a long-term key id of 20 characters that ends in four of the test's own."""
    return f"AKIA{hashlib.sha256(name.encode()).hexdigest()[:16].upper()}"


@dataclass
class Scenario:
    """A source: its environment, its files, what is asked of it and what must come out."""

    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    account: str | None = None
    partition: str = "aws"
    keys: list[str] = field(default_factory=list)
    method: str = ""
    region_name: str | None = None
    known_partition: str | None = None
    long_term: bool = False


SCENARIOS: dict[str, Callable[[Wire, Path], Scenario]] = {}


def scenario(make: Callable[[Wire, Path], Scenario]) -> Callable[[Wire, Path], Scenario]:
    """Register a scenario under its function's name."""
    SCENARIOS[make.__name__] = make
    return make


@scenario
def explicit_keys(wire: Wire, home: Path) -> Scenario:
    mine = key("explicit keys")
    return Scenario(sources=[{"keys": [mine, "s3cr3t"]}], keys=[mine], method="keys", long_term=True)


@scenario
def keys_with_a_session_token(wire: Wire, home: Path) -> Scenario:
    mine = key("session keys")
    return Scenario(sources=[{"keys": [mine, "s3cr3t", "s3cr3t-token"]}], keys=[mine], method="keys")


@scenario
def environment(wire: Wire, home: Path) -> Scenario:
    mine = key("environment")
    return Scenario(
        env={"AWS_ACCESS_KEY_ID": mine, "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_DEFAULT_REGION": "eu-west-1"},
        keys=[mine],
        method="env",
        region_name="eu-west-1",
        known_partition="aws",
        long_term=True,
    )


@scenario
def environment_that_expires(wire: Wire, home: Path) -> Scenario:
    mine = key("environment that expires")
    return Scenario(
        env={
            "AWS_ACCESS_KEY_ID": mine,
            "AWS_SECRET_ACCESS_KEY": "s3cr3t",
            "AWS_SESSION_TOKEN": "s3cr3t-token",
            "AWS_CREDENTIAL_EXPIRATION": stamp(1800),
            "AWS_DEFAULT_REGION": "cn-north-1",
        },
        partition="aws-cn",
        keys=[mine],
        method="env",
        region_name="cn-north-1",
        known_partition="aws-cn",
    )


@scenario
def shared_credentials_file(wire: Wire, home: Path) -> Scenario:
    mine = key("shared credentials file")
    return Scenario(
        files={".aws/credentials": f"[default]\naws_access_key_id = {mine}\naws_secret_access_key = s3cr3t\n"},
        keys=[mine],
        method="shared-credentials-file",
        long_term=True,
    )


@scenario
def config_file(wire: Wire, home: Path) -> Scenario:
    mine = key("config file")
    return Scenario(
        files={
            ".aws/config": f"[default]\nregion = cn-northwest-1\naws_access_key_id = {mine}\n"
            "aws_secret_access_key = s3cr3t\n"
        },
        partition="aws-cn",
        keys=[mine],
        method="config-file",
        region_name="cn-northwest-1",
        known_partition="aws-cn",
        long_term=True,
    )


@scenario
def profile_named_by_the_environment(wire: Wire, home: Path) -> Scenario:
    mine, other = key("AWS_PROFILE"), key("default beside AWS_PROFILE")
    return Scenario(
        env={"AWS_PROFILE": "team"},
        files={
            ".aws/credentials": f"[default]\naws_access_key_id = {other}\naws_secret_access_key = s3cr3t\n"
            f"[team]\naws_access_key_id = {mine}\naws_secret_access_key = s3cr3t\n"
        },
        keys=[mine],
        method="shared-credentials-file",
        long_term=True,
    )


@scenario
def assume_role_profiles(wire: Wire, home: Path) -> Scenario:
    """Two accounts with two roles each, as profiles of one file, all resolved at the same moment."""
    base = key("assume-role profiles")
    arns = [f"arn:aws:iam::{account}:role/{role}" for account in ("2" * 12, "3" * 12) for role in ("reader", "admin")]
    profiles = "".join(
        f"[profile p{index}]\nrole_arn = {arn}\nsource_profile = base\nregion = us-west-2\n"
        for index, arn in enumerate(arns)
    )
    return Scenario(
        files={
            ".aws/config": profiles,
            ".aws/credentials": f"[base]\naws_access_key_id = {base}\naws_secret_access_key = s3cr3t\n",
        },
        sources=[{"profile": f"p{index}"} for index in range(len(arns))],
        keys=[key_id_for(arn) for arn in arns],
        method="assume-role",
        region_name="us-west-2",
        known_partition="aws",
    )


@scenario
def assume_role_profile_in_china(wire: Wire, home: Path) -> Scenario:
    """No region anywhere: the partition comes from the role, and STS is asked in Beijing."""
    arn = "arn:aws-cn:iam::222222222222:role/reader"
    return Scenario(
        files={
            ".aws/config": f"[profile china]\nrole_arn = {arn}\nsource_profile = base\n",
            ".aws/credentials": f"[base]\naws_access_key_id = {key('china')}\naws_secret_access_key = s3cr3t\n",
        },
        sources=[{"profile": "china"}],
        partition="aws-cn",
        keys=[key_id_for(arn)],
        method="assume-role",
        known_partition="aws-cn",
    )


@scenario
def assume_role_from_the_environment(wire: Wire, home: Path) -> Scenario:
    arn = "arn:aws:iam::222222222222:role/from-environment"
    return Scenario(
        env={"AWS_ACCESS_KEY_ID": key("credential_source"), "AWS_SECRET_ACCESS_KEY": "s3cr3t"},
        files={
            ".aws/config": f"[profile p]\nregion = eu-central-1\nrole_arn = {arn}\ncredential_source = Environment\n"
        },
        sources=[{"profile": "p"}],
        keys=[key_id_for(arn)],
        method="assume-role",
        region_name="eu-central-1",
        known_partition="aws",
    )


@scenario
def assume_role_from_the_instance_in_china(wire: Wire, home: Path) -> Scenario:
    arn = "arn:aws-cn:iam::222222222222:role/from-instance"
    return Scenario(
        env={
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{wire.url}/imds-v2/{key('instance source')}/",
        },
        files={
            ".aws/config": f"[profile p]\nregion = cn-north-1\nrole_arn = {arn}\n"
            "credential_source = Ec2InstanceMetadata\n"
        },
        sources=[{"profile": "p"}],
        partition="aws-cn",
        keys=[key_id_for(arn)],
        method="assume-role",
        region_name="cn-north-1",
        known_partition="aws-cn",
    )


@scenario
def assume_role_from_the_container(wire: Wire, home: Path) -> Scenario:
    arn = "arn:aws:iam::222222222222:role/from-container"
    mine = key("container source")
    return Scenario(
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{wire.url}/container/{mine}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"Basic s3cr3t-{mine}",
        },
        files={".aws/config": f"[profile p]\nregion = us-east-2\nrole_arn = {arn}\ncredential_source = EcsContainer\n"},
        sources=[{"profile": "p"}],
        keys=[key_id_for(arn)],
        method="assume-role",
        region_name="us-east-2",
        known_partition="aws",
    )


@scenario
def legacy_boto_file(wire: Wire, home: Path) -> Scenario:
    mine = key("~/.boto")
    return Scenario(
        files={".boto": f"[Credentials]\naws_access_key_id = {mine}\naws_secret_access_key = s3cr3t\n"},
        keys=[mine],
        method="boto-config",
        long_term=True,
    )


@scenario
def legacy_ec2_credential_file(wire: Wire, home: Path) -> Scenario:
    mine = key("AWS_CREDENTIAL_FILE")
    return Scenario(
        env={"AWS_CREDENTIAL_FILE": str(home / "ec2.txt")},
        files={"ec2.txt": f"AWSAccessKeyId={mine}\nAWSSecretKey=s3cr3t\n"},
        keys=[mine],
        method="ec2-credentials-file",
        long_term=True,
    )


@scenario
def instance_metadata_v2(wire: Wire, home: Path) -> Scenario:
    mine = key("imds v2")
    return Scenario(
        env={
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{wire.url}/imds-v2/{mine}/",
            "AWS_DEFAULT_REGION": "us-west-1",
        },
        keys=[mine],
        method="iam-role",
        region_name="us-west-1",
        known_partition="aws",
    )


@scenario
def instance_metadata_v1(wire: Wire, home: Path) -> Scenario:
    mine = key("imds v1")
    return Scenario(
        env={
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{wire.url}/imds-v1/{mine}/",
            "AWS_DEFAULT_REGION": "cn-northwest-1",
        },
        partition="aws-cn",
        keys=[mine],
        method="iam-role",
        region_name="cn-northwest-1",
        known_partition="aws-cn",
    )


@scenario
def container_with_a_token(wire: Wire, home: Path) -> Scenario:
    mine = key("container")
    return Scenario(
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{wire.url}/container/{mine}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": f"Basic s3cr3t-{mine}",
        },
        keys=[mine],
        method="container-role",
    )


@scenario
def container_with_a_token_file(wire: Wire, home: Path) -> Scenario:
    mine = key("container token file")
    return Scenario(
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{wire.url}/container/{mine}",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(home / "token"),
        },
        files={"token": f"Basic s3cr3t-{mine}"},
        keys=[mine],
        method="container-role",
    )


@scenario
def web_identity(wire: Wire, home: Path) -> Scenario:
    arn = "arn:aws:iam::222222222222:role/web"
    return Scenario(
        env={
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"),
            "AWS_ROLE_ARN": arn,
            "AWS_ROLE_SESSION_NAME": "probe",
            "AWS_DEFAULT_REGION": "eu-north-1",
        },
        files={"token": "s3cr3t-web-identity-token"},
        keys=[key_id_for(arn)],
        method="assume-role-with-web-identity",
        region_name="eu-north-1",
        known_partition="aws",
    )


@scenario
def web_identity_profile_in_china(wire: Wire, home: Path) -> Scenario:
    arn = "arn:aws-cn:iam::222222222222:role/web"
    return Scenario(
        files={
            "token": "s3cr3t-web-identity-token",
            ".aws/config": f"[profile p]\nrole_arn = {arn}\nweb_identity_token_file = {home / 'token'}\n",
        },
        sources=[{"profile": "p"}],
        partition="aws-cn",
        keys=[key_id_for(arn)],
        method="assume-role-with-web-identity",
        known_partition="aws-cn",
    )


@scenario
def credential_process(wire: Wire, home: Path) -> Scenario:
    mine = key("credential_process")
    printed = {
        "Version": 1,
        "AccessKeyId": mine,
        "SecretAccessKey": "s3cr3t",
        "SessionToken": "s3cr3t-token",
        "Expiration": stamp(1800),
    }
    return Scenario(
        files={
            "process.py": f"print('''{json.dumps(printed)}''')",
            ".aws/config": f"[profile p]\ncredential_process = {sys.executable} {home / 'process.py'}\n",
        },
        sources=[{"profile": "p"}],
        keys=[mine],
        method="custom-process",
    )


def sso_files(session: str, account: str, *, refresh_token: str, expires_in: float = -60) -> dict[str, str]:
    """Return a profile `p` of an SSO session whose cached access token has ended, and can be renewed."""
    token = {
        "startUrl": "https://example.awsapps.com/start",
        "region": "eu-west-1",
        "accessToken": "s3cr3t-sso-access-token-that-has-ended",
        "expiresAt": stamp(expires_in),
        "clientId": "client",
        "clientSecret": "s3cr3t-client",
        "registrationExpiresAt": stamp(86_400),
        "refreshToken": f"s3cr3t-refresh-token-of-{refresh_token}",
    }
    return {
        f".aws/sso/cache/{hashlib.sha1(session.encode()).hexdigest()}.json": json.dumps(token),
        ".aws/config": f"[sso-session {session}]\nsso_start_url = https://example.awsapps.com/start\n"
        f"sso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n"
        f"[profile p]\nregion = eu-west-1\nsso_session = {session}\nsso_account_id = {account}\nsso_role_name = ops\n",
    }


@scenario
def sso_with_a_token_to_refresh(wire: Wire, home: Path) -> Scenario:
    account = "444444444444"
    return Scenario(
        files=sso_files("corp", account, refresh_token=account),
        sources=[{"profile": "p"}],
        keys=[key_id_for(f"{account}/ops")],
        method="sso",
        region_name="eu-west-1",
        known_partition="aws",
    )


def login_files(session: str, *, refresh_token: str) -> dict[str, str]:
    """Return a profile `p` of `aws login` whose cached credentials have ended, and can be renewed."""
    from awscrt.crypto import EC, ECExportFormat, ECType

    der = EC.new_generate(ECType.P_256).export_key(ECExportFormat.SEC1)
    pem = base64.encodebytes(der).decode()
    token = {
        "accessToken": {
            "accessKeyId": key("login that has ended"),
            "secretAccessKey": "s3cr3t",
            "sessionToken": "s3cr3t-token",
            "accountId": "555555555555",
            "expiresAt": stamp(-60),
        },
        "tokenType": "aws_sigv4",
        "clientId": "arn:aws:signin:::devtools/same-device",
        "refreshToken": f"s3cr3t-refresh-token-of-{refresh_token}",
        "idToken": "s3cr3t-id-token",
        "dpopKey": f"-----BEGIN EC PRIVATE KEY-----\n{pem}-----END EC PRIVATE KEY-----\n",
    }
    return {
        f".aws/login/cache/{hashlib.sha256(session.encode()).hexdigest()}.json": json.dumps(token),
        ".aws/config": f"[profile p]\nregion = us-east-1\nlogin_session = {session}\n",
    }


if HAS_LOGIN:

    @scenario
    def aws_login_with_a_token_to_refresh(wire: Wire, home: Path) -> Scenario:
        session = "arn:aws:iam::555555555555:user/someone"
        return Scenario(
            files=login_files(session, refresh_token="someone"),
            sources=[{"profile": "p"}],
            keys=[key_id_for("someone")],
            method="login",
            region_name="us-east-1",
            known_partition="aws",
        )


@scenario
def a_callable(wire: Wire, home: Path) -> Scenario:
    mine = key("callable")
    return Scenario(sources=[{"callable": [mine, "s3cr3t"]}], keys=[mine], method="callable", long_term=True)


@scenario
def an_aiobotocore_session(wire: Wire, home: Path) -> Scenario:
    arn = "arn:aws:iam::222222222222:role/session"
    return Scenario(
        files={
            ".aws/config": f"[profile p]\nrole_arn = {arn}\nsource_profile = base\nregion = us-west-2\n",
            ".aws/credentials": f"[base]\naws_access_key_id = {key('session')}\naws_secret_access_key = s3cr3t\n",
        },
        sources=[{"aiobotocore": "p"}],
        keys=[key_id_for(arn)],
        method="session",
        region_name="us-west-2",
        known_partition="aws",
    )


if importlib.util.find_spec("aioboto3"):

    @scenario
    def an_aioboto3_session(wire: Wire, home: Path) -> Scenario:
        mine = key("aioboto3")
        return Scenario(
            files={".aws/credentials": f"[p]\naws_access_key_id = {mine}\naws_secret_access_key = s3cr3t\n"},
            sources=[{"aioboto3": "p"}],
            keys=[mine],
            method="session",
            long_term=True,
        )


@dataclass
class Failure:
    """A source that cannot give credentials: what it is, and what the error must say and must not."""

    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    error: str = "SourceError"
    says: list[str] = field(default_factory=list)


FAILURES: dict[str, Callable[[Wire, Path], Failure]] = {}


def failure(make: Callable[[Wire, Path], Failure]) -> Callable[[Wire, Path], Failure]:
    """Register a failure under its function's name."""
    FAILURES[make.__name__] = make
    return make


@failure
def nothing_at_all(wire: Wire, home: Path) -> Failure:
    return Failure(
        env={"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{wire.url}/nothing/"},
        error="NoSourceCredentials",
        says=[
            "AWS_ACCESS_KEY_ID is not set",
            "profile 'default' has no role_arn",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "sso_account_id",
            "~/.aws/credentials: there is no such file",
            "credential_process",
            "~/.aws/config: there is no such file",
            "AWS_CREDENTIAL_FILE is not set",
            "~/.boto",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "/nothing/ (1 attempts of 1 s each",
            *(["login_session"] if HAS_LOGIN else []),
        ],
    )


@failure
def profile_that_does_not_exist(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={".aws/credentials": f"[team]\naws_access_key_id = {key('x')}\naws_secret_access_key = s3cr3t\n"},
        source={"profile": "taem"},
        error="ConfigurationError",
        says=["'taem'", "there are team"],
    )


@failure
def sso_session_that_ended(wire: Wire, home: Path) -> Failure:
    return Failure(
        files=sso_files("ended", "444444444444", refresh_token="nobody"),
        source={"profile": "p"},
        error="SourceExpired",
        says=["aws sso login --profile p"],
    )


@failure
def sso_session_never_begun(wire: Wire, home: Path) -> Failure:
    files = sso_files("never", "444444444444", refresh_token="nobody")
    return Failure(
        files={".aws/config": files[".aws/config"]},
        source={"profile": "p"},
        error="SourceExpired",
        says=["aws sso login --profile p"],
    )


if HAS_LOGIN:

    @failure
    def login_that_ended(wire: Wire, home: Path) -> Failure:
        return Failure(
            files=login_files("ended", refresh_token="nobody"),
            source={"profile": "p"},
            error="SourceExpired",
            says=["aws login --profile p"],
        )

    @failure
    def login_never_begun(wire: Wire, home: Path) -> Failure:
        return Failure(
            files={".aws/config": "[profile p]\nlogin_session = never\n"},
            source={"profile": "p"},
            error="SourceExpired",
            says=["aws login --profile p"],
        )


@failure
def credential_process_that_fails(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={
            "process.py": "import sys; print('printed-s3cr3t'); sys.exit('told-s3cr3t')",
            ".aws/config": f"[profile p]\ncredential_process = {sys.executable} {home / 'process.py'}\n",
        },
        source={"profile": "p"},
        says=["credential_process"],
    )


@failure
def credential_process_that_prints_no_json(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={
            "process.py": "print('AKIAIOSFODNN7EXAMPLE printed-s3cr3t')",
            ".aws/config": f"[profile p]\ncredential_process = {sys.executable} {home / 'process.py'}\n",
        },
        source={"profile": "p"},
        says=["profile 'p'", "not JSON"],
    )


@failure
def credential_process_that_is_missing(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={".aws/config": "[profile p]\ncredential_process = no-such-program --password s3cr3t\n"},
        source={"profile": "p"},
        says=["No such file", "no-such-program"],
    )


@failure
def container_that_refuses(wire: Wire, home: Path) -> Failure:
    return Failure(
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{wire.url}/container/refused",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic s3cr3t",
        },
        says=["AWS_CONTAINER_CREDENTIALS_FULL_URI"],
    )


@failure
def environment_that_ended(wire: Wire, home: Path) -> Failure:
    return Failure(
        env={
            "AWS_ACCESS_KEY_ID": key("ended"),
            "AWS_SECRET_ACCESS_KEY": "s3cr3t",
            "AWS_SESSION_TOKEN": "s3cr3t-token",
            "AWS_CREDENTIAL_EXPIRATION": stamp(-60),
        },
        error="SourceExpired",
        says=["AWS_CREDENTIAL_EXPIRATION"],
    )


@failure
def half_of_the_keys(wire: Wire, home: Path) -> Failure:
    return Failure(env={"AWS_ACCESS_KEY_ID": key("half")}, says=["AWS_SECRET_ACCESS_KEY"])


@failure
def role_whose_source_has_ended(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={
            ".aws/config": "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/expired-source\nregion = us-east-1\n"
            "source_profile = base\n[profile base]\n"
            f"aws_access_key_id = {key('expired')}\naws_secret_access_key = s3cr3t\n",
        },
        source={"profile": "p"},
        error="SourceExpired",
        says=["AssumeRole answered ExpiredToken"],
    )


@failure
def role_that_is_denied(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={
            ".aws/config": "[profile p]\nrole_arn = arn:aws:iam::222222222222:role/denied\nregion = us-east-1\n"
            "source_profile = base\n[profile base]\n"
            f"aws_access_key_id = {key('denied')}\naws_secret_access_key = s3cr3t\n",
        },
        source={"profile": "p"},
        says=["AssumeRole answered AccessDenied"],
    )


@failure
def config_file_that_cannot_be_read(wire: Wire, home: Path) -> Failure:
    return Failure(
        files={".aws/config": "aws_secret_access_key = s3cr3t\n"},
        error="ConfigurationError",
        says=[".aws/config"],
    )


@failure
def region_of_another_planet(wire: Wire, home: Path) -> Failure:
    return Failure(
        env={"AWS_DEFAULT_REGION": "mars-east-1", "AWS_ACCESS_KEY_ID": key("m"), "AWS_SECRET_ACCESS_KEY": "s3cr3t"},
        error="ConfigurationError",
        says=["mars-east-1"],
    )


# -- running them ------------------------------------------------------------------------------------------------------


def run_probe(wire: Wire, home: Path, env: dict[str, str], files: dict[str, str], asked: dict[str, Any]) -> list[Any]:
    """Run one process with `home` as its home, nothing of this environment but PATH, and return what it printed."""
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    clean = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COV")}
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(PROBE), json.dumps(asked)],
        env=clean
        | {
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_STS": f"{wire.url}/sts",
            "AWS_ENDPOINT_URL_SSO": f"{wire.url}/sso",
            "AWS_ENDPOINT_URL_SSO_OIDC": f"{wire.url}/oidc",
            "AWS_ENDPOINT_URL_SIGNIN": f"{wire.url}/signin",
        }
        | env,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    leaks = [line for line in (ended.stdout + ended.stderr).splitlines() if SECRET in line]
    assert leaks == []
    answers: list[Any] = json.loads(ended.stdout)
    return answers


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Return the stub of everything that hands out credentials."""
    served = Wire().start()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def ran(wire: Wire, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Start the processes of all the tests that were selected, a few at a time, and hand out what each gave."""
    with ThreadPoolExecutor(max_workers=min(4, (os.cpu_count() or 1) + 1)) as threads:
        runs = Ran(wire)
        for item in request.session.items:
            name = getattr(item, "callspec", None) and item.callspec.params.get("name")
            if item.path == request.path and name:
                runs.start(threads, name, tmp_path_factory.mktemp("home"))
        yield runs


class Ran:
    """The processes, by the name of their scenario or failure."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._futures: dict[str, Future[list[Any]]] = {}
        self.made: dict[str, Any] = {}

    def start(self, threads: ThreadPoolExecutor, name: str, home: Path) -> None:
        """Start the process of one scenario, once."""
        if name in self._futures:
            return
        if name in SCENARIOS:
            made = self.made[name] = SCENARIOS[name](self._wire, home)
            asked = {"sources": made.sources, "account": made.account, "partition": made.partition, "role": name}
            if made.account is None:
                del asked["account"]
        else:
            made = self.made[name] = FAILURES[name](self._wire, home)
            asked = {"sources": [made.source]}
        self._futures[name] = threads.submit(run_probe, self._wire, home, made.env, made.files, asked)

    def answers(self, name: str) -> list[Any]:
        """Wait for a process, and return what it printed."""
        return self._futures[name].result()


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_source_gives_exactly_its_own_keys(name: str, ran: Ran) -> None:
    """Each source yields its own keys, by its own method, with the region and partition that it is configured with."""
    answers = ran.answers(name)

    made = ran.made[name]
    assert [answer.get("keys") for answer in answers] == [[each[-4:]] for each in made.keys], answers
    for answer in answers:
        assert answer["method"] == made.method
        assert answer["region_name"] == made.region_name
        assert answer["partition"] == made.known_partition
        assert answer["long_term"] == made.long_term


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_a_source_that_fails_says_what_to_do_and_no_secret(name: str, ran: Ran) -> None:
    """A source that cannot give credentials ends in one error of the tree that names the way out and quotes nothing."""
    (answer,) = ran.answers(name)

    made = ran.made[name]
    assert answer.get("error") == made.error, answer
    for expected in made.says:
        assert expected in answer["message"]
