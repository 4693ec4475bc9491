"""Arguments of a client: each of a wrong type is refused by its name, where botocore raises an error of Python's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeGuard

from botocore.config import Config

from asyncauth._aws.plain_http import check_endpoint_url
from asyncauth._errors import ConfigurationError
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME_CHARACTERS: Final = 100
_PATH_CHARACTERS: Final = 4096


def check_client_arguments(service_name: object, options: Mapping[str, object]) -> None:
    """Refuse arguments that no client can be built with; None is valid for each option.

    Args:
        service_name: boto3's name of the service.
        options: the other arguments by name; those of unknown names are not checked.

    Raises:
        ConfigurationError: one has a wrong type; the message names it.
    """
    if not _is_name(service_name) or not service_name:
        raise ConfigurationError(
            f"the service name of a client is {_shown(service_name)}; it must be boto3's name of a service, such as "
            "'ec2'"
        )
    for name, (is_valid, requirement) in _OPTIONS.items():
        value = options.get(name)
        if value is not None and not is_valid(value):
            raise ConfigurationError(
                f"{name}= of client({printable(service_name)!r}) is {_shown(value)}; it takes {requirement}"
            )
    if options.get("endpoint_url") is not None:
        check_endpoint_url(f"endpoint_url= of client({printable(service_name)!r})", options["endpoint_url"])


def _shown(value: object) -> str:
    return repr(printable(value)) if isinstance(value, str) else f"a {type(value).__name__}"


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= _NAME_CHARACTERS and value.isprintable()


def _is_bundle(value: object) -> bool:
    is_path = isinstance(value, str) and 0 < len(value) <= _PATH_CHARACTERS and "\0" not in value
    return isinstance(value, bool) or is_path


def _is_version(value: object) -> bool:
    return _is_name(value) and value != "" and "/" not in value


_OPTIONS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "region_name": (_is_name, "the name of a region, such as 'eu-west-1'"),
    "config": (lambda value: isinstance(value, Config), "a botocore Config or an aiobotocore AioConfig"),
    "verify": (_is_bundle, "True, False, or the path of a CA bundle as a text"),
    "use_ssl": (_is_switch, "True or False"),
    "isolated": (_is_switch, "True or False"),
    "api_version": (_is_version, "the date of a version of the service's API as a text, such as '2016-11-15'"),
}
