"""Checks of boto's settings before they are used: each mistake is an error that names variable, file or profile."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.configprovider import ChainProvider, ConstantProvider, InstanceVarProvider

from asyncauth._aws.plain_http import check_endpoint_url
from asyncauth._credentials.sources.setting_values import check_values
from asyncauth._errors import ConfigurationError
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.session import Session

SessionType = TypeVar("SessionType", bound="Session")

#: Endpoints that credentials come from; those of other services are botocore's affair when a client is made.
_ENDPOINT_VARIABLES: Final = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_SSO_OIDC",
    "AWS_ENDPOINT_URL_SIGNIN",
)

#: Settings whose values hold no space, so that a space and a comment sign begin a comment.
_WITHOUT_SPACES: Final = (
    "region",
    "role_arn",
    "credential_source",
    "mfa_serial",
    "role_session_name",
    "endpoint_url",
    "sso_session",
    "sso_account_id",
    "sso_region",
    "sso_start_url",
)
_COMMENT: Final = re.compile(r"\s[#;]")


def settled_profile(profile: str | None) -> str | None:
    """Return the profile to use: `profile`, else that of the variables; an empty variable counts as unset."""
    return profile or os.environ.get("AWS_DEFAULT_PROFILE") or os.environ.get("AWS_PROFILE") or None


def prepare_session(session: SessionType) -> SessionType:
    """Return a session whose profile and region count as unset where their variables are empty."""
    # Not `session.profile`, which keeps the first value that it returns.
    if session.get_config_variable("profile") == "":
        _set_default(session, "profile", None)
    if session.get_config_variable("region") == "":
        _set_default(session, "region", session.get_scoped_config().get("region"))
    return session


def _set_default(session: Session, name: str, value: str | None) -> None:
    """Let a setting have `value` unless `set_config_variable` sets another one; its variable is not read."""
    providers = [InstanceVarProvider(name, session), ConstantProvider(value)]
    session.get_component("config_store").set_config_provider(name, ChainProvider(providers))


def check_settings(session: Session, label: str) -> None:
    """Refuse settings that botocore cannot read.

    Raises:
        ConfigurationError: a value that botocore does not know, a number that is none, an endpoint without a scheme,
            or a comment after a value.
    """
    check_values(session, label)
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        for variable in _ENDPOINT_VARIABLES:
            if os.environ.get(variable):
                check_endpoint_url(f"{label}: the variable {variable}", os.environ[variable])
    profiles: Mapping[str, Mapping[str, Any]] = session.full_config.get("profiles", {})
    for name in _chain_of_profiles(session, profiles):
        _check_profile(name, profiles, label)


def _check_profile(name: str, profiles: Mapping[str, Mapping[str, Any]], label: str) -> None:
    profile = profiles[name]
    for setting in _WITHOUT_SPACES:
        value = profile.get(setting)
        if isinstance(value, str) and _COMMENT.search(value):
            raise _comment(name, setting, value, label)
    duration = profile.get("duration_seconds")
    if isinstance(duration, str) and not duration.strip().isdecimal():
        # botocore ignores it without a word.
        raise ConfigurationError(
            f"{label}: the setting duration_seconds of profile {name!r} is {printable(duration)!r}, it must be a whole "
            "number of seconds or unset"
        )
    source = profile.get("source_profile")
    if isinstance(source, str) and source not in profiles and _COMMENT.search(source):
        raise _comment(name, "source_profile", source, label)
    endpoint = profile.get("endpoint_url")
    if isinstance(endpoint, str) and endpoint:
        check_endpoint_url(f"{label}: the setting endpoint_url of profile {name!r}", endpoint)


def _comment(profile: str, setting: str, value: str, label: str) -> ConfigurationError:
    return ConfigurationError(
        f"{label}: in profile {profile!r} the setting {setting} is {value[:80]!r}: a comment after a value is part of "
        "the value; put it on a line of its own"
    )


def _chain_of_profiles(session: Session, profiles: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names of the session's profile and of the source profiles behind it, as far as they exist."""
    name: Any = _profile(session)
    visited: set[str] = set()
    while isinstance(name, str) and name in profiles and name not in visited:
        visited.add(name)
        yield name
        name = profiles[name].get("source_profile")


def check_ca_bundle(session: Session, label: str, verify: bool | str | None = None) -> None:
    """Refuse a CA bundle that is not there: an error of the transport would not name the file.

    Args:
        session: reads AWS_CA_BUNDLE and the profile's ca_bundle.
        label: of the source.
        verify: goes before both, unless it is None.

    Raises:
        ConfigurationError: the file does not exist; the message names it and the setting.
    """
    path = session.get_config_variable("ca_bundle") if verify is None else verify
    if not isinstance(path, str) or not path or os.path.exists(path):
        return
    if verify is not None:
        where = "verify="
    elif os.environ.get("AWS_CA_BUNDLE"):
        where = "the variable AWS_CA_BUNDLE"
    else:
        where = f"the setting ca_bundle of profile {_profile(session)!r}"
    raise ConfigurationError(
        f"{label}: the CA bundle {printable(path, 300)!r}, which {where} names, does not exist; correct or unset it"
    )


def describe_slow_setting(session: Session) -> str | None:
    """Return which setting of the session's profile, or of the source profiles behind it, may take forever to load."""
    profiles: Mapping[str, Mapping[str, Any]] = session.full_config.get("profiles", {})
    for name in _chain_of_profiles(session, profiles):
        if "credential_process" in profiles[name]:
            return f"the credential_process of profile {name!r} may not have ended; run that command yourself"
        if "mfa_serial" in profiles[name]:
            return (
                f"the code for the mfa_serial of profile {name!r} may not have been typed; it can also be given "
                "through Role(mfa_serial=, mfa_token=)"
            )
    return None


def misnamed_section(session: Session, name: str) -> str | None:
    """Return how to correct the section of a profile whose `profile ` prefix is missing or must not be there.

    In the config file a profile's section has the prefix, except for the default profile; in the credentials file none
    has it.
    """
    config = session.full_config
    if name != "default" and name in config and isinstance(config[name], dict) and name != "profiles":
        path = session.get_config_variable("config_file")
        return f"{path} has a section [{name}]; in that file it must be [profile {name}]"
    if f"profile {name}" in config.get("profiles", {}):
        path = session.get_config_variable("credentials_file")
        return f"{path} has a section [profile {name}]; in that file it must be [{name}]"
    return None


def _profile(session: Session) -> str:
    return session.profile or "default"
