"""Errors of botocore's credential chain: their types in the tree of asyncauth, and the remedy of each.

botocore's messages quote its input: a metadata service's body, a credential process's output, a line of a file. So
most messages here name the kind of the error only, and the original error is not chained.
"""

from __future__ import annotations

import os
import time
from configparser import (
    DuplicateOptionError,
    DuplicateSectionError,
    MissingSectionHeaderError,
    ParsingError,
    RawConfigParser,
)
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from asyncauth._aws.clock_offset import describe_clock
from asyncauth._aws.error_codes import EXPIRED, attempts_of
from asyncauth._credentials.sources.provider_errors import describe_provider_error
from asyncauth._credentials.sources.settings import misnamed_section
from asyncauth._errors import ConfigurationError, SourceError, SourceExpired
from asyncauth._runtime.exceptions import strip_frame_locals
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth._errors import AsyncAuthError


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """Origin of an error: the source's label, and the profile in effect; None: no profile was named."""

    label: str
    profile: str | None

    def command(self, command: str) -> str:
        """Return a command of the AWS CLI for this profile."""
        return command if self.profile is None else f"{command} --profile {self.profile}"


def explain(error: Exception, context: ErrorContext) -> AsyncAuthError:
    """Return the error of asyncauth for an error of botocore's chain."""
    if isinstance(error, ClientError):
        return _refused(error, context)
    for kind in type(error).__mro__:
        if kind.__name__ in _EXPLANATIONS:
            return _EXPLANATIONS[kind.__name__](error, context)
    provider_error = describe_provider_error(error)
    if provider_error is not None:
        return _source_error(provider_error, error, context)
    if isinstance(error, OSError):
        description = error.strerror or type(error).__name__
        file = f" {printable(str(error.filename), 300)!r}" if error.filename else ""
        return SourceError(f"{context.label}: {description}:{file}", code=type(error).__name__)
    return _source_error(f"boto failed with {type(error).__name__}", error, context)


def _refused(error: ClientError, context: ErrorContext) -> AsyncAuthError:
    code = printable(str(error.response.get("Error", {}).get("Code", "Unknown")), 100)
    operation = error.operation_name
    attempts = attempts_of(error)
    explained: SourceError
    clock = describe_clock(error, code, time.time())
    if clock is not None:
        explained = SourceError(f"{context.label}: {operation} answered {code}: {clock}", code=code, attempts=attempts)
    elif code in EXPIRED:
        explained = SourceExpired(
            f"{context.label}: {operation} answered {code}: the credentials behind this source have expired; renew "
            "them (a login, or the keys that were exported or written to a file)",
            code=code,
            attempts=attempts,
        )
    else:
        explained = SourceError(
            f"{context.label}: {operation} answered {code}; check the role and keys that the source is made of",
            code=code,
            attempts=attempts,
        )
    explained.__cause__ = strip_frame_locals(error)
    return explained


def _source_error(message: str, error: Exception, context: ErrorContext) -> SourceError:
    return SourceError(f"{context.label}: {message}", code=type(error).__name__)


def _expired(message: str, error: Exception, context: ErrorContext) -> SourceExpired:
    return SourceExpired(f"{context.label}: {message}", code=type(error).__name__)


def _quoted(error: Exception, context: ErrorContext) -> AsyncAuthError:
    """Quote a message of botocore's own words: it holds names of settings and profiles, and no secret values."""
    return _source_error(printable(str(error), 400), error, context)


def _profile_not_found(error: Exception, context: ErrorContext) -> AsyncAuthError:
    name = getattr(error, "kwargs", {}).get("profile", context.profile)
    known, correction = _available_profiles(name)
    profiles = correction or (f"there are {', '.join(known)}" if known else "there are no profiles at all")
    profiles += "".join(
        f"; {variable} names {printable(os.environ[variable], 300)!r}, which does not exist"
        for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
        if os.environ.get(variable) and not os.path.exists(os.path.expanduser(os.environ[variable]))
    )
    return ConfigurationError(
        f"{context.label}: the profile {printable(str(name))!r} is neither in the config file nor in the "
        f"credentials file; {profiles} (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE set the files "
        "and the profile)",
        code=type(error).__name__,
    )


def _available_profiles(name: str | None) -> tuple[list[str], str | None]:
    """Return the names of all profiles, and how to correct a section of the name; none if the files are unreadable."""
    try:
        session = Session()
        return sorted(session.available_profiles), misnamed_section(session, name or "")
    except (BotoCoreError, OSError, UnicodeDecodeError):
        return [], None


#: Settings that each value of `credential_source` lacks when it finds nothing.
_CREDENTIAL_SOURCES: Final[Mapping[str, str]] = {
    "Environment": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
    "Ec2InstanceMetadata": (
        "EC2's metadata service gave no keys (not on EC2, no instance profile, or AWS_EC2_METADATA_DISABLED is set)"
    ),
    "EcsContainer": "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI are not set",
}


def _retrieval(error: Exception, context: ErrorContext) -> AsyncAuthError:
    provider = getattr(error, "kwargs", {}).get("provider", "a provider")
    if provider in _CREDENTIAL_SOURCES:
        return _source_error(
            f"its credential_source {provider} found no keys: {_CREDENTIAL_SOURCES[provider]}", error, context
        )
    if provider == "custom-process":
        return _source_error(
            "its credential_process failed or printed an unusable answer (not shown, it may hold "
            "secrets); run that command yourself: it must exit with 0 and print JSON with Version 1, AccessKeyId and "
            "SecretAccessKey",
            error,
            context,
        )
    if provider == "container-role":
        return _source_error(
            "the container's credential endpoint returned no usable answer; check "
            "AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI, and the authorization token",
            error,
            context,
        )
    return _source_error(f"boto's provider {provider!r} failed", error, context)


