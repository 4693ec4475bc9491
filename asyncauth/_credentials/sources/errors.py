"""What botocore's errors mean when it resolves base credentials, and what to do about each; never what they quote.

botocore's messages quote what it read: a metadata service's body, a credential process's output, a line of a file. So
of most errors only the kind is told, and the error itself is not chained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._aws.error_codes import EXPIRED, attempts_of
from asyncauth._errors import ConfigurationError, SourceError, SourceExpired
from asyncauth._runtime.exceptions import strip_frame_locals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth._errors import AsyncAuthError


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """Where an error arose: the source's label, and the profile that was in effect."""

    label: str
    profile: str | None

    def command(self, command: str) -> str:
        """Return a command of the AWS CLI for this profile."""
        return command if self.profile is None else f"{command} --profile {self.profile}"


def explain(error: Exception, context: ErrorContext) -> AsyncAuthError:
    """Return the error of our tree for what came out of botocore's chain."""
    if isinstance(error, ClientError):
        return _refused(error, context)
    for kind in type(error).__mro__:
        if kind.__name__ in _MEANINGS:
            return _MEANINGS[kind.__name__](error, context)
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        named = f" {error.filename!r}" if error.filename else ""
        return SourceError(f"{context.label}: {what}:{named}", code=type(error).__name__)
    return _told(f"boto failed with {type(error).__name__}", error, context)


def _refused(error: ClientError, context: ErrorContext) -> AsyncAuthError:
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    operation = error.operation_name
    attempts = attempts_of(error)
    explained: SourceError
    if code in EXPIRED:
        explained = SourceExpired(
            f"{context.label}: {operation} answered {code}: what the source itself lives on has ended; renew it "
            "(a login, or the keys that were exported or written to a file)",
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


def _told(what: str, error: Exception, context: ErrorContext) -> SourceError:
    return SourceError(f"{context.label}: {what}", code=type(error).__name__)


def _expired(what: str, error: Exception, context: ErrorContext) -> SourceExpired:
    return SourceExpired(f"{context.label}: {what}", code=type(error).__name__)


def _quoted(error: Exception, context: ErrorContext) -> AsyncAuthError:
    """botocore wrote these messages itself: names of settings and profiles, no values that are secret."""
    return _told(str(error), error, context)


def _no_profile(error: Exception, context: ErrorContext) -> AsyncAuthError:
    name = getattr(error, "kwargs", {}).get("profile", context.profile)
    known = available_profiles()
    there_are = f"there are {', '.join(known)}" if known else "there are no profiles at all"
    return ConfigurationError(
        f"{context.label}: the profile {name!r} is neither in the config file nor in the credentials file; {there_are}"
        " (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE say where boto looks)",
        code=type(error).__name__,
    )


def available_profiles() -> list[str]:
    """Return the names of the profiles that there are."""
    from botocore.session import Session

    try:
        session = Session()
        return sorted(session.available_profiles)
    except (BotoCoreError, OSError, UnicodeDecodeError):
        return []


def _retrieval(error: Exception, context: ErrorContext) -> AsyncAuthError:
    provider = getattr(error, "kwargs", {}).get("provider", "a provider")
    if provider == "custom-process":
        return _told(
            "the profile's credential_process failed or answered nonsense (what it printed is not shown, it may hold "
            "secrets); run that command yourself: it must exit with 0 and print JSON with Version 1, AccessKeyId and "
            "SecretAccessKey",
            error,
            context,
        )
    if provider == "container-role":
        return _told(
            "the container's credential endpoint did not answer as it should; check "
            "AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI, and the authorization token",
            error,
            context,
        )
    return _told(f"boto's provider {provider!r} failed", error, context)


def _sso(error: Exception, context: ErrorContext) -> AsyncAuthError:
    login = context.command("aws sso login")
    return _expired(f"the SSO session has ended or was never begun; run: {login}", error, context)


def _token(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _sso(error, context)


def _login(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _expired(
        f"the login session has ended or was never begun; run: {context.command('aws login')}", error, context
    )


def _login_denied(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _told("the login may not be renewed: signin:CreateOAuth2Token is not permitted", error, context)


def _login_failed(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _told(f"the login could not be renewed; try: {context.command('aws login')}", error, context)


def _still_expired(error: Exception, context: ErrorContext) -> AsyncAuthError:
    if "still expired" in str(error):
        return _expired(
            "the credentials that boto found have ended, and asking for them again brings the same ones; renew them "
            "where they are kept (AWS_CREDENTIAL_EXPIRATION says the end of those in the environment)",
            error,
            context,
        )
    return _told("boto failed with RuntimeError", error, context)


def _mfa(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _expired(
        "its session was bought with one MFA code and has ended; boto does not ask for a second one. Start again, or "
        "give the code through Role(mfa_serial=, mfa_token=)",
        error,
        context,
    )


def _missing(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _told("this kind of source needs the AWS CRT: pip install 'botocore[crt]'", error, context)


def _parameters(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _told(
        "boto refuses what the profile would send; check its role_arn, external_id, role_session_name and "
        "duration_seconds",
        error,
        context,
    )


def _no_json(error: Exception, context: ErrorContext) -> AsyncAuthError:
    return _told(
        "what a credential_process or a metadata service answered is not JSON (it is not shown, it may hold secrets)",
        error,
        context,
    )


def _config_file(error: Exception, context: ErrorContext) -> AsyncAuthError:
    path = getattr(error, "kwargs", {}).get("path", "a file of boto's")
    return ConfigurationError(
        f"{context.label}: {path} is not a config file that boto can read", code=type(error).__name__
    )


def _unreachable(error: Exception, context: ErrorContext) -> AsyncAuthError:
    url = getattr(error, "kwargs", {}).get("endpoint_url", "its endpoint")
    return _told(f"no answer from {url}; check the network, a proxy, and AWS_ENDPOINT_URL settings", error, context)


#: By name: some of them exist in newer botocore only.
_MEANINGS: Final[Mapping[str, Callable[[Exception, ErrorContext], AsyncAuthError]]] = {
    "ProfileNotFound": _no_profile,
    "ConfigParseError": _config_file,
    "CredentialRetrievalError": _retrieval,
    "SSOError": _sso,
    "TokenRetrievalError": _token,
    "LoginRefreshRequired": _login,
    "LoginTokenLoadError": _login,
    "LoginInsufficientPermissions": _login_denied,
    "LoginError": _login_failed,
    "RefreshWithMFAUnsupportedError": _mfa,
    "MissingDependencyException": _missing,
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
