"""Configured source: a digest of what base credentials are configured with, read without botocore.

A cached token can be served before the source is resolved only if the configuration alone determines the identity: a
profile with keys, a role, a login or a process, or keys in the environment. Instance metadata and container endpoints
return whatever identity the machine has, so they have no digest.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["configured_source"]

#: Settings of a profile that lead to credentials of a fixed identity.
_OF_FIXED_IDENTITY: Final = (
    "aws_access_key_id",
    "web_identity_token_file",
    "sso_account_id",
    "credential_process",
    "login_session",
)
#: Keys and tokens: their digest is part of the digest, in place of themselves.
_SECRET_WORDS: Final = ("secret", "token", "password")
#: A chain of `source_profile` longer than this is a circle.
_MAX_PROFILES: Final = 20


def configured_source(
    profile: str | None = None, *, region_name: str | None = None, environ: Mapping[str, str] | None = None
) -> str | None:
    """Return a digest of the configuration that base credentials come from.

    It covers the sections of the profile and of those that it refers to, and all variables of the environment that
    begin with `AWS_`. So another key id, another role or another endpoint has another digest.

    Args:
        profile: the profile's name; None: that of AWS_DEFAULT_PROFILE or AWS_PROFILE, else `default`.
        region_name: the region that is given to the pool; None: the configured one.
        environ: the environment; None: this process's.

    Returns:
        A hexadecimal digest; None if the identity is not determined by the configuration (instance metadata, container
        endpoints, no configuration at all), or the files cannot be read.
    """
    variables = dict(os.environ if environ is None else environ)
    named = profile or variables.get("AWS_DEFAULT_PROFILE") or variables.get("AWS_PROFILE")
    try:
        files = _read_files(variables)
    except (OSError, configparser.Error, UnicodeDecodeError):
        return None  # boto reports what is wrong with them
    sections = _sections(files, named or "default")
    if sections is None:
        return None
    keys_in_environ = bool(variables.get("AWS_ACCESS_KEY_ID")) and not profile
    web_identity = bool(variables.get("AWS_WEB_IDENTITY_TOKEN_FILE") and variables.get("AWS_ROLE_ARN"))
    if not (keys_in_environ or web_identity or _is_fixed(sections)):
        return None
    content = {
        "profile": named,
        "region": region_name,
        "sections": sections,
        "environ": {name: value for name, value in sorted(variables.items()) if name.startswith(("AWS_", "BOTO_"))},
    }
    return hashlib.sha256(json.dumps(_without_secrets(content), sort_keys=True).encode()).hexdigest()


def _read_files(variables: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the sections of both files by profile name; other sections by their whole name."""
    home = Path(variables.get("HOME") or Path.home())
    found: dict[str, dict[str, str]] = {}
    for variable, default, is_config in (
        ("AWS_CONFIG_FILE", home / ".aws" / "config", True),
        ("AWS_SHARED_CREDENTIALS_FILE", home / ".aws" / "credentials", False),
    ):
        path = Path(variables.get(variable) or default).expanduser()
        parser = configparser.RawConfigParser(strict=False, default_section="\0")
        if path.is_file():
            parser.read_string(path.read_text(encoding="utf-8"))
        for section in parser.sections():
            name = section.removeprefix("profile ").strip().strip("\"'") if is_config else section
            found.setdefault(name, {}).update(parser.items(section))
    return found


def _sections(files: Mapping[str, dict[str, str]], profile: str) -> dict[str, dict[str, str]] | None:
    """Return the sections that a profile consists of, those that it refers to included; None if it is a circle."""
    found: dict[str, dict[str, str]] = {}
    waiting = [profile]
    while waiting:
        name = waiting.pop()
        if name in found or name not in files:
            continue
        section = found[name] = files[name]
        for setting, prefix in (("source_profile", ""), ("sso_session", "sso-session "), ("services", "services ")):
            if setting in section:
                waiting.append(prefix + section[setting])
        if len(found) > _MAX_PROFILES:
            return None
    return found


def _is_fixed(sections: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a section leads to credentials of a fixed identity, and none to those of the machine."""
    if any("credential_source" in section for section in sections.values()):
        return False
    return any(name in section for section in sections.values() for name in _OF_FIXED_IDENTITY)


def _without_secrets(value: object, name: str = "") -> object:
    if isinstance(value, Mapping):
        return {str(key): _without_secrets(each, str(key)) for key, each in value.items()}
    if isinstance(value, str) and any(word in name.lower() for word in _SECRET_WORDS):
        return hashlib.sha256(value.encode()).hexdigest()
    return value