def _sso(error: Exception, context: ErrorContext) -> AsyncAuthError:
    login = context.command("aws sso login")
    return _expired(f"the SSO session has expired or does not exist; run: {login}", error, context)


def _login(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _expired(
        f"the login session has expired or does not exist; run: {context.command('aws login')}", error, context
    )


def _login_denied(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _source_error("the login cannot be renewed: signin:CreateOAuth2Token is not permitted", error, context)


def _login_failed(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _source_error(f"the login could not be renewed; try: {context.command('aws login')}", error, context)


def _still_expired(error: Exception, context: ErrorContext) -> AsyncAuthError:
    if "still expired" in str(error):
        variable = "AWS_CREDENTIAL_EXPIRATION"
        hint = f" ({variable} is the end of those in the environment)" if variable in os.environ else ""
        return _expired(
            "the credentials that boto found have expired, and another load returns the same ones; renew them where "
            f"they are stored{hint}",
            error,
            context,
        )
    return _source_error("boto failed with RuntimeError", error, context)


def _mfa(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _expired(
        "its session was opened with one MFA code and has expired, and boto does not prompt for a second code; start "
        "again, or give the code through Role(mfa_serial=, mfa_token=)",
        error,
        context,
    )


def _missing_dependency(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _source_error("this kind of source needs the AWS CRT: pip install 'botocore[crt]'", error, context)


def _parameters(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _source_error(
        "boto refuses the request that the profile describes; check its role_arn, external_id, role_session_name and "
        "duration_seconds",
        error,
        context,
    )


def _no_json(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _source_error(
        "the answer of a credential_process or a metadata service is not JSON (not shown, it may hold secrets)",
        error,
        context,
    )


def _config_file(error: Exception, context: ErrorContext) -> AsyncAuthError:
    path = getattr(error, "kwargs", {}).get("path", "a file of boto's")
    return ConfigurationError(
        f"{context.label}: {printable(str(path), 300)} is not a config file that boto can read{_line_of(path)}",
        code=type(error).__name__,
    )


def _line_of(path: str) -> str:
    """Return which line of a config file is wrong, without its text, which may hold a secret; empty if unknown."""
    try:
        RawConfigParser(default_section="").read(path)
    except MissingSectionHeaderError as error:
        return _wrong_line(error.lineno)
    except ParsingError as error:
        return _wrong_line(error.errors[0][0]) if error.errors else ""
    except (DuplicateSectionError, DuplicateOptionError) as error:
        name = error.section if isinstance(error, DuplicateSectionError) else error.option
        return f": line {error.lineno} repeats {printable(name)!r}"
    except UnicodeDecodeError:
        return ": it is not UTF-8"
    except (ConfigParserError, OSError):
        return ""
    return ""


def _wrong_line(number: int) -> str:
    return f": line {number} is neither [profile NAME] nor a setting"


def _metadata_endpoint(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return ConfigurationError(
        f"{context.label}: the address of EC2's metadata service is not valid; correct or unset "
        "AWS_EC2_METADATA_SERVICE_ENDPOINT and AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE, or the settings "
        "ec2_metadata_service_endpoint and ec2_metadata_service_endpoint_mode",
        code=type(error).__name__,
    )


def check_keys(access_key_id: object, secret_access_key: object, context: ErrorContext) -> SourceError | None:
    """Return the error of keys that cannot sign, as a `credential_process` may print them; None if they can."""
    for name, value in (("access key id", access_key_id), ("secret access key", secret_access_key)):
        if not isinstance(value, str) or not value:
            problem = "empty" if value == "" or value is None else "not a text"
            return SourceError(f"{context.label}: the {name} is {problem}; correct it where the source reads it")
    return None


def _unreachable(error: Exception, context: ErrorContext) -> AsyncAuthError:
    url = getattr(error, "kwargs", {}).get("endpoint_url", "its endpoint")
    return _source_error(
        f"no answer from {printable(str(url), 300)}; check the network, a proxy, and AWS_ENDPOINT_URL settings",
        error,
        context,
    )


#: By the name of the class: some exist only in newer versions of botocore.
_EXPLANATIONS: Final[Mapping[str, Callable[[Exception, ErrorContext], AsyncAuthError]]] = {
    "ProfileNotFound": _profile_not_found,
    "ConfigParseError": _config_file,
    "CredentialRetrievalError": _retrieval,
    "SSOError": _sso,
    "TokenRetrievalError": _sso,
    "LoginRefreshRequired": _login,
    "LoginTokenLoadError": _login,
    "LoginInsufficientPermissions": _login_denied,
    "LoginError": _login_failed,
    "RefreshWithMFAUnsupportedError": _mfa,
    "MissingDependencyException": _missing_dependency,
    "InvalidIMDSEndpointError": _metadata_endpoint,
    "InvalidIMDSEndpointModeError": _metadata_endpoint,
    "InvalidConfigError": _quoted,
    "PartialCredentialsError": _quoted,
    "UnknownCredentialError": _quoted,
    "NoRegionError": _quoted,
    "ConnectionError": _unreachable,
    "HTTPClientError": _unreachable,
    "ParamValidationError": _parameters,
    "JSONDecodeError": _no_json,
    "RuntimeError": _still_expired,
}
