"""Pickling for other machines: refuses, by name, what holds credentials or belongs to one process."""

from __future__ import annotations

import inspect
import io
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import cloudpickle

from asyncauth._errors import ConfigurationError
from asyncauth._models import Keys
from asyncauth._runtime.printable import describe_error

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Classes whose instances hold credentials, by module and name, so that none must be imported. Instances of their
#: subclasses count, too: aiobotocore's and aioboto3's are subclasses of botocore's and boto3's.
_SECRET_CLASSES: Final = frozenset(
    {
        ("asyncauth._models.credentials", "Credentials"),
        ("asyncauth.caches.protocol", "CachedToken"),
        ("aioboto3.session", "Session"),
        ("boto3.resources.base", "ServiceResource"),
        ("boto3.session", "Session"),
        ("botocore.client", "BaseClient"),
        ("botocore.credentials", "CredentialResolver"),
        ("botocore.credentials", "Credentials"),
        ("botocore.credentials", "ReadOnlyCredentials"),
        ("botocore.session", "Session"),
    }
)


class _HoldsSecretError(Exception):
    """An object with credentials was reached."""


class _CheckedPickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if is_secret(obj):
            raise _HoldsSecretError(describe_secret(obj))
        return super().reducer_override(obj)


def is_secret(value: object) -> bool:
    """Whether a value holds credentials by its class."""
    if isinstance(value, Keys):
        return True
    return any((each.__module__, each.__qualname__) in _SECRET_CLASSES for each in type(value).__mro__)


def describe_secret(value: object) -> str:
    """Return the kind of a value that holds credentials, without them."""
    return "Keys" if isinstance(value, Keys) else f"an instance of {type(value).__module__}.{type(value).__qualname__}"


def dump(value: Any, name: str) -> bytes:
    """Return a value as bytes for another process; functions of scripts and notebooks are included by value.

    Args:
        value: the value.
        name: its name in messages: "the job audit".

    Raises:
        ConfigurationError: it, or something that it references, holds credentials or cannot be pickled.
    """
    try:
        return _dump(value)
    except Exception as error:  # noqa: BLE001 - whatever a class raises, it cannot be pickled
        part, cause = _find_part(value) or (None, error)
        where = name if part is None else f"{name} uses {part}, which"
        if isinstance(cause, _HoldsSecretError):
            what = f"is {cause}" if part is not None or is_secret(value) else f"references {cause}"
            raise ConfigurationError(
                f"{where} {what}: credentials do not travel to the workers of an engine; let each worker find its own "
                "(a profile, the environment, the role of its machine), or see ship_tokens="
            ) from None
        raise ConfigurationError(
            f"{where} cannot be pickled for the workers of an engine: {describe_error(cause)}"
        ) from None


def _dump(value: Any) -> bytes:
    with io.BytesIO() as file:
        _CheckedPickler(file).dump(value)
        return file.getvalue()


def _find_part(value: Any) -> tuple[str, Exception] | None:
    """Return the name of the first part of a job that cannot be pickled, and why not."""
    for name, part in _parts(value):
        try:
            _dump(part)
        except Exception as error:  # noqa: BLE001 - as above
            return name, error
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named parts of a job: arguments of a partial, variables, defaults, attributes."""
    if isinstance(value, partial):
        yield from ((f"its argument {position}", part) for position, part in enumerate(value.args, 1))
        yield from ((f"its argument {name}=", part) for name, part in value.keywords.items())
        yield from _parts(value.func)
    elif inspect.isfunction(value):
        variables = inspect.getclosurevars(value)
        yield from ((f"the variable {name!r}", part) for name, part in variables.nonlocals.items())
        yield from ((f"the global {name!r}", part) for name, part in variables.globals.items())
        for parameter in inspect.signature(value).parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                yield f"the default of {parameter.name!r}", parameter.default
    elif inspect.ismethod(value):
        yield from _parts(value.__self__)
    else:
        yield from ((f"its attribute {name!r}", part) for name, part in getattr(value, "__dict__", {}).items())
