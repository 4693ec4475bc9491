"""Every source of boto and of asyncauth: its environment, its files, and the result that it must have."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import botocore.credentials

from tests.support.wire.files import env_of, keys_in, login_files, sso_files
from tests.support.wire.world import stamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncauth import Keys
    from tests.support.wire.world import World

#: The version of botocore that aioboto3 requires is older than `aws login`.
KNOWS_LOGIN: Final = hasattr(botocore.credentials, "LoginProvider")
#: `aws login` signs with an elliptic curve, for which botocore needs the AWS CRT (`botocore[crt]`).
HAS_LOGIN: Final = KNOWS_LOGIN and importlib.util.find_spec("awscrt") is not None


@dataclass
class Scenario:
    """A source.

    Args:
        expected: for each source, the keys that it must provide, or the ARN of the role that boto must assume for it.
        method: boto's name of the provider that must have found it.
        env, files: the environment and the files below the home directory.
        sources: the sources of the process, as `probe.spec_of` reads them.
        partition: the partition of the account whose role is assumed.
        region_name, known_partition: the facts that the source must have.
        sts_region: the region of the STS that must get the AssumeRole.
    """

    expected: list[Keys | str]
    method: str
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    partition: str = "aws"
    region_name: str | None = None
    known_partition: str | None = None
    sts_region: str = "us-east-1"


SCENARIOS: dict[str, Callable[[World, Path], Scenario]] = {}


def scenario(make: Callable[[World, Path], Scenario]) -> Callable[[World, Path], Scenario]:
    """Register a scenario under its function's name."""
    SCENARIOS[make.__name__] = make
    return make


@scenario
def explicit_keys(world: World, home: Path) -> Scenario:
    keys = world.user("explicit")
    return Scenario([keys], "keys", sources=[{"keys": [keys.access_key_id, keys.secret_access_key]}])


@scenario
def explicit_keys_in_china(world: World, home: Path) -> Scenario:
    keys = world.user("explicit", "aws-cn")
    return Scenario(
        [keys],
        "keys",
        sources=[{"keys": [keys.access_key_id, keys.secret_access_key]}],
        partition="aws-cn",
        sts_region="cn-north-1",
    )


@scenario
def keys_with_a_session_token(world: World, home: Path) -> Scenario:
    keys = world.session("explicit")
    return Scenario(
        [keys], "keys", sources=[{"keys": [keys.access_key_id, keys.secret_access_key, keys.session_token]}]
    )


@scenario
def environment(world: World, home: Path) -> Scenario:
    keys = world.user("environment")
    return Scenario(
        [keys],
        "env",
        env={**env_of(keys), "AWS_DEFAULT_REGION": "eu-west-1"},
        region_name="eu-west-1",
        known_partition="aws",
        sts_region="eu-west-1",
    )


@scenario
def environment_that_expires(world: World, home: Path) -> Scenario:
    keys = world.session("environment", "aws-cn")
    return Scenario(
        [keys],
        "env",
        env={**env_of(keys), "AWS_CREDENTIAL_EXPIRATION": stamp(1800), "AWS_DEFAULT_REGION": "cn-northwest-1"},
        partition="aws-cn",
        region_name="cn-northwest-1",
        known_partition="aws-cn",
        sts_region="cn-northwest-1",
    )


@scenario
def shared_credentials_file(world: World, home: Path) -> Scenario:
    keys = world.user("shared-file")
    return Scenario([keys], "shared-credentials-file", files={".aws/credentials": keys_in("default", keys)})


@scenario
def config_file(world: World, home: Path) -> Scenario:
    keys = world.session("config-file", "aws-cn")
    return Scenario(
        [keys],
        "config-file",
        files={".aws/config": keys_in("default", keys) + "region = cn-north-1\n"},
        partition="aws-cn",
        region_name="cn-north-1",
        known_partition="aws-cn",
        sts_region="cn-north-1",
    )


@scenario
def profile_named_by_the_environment(world: World, home: Path) -> Scenario:
    keys = world.user("team")
    return Scenario(
        [keys],
        "shared-credentials-file",
        env={"AWS_PROFILE": "team"},
        files={".aws/credentials": keys_in("default", world.user("not-the-team")) + keys_in("team", keys)},
    )


@scenario
def assume_role_profiles(world: World, home: Path) -> Scenario:
    """Two accounts with two roles each, as profiles of one file, all resolved at the same moment."""
    arns = [
        world.role(name, in_management=in_management)
        for in_management in (True, False)
        for name in ("profile-reader", "profile-admin")
    ]
    profiles = "".join(
        f"[profile p{index}]\nrole_arn = {arn}\nsource_profile = base\nregion = us-west-2\n"
        for index, arn in enumerate(arns)
    )
    return Scenario(
        [*arns],
        "assume-role",
        files={".aws/config": profiles, ".aws/credentials": keys_in("base", world.user("profiles"))},
        sources=[{"profile": f"p{index}"} for index in range(len(arns))],
        region_name="us-west-2",
        known_partition="aws",
        sts_region="us-west-2",
    )


