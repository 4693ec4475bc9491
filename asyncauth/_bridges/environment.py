"""Environment of a subprocess that acts in an account, configured like the pool's own clients."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth._bridges.credential_server import Address
    from asyncauth._bridges.settings import BridgeSettings
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
#: Begin of the names of variables with a bearer token for one service, such as AWS_BEARER_TOKEN_BEDROCK.
_BEARER_TOKEN_PREFIX: Final = "AWS_BEARER_TOKEN_"  # noqa: S105 - a name, not a token

#: Files of configuration and credentials. Their settings are in variables of the environment instead, since boto reads
#: credentials from them before it requests any from a container endpoint.
_FILE_VARIABLES: Final = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG")

#: Variables of botocore's sessions that `_settings_variables` does not carry over: they lead to credentials, or the
#: environment sets them in another way.
_NOT_CARRIED_OVER: Final = frozenset(
    {"profile", "region", "config_file", "credentials_file", "sts_regional_endpoints", "retry_mode", "max_attempts"}
)


def container_environ(address: Address, region_name: str, settings: BridgeSettings) -> dict[str, str]:
    """Return this process's environment, without its credentials and with the address of the account's."""
    environ = _clean_environ(region_name, settings)
    environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = address.url
    environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = address.token
    return environ


def static_environ(credentials: Credentials, region_name: str, settings: BridgeSettings) -> dict[str, str]:
    """Return this process's environment with the account's keys in place of its own credentials.

    The subprocess cannot renew the keys, so it must end before they do.
    """
    environ = _clean_environ(region_name, settings)
    environ["AWS_ACCESS_KEY_ID"] = credentials.access_key_id
    environ["AWS_SECRET_ACCESS_KEY"] = credentials.secret_access_key
    if credentials.session_token is not None:
        environ["AWS_SESSION_TOKEN"] = credentials.session_token
    if credentials.expiration is not None:
        environ["AWS_CREDENTIAL_EXPIRATION"] = f"{credentials.expiration:%Y-%m-%dT%H:%M:%SZ}"
    return environ


def _clean_environ(region_name: str, settings: BridgeSettings) -> dict[str, str]:
    """Return this process's environment without its credentials, with the region and the settings of the source.

    What has no variable is not carried over: timeouts, `verify=False`, and the sections `s3` and `proxies_config`.
    """
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in _CREDENTIAL_VARIABLES and not name.startswith(_BEARER_TOKEN_PREFIX)
    }
    environ |= dict.fromkeys(_FILE_VARIABLES, os.devnull)
    environ |= _settings_variables(settings)
    environ["AWS_REGION"] = environ["AWS_DEFAULT_REGION"] = region_name
    environ["AWS_STS_REGIONAL_ENDPOINTS"] = "regional"
    environ |= _retry_variables(settings)
    environ |= _proxy_variables(settings.options.get("proxies") or {})
    _set_verify(environ, settings.verify)
    _set_endpoints(environ, settings)
    return environ


def _settings_variables(settings: BridgeSettings) -> dict[str, str]:
    """Return the variables for settings of the pool's Config, the source's session and its profile."""
    session, variables = settings.session, {}
    for name, (_, environ_names, default, _) in session.session_var_map.items():
        if environ_names is None or name in _NOT_CARRIED_OVER:
            continue
        value = settings.options.get(name)
        if value is None:
            value = session.get_config_variable(name)
        if value is not None and value != default:
            environ_name = environ_names if isinstance(environ_names, str) else environ_names[0]
            variables[environ_name] = _text(value)
    return variables


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _retry_variables(settings: BridgeSettings) -> dict[str, str]:
    retries = settings.options.get("retries") or {}
    mode = retries.get("mode") or settings.session.get_config_variable("retry_mode")
    attempts = retries.get("total_max_attempts")
    if attempts is None and retries.get("max_attempts") is not None:
        attempts = retries["max_attempts"] + 1  # botocore counts retries here, and all attempts in the variable
    if attempts is None:
        attempts = settings.session.get_config_variable("max_attempts")
    return {"AWS_RETRY_MODE": mode} | ({} if attempts is None else {"AWS_MAX_ATTEMPTS": str(attempts)})


def _proxy_variables(proxies: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the proxies of the pool's Config, which apply to every host but this machine."""
    if not proxies:
        return {}
    by_name = {f"{scheme}_proxy": url for scheme, url in proxies.items() if url} | {"no_proxy": "127.0.0.1,localhost"}
    return by_name | {name.upper(): value for name, value in by_name.items()}


def _set_verify(environ: dict[str, str], verify: bool | str | None) -> None:
    if isinstance(verify, str):
        environ["AWS_CA_BUNDLE"] = verify
    elif verify:  # True: the bundle of botocore, whatever is configured
        for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
            environ.pop(name, None)


def _set_endpoints(environ: dict[str, str], settings: BridgeSettings) -> None:
    """Set the endpoints that the pool's own clients use.

    Order of botocore: the variable of a service, the variable for all services, the profile's `services`, the profile's
    `endpoint_url`; the pool's `endpoint_url` goes before all of them.
    """
    if settings.endpoint_url is not None:
        for name in [name for name in environ if name.startswith("AWS_ENDPOINT_URL")]:
            del environ[name]
        environ.pop("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", None)
        environ["AWS_ENDPOINT_URL"] = settings.endpoint_url
    elif not environ.get("AWS_ENDPOINT_URL"):
        profile = settings.session.get_scoped_config()
        services = settings.session.full_config.get("services", {}).get(profile.get("services"), {})
        for service, options in services.items():
            name = f"AWS_ENDPOINT_URL_{service.upper()}"
            if isinstance(options, dict) and "endpoint_url" in options and not environ.get(name):
                environ[name] = options["endpoint_url"]
        if "endpoint_url" in profile:
            environ["AWS_ENDPOINT_URL"] = profile["endpoint_url"]
