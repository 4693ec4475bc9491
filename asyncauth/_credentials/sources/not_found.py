"""What boto's chain looked at and did not find, in its own order: the message when there is nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import NoSourceCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.session import Session


def nothing_found(session: Session, label: str) -> NoSourceCredentials:
    """Return the error that lists every provider of the session's chain, and what would have made it work."""
    looked = _Looked(session)
    lines = [
        f"  - {_WORDS.get(provider.METHOD, _unknown)(looked) or provider.METHOD}"
        for provider in session.get_component("credential_provider").providers
    ]
    return NoSourceCredentials(
        f"{label}: no base credentials found. boto looked, in this order, at:\n"
        + "\n".join(lines)
        + "\nGive the pool one of these, or keys=, profile= or source="
    )


@dataclass(frozen=True, slots=True)
class _Looked:
    session: Session

    @property
    def profile(self) -> str:
        return f"profile {self.session.profile or 'default'!r}"

    def path(self, variable: str) -> str:
        return str(self.session.get_config_variable(variable))

    def setting(self, variable: str) -> Any:
        return self.session.get_config_variable(variable)


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _file(path: str, lacks: str) -> str:
    return f"{path}: {lacks if _exists(path) else 'there is no such file'}"


def _env(_: _Looked) -> str:
    return "the environment: AWS_ACCESS_KEY_ID is not set"


def _assume_role(looked: _Looked) -> str:
    return f"a role to assume: {looked.profile} has no role_arn with source_profile or credential_source"


def _web_identity(looked: _Looked) -> str:
    return f"web identity: neither AWS_WEB_IDENTITY_TOKEN_FILE nor web_identity_token_file in {looked.profile}"


def _sso(looked: _Looked) -> str:
    return f"IAM Identity Center (SSO): {looked.profile} has no sso_account_id and sso_role_name"


def _shared(looked: _Looked) -> str:
    return "the shared credentials file " + _file(
        looked.path("credentials_file"), f"{looked.profile} has no aws_access_key_id in it"
    )


def _login(looked: _Looked) -> str:
    return f"aws login: {looked.profile} has no login_session"


def _process(looked: _Looked) -> str:
    return f"a program: {looked.profile} has no credential_process"


def _config(looked: _Looked) -> str:
    return "the config file " + _file(looked.path("config_file"), f"{looked.profile} has no aws_access_key_id in it")


def _ec2_file(_: _Looked) -> str:
    path = os.environ.get("AWS_CREDENTIAL_FILE")
    return "EC2's old credential file: " + (
        "AWS_CREDENTIAL_FILE is not set" if path is None else f"{path} has no AWSAccessKeyId"
    )


def _boto_file(_: _Looked) -> str:
    path = os.environ.get("BOTO_CONFIG")
    where = "/etc/boto.cfg and ~/.boto have" if path is None else f"{path} has"
    return f"boto 2's file: {where} no aws_access_key_id under [Credentials]"


def _container(_: _Looked) -> str:
    return (
        "a container's role: neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI "
        "is set"
    )


def _instance(looked: _Looked) -> str:
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "false").lower() == "true":
        return "an EC2 instance's role: switched off by AWS_EC2_METADATA_DISABLED"
    endpoint = looked.setting("ec2_metadata_service_endpoint") or "http://169.254.169.254/"
    seconds = looked.setting("metadata_service_timeout")
    attempts = looked.setting("metadata_service_num_attempts")
    return (
        f"an EC2 instance's role: nothing usable from {endpoint} ({attempts} attempts of {seconds} s each; "
        "AWS_METADATA_SERVICE_TIMEOUT and AWS_METADATA_SERVICE_NUM_ATTEMPTS change that)"
    )


def _unknown(_: _Looked) -> str:
    return ""


#: By boto's own name of the provider.
_WORDS: Final[Mapping[str, Callable[[_Looked], str]]] = {
    "env": _env,
    "assume-role": _assume_role,
    "assume-role-with-web-identity": _web_identity,
    "sso": _sso,
    "shared-credentials-file": _shared,
    "login": _login,
    "custom-process": _process,
    "config-file": _config,
    "ec2-credentials-file": _ec2_file,
    "boto-config": _boto_file,
    "container-role": _container,
    "iam-role": _instance,
}