@scenario
def assume_role_profiles_in_china(world: World, home: Path) -> Scenario:
    """Without a region: the partition is the role's, and the STS in Beijing is used."""
    arns = [world.role(name, "aws-cn") for name in ("profile-reader", "profile-admin")]
    profiles = "".join(
        f"[profile p{index}]\nrole_arn = {arn}\nsource_profile = base\n" for index, arn in enumerate(arns)
    )
    return Scenario(
        [*arns],
        "assume-role",
        files={".aws/config": profiles, ".aws/credentials": keys_in("base", world.user("profiles", "aws-cn"))},
        sources=[{"profile": f"p{index}"} for index in range(len(arns))],
        partition="aws-cn",
        known_partition="aws-cn",
        sts_region="cn-north-1",
    )


@scenario
def assume_role_chain_of_profiles(world: World, home: Path) -> Scenario:
    """A profile whose source profile assumes a role itself."""
    hub, leaf = world.role("chain-hub"), world.role("chain-leaf")
    return Scenario(
        [leaf],
        "assume-role",
        files={
            ".aws/config": f"[profile leaf]\nrole_arn = {leaf}\nsource_profile = hub\nregion = eu-west-1\n"
            f"[profile hub]\nrole_arn = {hub}\nsource_profile = base\n",
            ".aws/credentials": keys_in("base", world.user("chain")),
        },
        sources=[{"profile": "leaf"}],
        region_name="eu-west-1",
        known_partition="aws",
        sts_region="eu-west-1",
    )


@scenario
def assume_role_from_the_environment(world: World, home: Path) -> Scenario:
    arn = world.role("from-environment")
    return Scenario(
        [arn],
        "assume-role",
        env=env_of(world.user("credential-source")),
        files={
            ".aws/config": f"[profile p]\nregion = eu-central-1\nrole_arn = {arn}\ncredential_source = Environment\n"
        },
        sources=[{"profile": "p"}],
        region_name="eu-central-1",
        known_partition="aws",
        sts_region="eu-central-1",
    )


@scenario
def assume_role_from_the_instance_in_china(world: World, home: Path) -> Scenario:
    arn = world.role("from-instance", "aws-cn")
    world.wire.keys["instance-source"] = world.session("instance-source", "aws-cn")
    return Scenario(
        [arn],
        "assume-role",
        env={
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{world.wire.url}/imds-v2/instance-source/",
        },
        files={
            ".aws/config": f"[profile p]\nregion = cn-north-1\nrole_arn = {arn}\n"
            "credential_source = Ec2InstanceMetadata\n"
        },
        sources=[{"profile": "p"}],
        partition="aws-cn",
        region_name="cn-north-1",
        known_partition="aws-cn",
        sts_region="cn-north-1",
    )


@scenario
def assume_role_from_the_container(world: World, home: Path) -> Scenario:
    arn = world.role("from-container")
    world.wire.keys["container-source"] = world.session("container-source")
    return Scenario(
        [arn],
        "assume-role",
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{world.wire.url}/container/container-source",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic s3cr3t-container-source",
        },
        files={".aws/config": f"[profile p]\nregion = us-east-2\nrole_arn = {arn}\ncredential_source = EcsContainer\n"},
        sources=[{"profile": "p"}],
        region_name="us-east-2",
        known_partition="aws",
        sts_region="us-east-2",
    )


@scenario
def legacy_boto_file(world: World, home: Path) -> Scenario:
    keys = world.user("legacy-boto")
    return Scenario([keys], "boto-config", files={".boto": keys_in("Credentials", keys)})


@scenario
def legacy_ec2_credential_file(world: World, home: Path) -> Scenario:
    keys = world.user("legacy-ec2")
    return Scenario(
        [keys],
        "ec2-credentials-file",
        env={"AWS_CREDENTIAL_FILE": str(home / "ec2.txt")},
        files={"ec2.txt": f"AWSAccessKeyId={keys.access_key_id}\nAWSSecretKey={keys.secret_access_key}\n"},
    )


@scenario
def instance_metadata_v2(world: World, home: Path) -> Scenario:
    keys = world.wire.keys["v2"] = world.session("v2")
    return Scenario(
        [keys],
        "iam-role",
        env={
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{world.wire.url}/imds-v2/v2/",
            "AWS_DEFAULT_REGION": "us-west-1",
        },
        region_name="us-west-1",
        known_partition="aws",
        sts_region="us-west-1",
    )


