"""Client options, merged and made comparable, so that clients with equal options share a template."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.config import AioConfig

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from aiobotocore.session import AioSession
    from botocore.config import Config

#: aiobotocore's defaults: aiobotocore 2 does not record which of its own two options a user gave.
_DEFAULTS: Final = AioConfig()
_AIO_OPTIONS: Final = ("connector_args", "http_session_cls")


class _ByIdentity:
    """Compares an unhashable value by identity, and keeps it alive, so that its id cannot be reused."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def freeze(value: Any) -> Hashable:
    """Return a hashable value that is equal for equal values."""
    if isinstance(value, dict):
        return frozenset((key, freeze(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    if isinstance(value, (set, frozenset)):
        return frozenset(map(freeze, value))
    try:
        hash(value)
    except TypeError:
        return _ByIdentity(value)
    return value  # type: ignore[no-any-return]  # known to be hashable


def options_of(config: Config | None) -> dict[str, Any]:
    """Return the options that a user gave to a config. Attributes set later are ignored, as in botocore's merge."""
    if config is None:
        return {}
    # Copies of dictionaries, because botocore completes those of retries in place.
    options = {
        name: dict(value) if type(value) is dict else value for name, value in config._user_provided_options.items()
    }
    for name in _AIO_OPTIONS:
        value = getattr(config, name, None)
        if name not in options and value is not None and value != getattr(_DEFAULTS, name):
            options[name] = value
    # Models are loaded in a worker thread anyway.
    options.pop("warm_up_loader_caches", None)
    return options


def config_key(config: Config | None) -> Hashable:
    """Return a key that is equal for configs with equal options; None for no config."""
    return None if config is None else freeze(options_of(config))


def settings_key(options: Mapping[str, Any]) -> Hashable:
    """Return a key that is equal for equal client options besides service and region."""
    return frozenset(
        (name, config_key(value) if name == "config" else freeze(value)) for name, value in options.items()
    )


def client_config(session: AioSession, max_connections: int, *configs: Config | None) -> AioConfig:
    """Merge configs for a template; later ones override earlier ones, as in botocore.

    Defaults: retries in standard mode, and `max_connections` per endpoint host.

    Args:
        session: provides the retry mode that a file or the environment configures.
        max_connections: connections per endpoint host.
        configs: of the session, the pool and the client, in this order; None for no config.
    """
    return AioConfig(**{"max_pool_connections": max_connections} | merged_options(session, *configs))


def merged_options(session: AioSession, *configs: Config | None) -> dict[str, Any]:
    """Merge the options of configs, with the package's defaults for retries and the user agent."""
    options: dict[str, Any] = {}
    for config in configs:
        options.update(options_of(config))
    if not _has_retry_mode(session):
        # Explicit, because botocore's own default mode changes with AWS_NEW_RETRIES_2026.
        options["retries"] = {"mode": "standard"} | (options.get("retries") or {})
    extra = options.get("user_agent_extra")
    options["user_agent_extra"] = f"{extra} {USER_AGENT}" if extra else USER_AGENT
    return options


def _has_retry_mode(session: AioSession) -> bool:
    return bool(os.environ.get("AWS_RETRY_MODE") or session.get_scoped_config().get("retry_mode"))


def _user_agent() -> str:
    try:
        return f"asyncauth/{version('asyncauth')}"
    except PackageNotFoundError:  # run from a source tree
        return "asyncauth/0"


USER_AGENT: Final = _user_agent()
