"""Error of a chain that found no credentials: each provider in boto's order, with the setting that it lacks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncauth._errors import NoSourceCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.session import Session


def no_credentials_found(session: Session, label: str) -> NoSourceCredentials:
    """Return the error that lists every provider of the session's chain, and the setting that each one lacks."""
    settings = _Settings(session)
    lines = [
        f"  - {_describe(provider.METHOD, settings)}"
        for provider in session.get_component("credential_provider").providers
    ]
    return NoSourceCredentials(
        f"{label}: no base credentials found. boto tried, in this order:\n"
        + "\n".join(lines)
        + "\nGive the pool one of these, or keys=, profile= or source="
    )


@dataclass(frozen=True, slots=True)
class _Settings:
    """Settings that the descriptions read."""

    session: Session

    @property
    def profile(self) -> str:
        return f"profile {self.session.profile or 'default'!r}"

    def path(self, variable: str) -> str:
        return str(self.session.get_config_variable(variable))

    def setting(self, variable: str) -> Any:
        return self.session.get_config_variable(variable)


def _describe(method: str, settings: _Settings) -> str:
    describe = _DESCRIPTIONS.get(method)
    return method if describe is None else describe(settings)


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))


def _file(path: str, lacks: str) -> str:
    return f"{path}: {lacks if _exists(path) else 'there is no such file'}"


def _env(_: _Settings) -> str:
    return "the environment: AWS_ACCESS_KEY_ID is not set"


def _assume_role(settings: _Settings) -> str:
    return f"a role to assume: {settings.profile} has no role_arn with source_profile or credential_source"


def _web_identity(settings: _Settings) -> str:
    return f"web identity: neither AWS_WEB_IDENTITY_TOKEN_FILE nor web_identity_token_file in {settings.profile}"


def _sso(settings: _Settings) -> str:
    return f"IAM Identity Center (SSO): {settings.profile} has no sso_account_id and sso_role_name"


def _shared(settings: _Settings) -> str:
    return "the shared credentials file " + _file(
        settings.path("credentials_file"), f"{settings.profile} has no aws_access_key_id in it"
    )


def _login(settings: _Settings) -> str:
    return f"aws login: {settings.profile} has no login_session"


def _process(settings: _Settings) -> str:
    return f"a program: {settings.profile} has no credential_process"


def _config(settings: _Settings) -> str:
    return "the config file " + _file(
        settings.path("config_file"), f"{settings.profile} has no aws_access_key_id in it"
    )


def _ec2_file(_: _Settings) -> str:
    path = os.environ.get("AWS_CREDENTIAL_FILE")
    return "EC2's old credential file: " + (
        "AWS_CREDENTIAL_FILE is not set" if path is None else f"{path} has no AWSAccessKeyId"
    )


def _boto_file(_: _Settings) -> str:
    path = os.environ.get("BOTO_CONFIG")
    where = "/etc/boto.cfg and ~/.boto have" if path is None else f"{path} has"
    return f"boto 2's file: {where} no aws_access_key_id under [Credentials]"


def _container(_: _Settings) -> str:
    return (
        "a container's role: neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI "
        "is set"
    )


def _instance(settings: _Settings) -> str:
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "false").lower() == "true":
        return "an EC2 instance's role: switched off by AWS_EC2_METADATA_DISABLED"
    endpoint = settings.setting("ec2_metadata_service_endpoint") or "http://169.254.169.254/"
    seconds = settings.setting("metadata_service_timeout")
    attempts = settings.setting("metadata_service_num_attempts")
    return (
        f"an EC2 instance's role: nothing usable from {endpoint} ({attempts} attempts of {seconds} s each; "
        "AWS_METADATA_SERVICE_TIMEOUT and AWS_METADATA_SERVICE_NUM_ATTEMPTS change that)"
    )


#: By boto's own name of the provider.
_DESCRIPTIONS: Final[Mapping[str, Callable[[_Settings], str]]] = {
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
