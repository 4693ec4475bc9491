"""Environment of a subprocess that acts in an account."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncauth._models import Credentials


#: Variables that take precedence over, or mix with, the credentials that a subprocess must use.
_CREDENTIAL_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CREDENTIAL_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)


def static_environ(credentials: Credentials, region_name: str, endpoint_url: str | None) -> dict[str, str]:
    """Return this process's environment with the account's keys in place of its own credentials.

    The subprocess cannot renew the keys, so it must end before they do.
    """
    environ = clean_environ(region_name, endpoint_url)
    environ["AWS_ACCESS_KEY_ID"] = credentials.access_key_id
    environ["AWS_SECRET_ACCESS_KEY"] = credentials.secret_access_key
    if credentials.session_token is not None:
        environ["AWS_SESSION_TOKEN"] = credentials.session_token
    if credentials.expiration is not None:
        environ["AWS_CREDENTIAL_EXPIRATION"] = f"{credentials.expiration:%Y-%m-%dT%H:%M:%SZ}"
    return environ


def clean_environ(region_name: str, endpoint_url: str | None) -> dict[str, str]:
    """Return this process's environment without its credentials, and with the region."""
    environ = {name: value for name, value in os.environ.items() if name not in _CREDENTIAL_VARIABLES}
    environ["AWS_REGION"] = environ["AWS_DEFAULT_REGION"] = region_name
    if endpoint_url is not None:
        environ["AWS_ENDPOINT_URL"] = endpoint_url
    return environ
