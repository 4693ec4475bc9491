"""What botocore's errors mean when it resolves base credentials, and what to do about each; never what they quote.

botocore's messages quote what it read: a metadata service's body, a credential process's output, a line of a file. So
of most errors only the kind is told, and the error itself is not chained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._errors import ConfigurationError, SourceError, SourceExpired
from asyncauth._failures import scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth._errors import AsyncAuthError

_EXPIRED_CODES: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidToken"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where an error arose: the source's label, and the profile that was in effect."""

    label: str
    profile: str | None

    def command(self, command: str) -> str:
        """Return a command of the AWS CLI for this profile."""
        return command if self.profile is None else f"{command} --profile {self.profile}"


def explain(error: Exception, place: Place) -> AsyncAuthError:
    """Return the error of our tree for what came out of botocore's chain."""
    if isinstance(error, ClientError):
        return _refused(error, place)
    for kind in type(error).__mro__:
        if kind.__name__ in _MEANINGS:
            return _MEANINGS[kind.__name__](error, place)
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        named = f" {error.filename!r}" if error.filename else ""
        return SourceError(f"{place.label}: {what}:{named}", code=type(error).__name__)
    return _told(f"boto failed with {type(error).__name__}", error, place)


def _refused(error: ClientError, place: Place) -> AsyncAuthError:
    code = str(error.response.get("Error", {}).get("Code", "Unknown"))
    operation = error.operation_name
    attempts = int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)) + 1
    explained: SourceError
    if code in _EXPIRED_CODES:
        explained = SourceExpired(
            f"{place.label}: {operation} answered {code}: what the source itself lives on has ended; renew it "
            "(a login, or the keys that were exported or written to a file)",
            code=code,
            attempts=attempts,
        )
    else:
        explained = SourceError(
            f"{place.label}: {operation} answered {code}; check the role and keys that the source is made of",
            code=code,
            attempts=attempts,
        )
    explained.__cause__ = scrub(error)
    return explained


def _told(what: str, error: Exception, place: Place) -> SourceError:
    return SourceError(f"{place.label}: {what}", code=type(error).__name__)


def _expired(what: str, error: Exception, place: Place) -> SourceExpired:
    return SourceExpired(f"{place.label}: {what}", code=type(error).__name__)


def _quoted(error: Exception, place: Place) -> AsyncAuthError:
    """botocore wrote these messages itself: names of settings and profiles, no values that are secret."""
    return _told(str(error), error, place)


def _no_profile(error: Exception, place: Place) -> AsyncAuthError:
    name = getattr(error, "kwargs", {}).get("profile", place.profile)
    known = available_profiles()
    there_are = f"there are {', '.join(known)}" if known else "there are no profiles at all"
    return ConfigurationError(
        f"{place.label}: the profile {name!r} is neither in the config file nor in the credentials file; {there_are}"
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


def _retrieval(error: Exception, place: Place) -> AsyncAuthError:
    provider = getattr(error, "kwargs", {}).get("provider", "a provider")
    if provider == "custom-process":
        return _told(
            "the profile's credential_process failed or answered nonsense (what it printed is not shown, it may hold "
            "secrets); run that command yourself: it must exit with 0 and print JSON with Version 1, AccessKeyId and "
            "SecretAccessKey",
            error,
            place,
        )
    if provider == "container-role":
        return _told(
            "the container's credential endpoint did not answer as it should; check "
            "AWS_CONTAINER_CREDENTIALS_FULL_URI or _RELATIVE_URI, and the authorization token",
            error,
            place,
        )
    return _told(f"boto's provider {provider!r} failed", error, place)


def _sso(error: Exception, place: Place) -> AsyncAuthError:
    login = place.command("aws sso login")
    return _expired(f"the SSO session has ended or was never begun; run: {login}", error, place)


def _token(error: Exception, place: Place) -> AsyncAuthError:
    return _sso(error, place)


def _login(error: Exception, place: Place) -> AsyncAuthError:
    return _expired(f"the login session has ended or was never begun; run: {place.command('aws login')}", error, place)


def _login_denied(error: Exception, place: Place) -> AsyncAuthError:
    return _told("the login may not be renewed: signin:CreateOAuth2Token is not permitted", error, place)


def _login_failed(error: Exception, place: Place) -> AsyncAuthError:
    return _told(f"the login could not be renewed; try: {place.command('aws login')}", error, place)


def _still_expired(error: Exception, place: Place) -> AsyncAuthError:
    if "still expired" in str(error):
        return _expired(
            "the credentials that boto found have ended, and asking for them again brings the same ones; renew them "
            "where they are kept (AWS_CREDENTIAL_EXPIRATION says the end of those in the environment)",
            error,
            place,
        )
    return _told("boto failed with RuntimeError", error, place)


def _mfa(error: Exception, place: Place) -> AsyncAuthError:
    return _expired(
        "its session was bought with one MFA code and has ended; boto does not ask for a second one. Start again, or "
        "give the code through Role(mfa_serial=, mfa_token=)",
        error,
        place,
    )


def _missing(error: Exception, place: Place) -> AsyncAuthError:
    return _told("this kind of source needs the AWS CRT: pip install 'botocore[crt]'", error, place)


def _parameters(error: Exception, place: Place) -> AsyncAuthError:
    return _told(
        "boto refuses what the profile would send; check its role_arn, external_id, role_session_name and "
        "duration_seconds",
        error,
        place,
    )


def _no_json(error: Exception, place: Place) -> AsyncAuthError:
    return _told(
        "what a credential_process or a metadata service answered is not JSON (it is not shown, it may hold secrets)",
        error,
        place,
    )


def _config_file(error: Exception, place: Place) -> AsyncAuthError:
    path = getattr(error, "kwargs", {}).get("path", "a file of boto's")
    return ConfigurationError(
        f"{place.label}: {path} is not a config file that boto can read", code=type(error).__name__
    )


def _unreachable(error: Exception, place: Place) -> AsyncAuthError:
    url = getattr(error, "kwargs", {}).get("endpoint_url", "its endpoint")
    return _told(f"no answer from {url}; check the network, a proxy, and AWS_ENDPOINT_URL settings", error, place)


#: By name: some of them exist in newer botocore only.
_MEANINGS: Final[Mapping[str, Callable[[Exception, Place], AsyncAuthError]]] = {
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