@scenario
def instance_metadata_v1(world: World, home: Path) -> Scenario:
    keys = world.wire.keys["v1"] = world.session("v1", "aws-cn")
    return Scenario(
        [keys],
        "iam-role",
        env={
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{world.wire.url}/imds-v1/v1/",
            "AWS_DEFAULT_REGION": "cn-northwest-1",
        },
        partition="aws-cn",
        region_name="cn-northwest-1",
        known_partition="aws-cn",
        sts_region="cn-northwest-1",
    )


@scenario
def container_with_a_token(world: World, home: Path) -> Scenario:
    keys = world.wire.keys["container"] = world.session("container")
    return Scenario(
        [keys],
        "container-role",
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{world.wire.url}/container/container",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic s3cr3t-container",
        },
    )


@scenario
def container_with_a_token_file(world: World, home: Path) -> Scenario:
    keys = world.wire.keys["pod"] = world.session("pod", "aws-cn")
    return Scenario(
        [keys],
        "container-role",
        env={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{world.wire.url}/container/pod",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(home / "token"),
        },
        files={"token": "Basic s3cr3t-pod"},
        partition="aws-cn",
        sts_region="cn-north-1",
    )


@scenario
def web_identity(world: World, home: Path) -> Scenario:
    arn = world.role("web")
    return Scenario(
        [arn],
        "assume-role-with-web-identity",
        env={
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"),
            "AWS_ROLE_ARN": arn,
            "AWS_ROLE_SESSION_NAME": "probe",
            "AWS_DEFAULT_REGION": "eu-north-1",
        },
        files={"token": world.web_identity_token},
        region_name="eu-north-1",
        known_partition="aws",
        sts_region="eu-north-1",
    )


@scenario
def web_identity_profile_in_china(world: World, home: Path) -> Scenario:
    arn = world.role("web", "aws-cn")
    return Scenario(
        [arn],
        "assume-role-with-web-identity",
        files={
            "token": world.web_identity_token,
            ".aws/config": f"[profile p]\nrole_arn = {arn}\nweb_identity_token_file = {home / 'token'}\n",
        },
        sources=[{"profile": "p"}],
        partition="aws-cn",
        known_partition="aws-cn",
        sts_region="cn-north-1",
    )


@scenario
def credential_process(world: World, home: Path) -> Scenario:
    keys = world.session("process")
    printed = {
        "Version": 1,
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key,
        "SessionToken": keys.session_token,
        "Expiration": stamp(1800),
    }
    return Scenario(
        [keys],
        "custom-process",
        files={
            "process.py": f"print('''{json.dumps(printed)}''')",
            ".aws/config": f"[profile p]\ncredential_process = {sys.executable} {home / 'process.py'}\n",
        },
        sources=[{"profile": "p"}],
    )


@scenario
def sso_with_a_token_to_refresh(world: World, home: Path) -> Scenario:
    account = "444444444444"
    keys = world.wire.keys[f"{account}/ops"] = world.session("sso")
    return Scenario(
        [keys],
        "sso",
        files=sso_files("corp", account, refresh_token=account),
        sources=[{"profile": "p"}],
        region_name="eu-west-1",
        known_partition="aws",
        sts_region="eu-west-1",
    )


if HAS_LOGIN:

    @scenario
    def aws_login_with_a_token_to_refresh(world: World, home: Path) -> Scenario:
        keys = world.wire.keys["someone"] = world.session("login")
        return Scenario(
            [keys],
            "login",
            files=login_files("arn:aws:iam::555555555555:user/someone", refresh_token="someone"),
            sources=[{"profile": "p"}],
            region_name="us-east-1",
            known_partition="aws",
        )


@scenario
def a_callable(world: World, home: Path) -> Scenario:
    keys = world.user("callable")
    return Scenario([keys], "callable", sources=[{"callable": [keys.access_key_id, keys.secret_access_key]}])


@scenario
def an_aiobotocore_session(world: World, home: Path) -> Scenario:
    arn = world.role("session")
    return Scenario(
        [arn],
        "session",
        files={
            ".aws/config": f"[profile p]\nrole_arn = {arn}\nsource_profile = base\nregion = us-west-2\n",
            ".aws/credentials": keys_in("base", world.user("session")),
        },
        sources=[{"aiobotocore": "p"}],
        region_name="us-west-2",
        known_partition="aws",
        sts_region="us-west-2",
    )


if importlib.util.find_spec("aioboto3"):

    @scenario
    def an_aioboto3_session(world: World, home: Path) -> Scenario:
        keys = world.user("aioboto3", "aws-cn")
        return Scenario(
            [keys],
            "session",
            files={".aws/credentials": keys_in("p", keys)},
            sources=[{"aioboto3": "p"}],
            partition="aws-cn",
            sts_region="cn-north-1",
        )
