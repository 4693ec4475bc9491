"""Keys and credentials: their attributes are readable by name, and no generic reader returns the secrets."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
from typing import TYPE_CHECKING, Any

import pytest

from asyncauth import Keys
from asyncauth._models import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET, TOKEN = "wJalrXUtnFEMI-marked-secret", "FQoGZXIv-marked-token"

HOLDERS = [Keys("AKIAIOSFODNN7EXAMPLE", SECRET, TOKEN), Credentials("AKIAIOSFODNN7EXAMPLE", SECRET, TOKEN)]

READERS: dict[str, Callable[[Any], object]] = {
    "asdict": dataclasses.asdict,
    "astuple": dataclasses.astuple,
    "fields": dataclasses.fields,
    "replace": lambda value: dataclasses.replace(value, session_token=None),
    "__replace__": lambda value: value.__replace__(session_token=None),
    "vars": vars,
    "__getstate__": lambda value: value.__getstate__(),
    "__reduce__": lambda value: value.__reduce__(),
    "pickle": pickle.dumps,
    "json": json.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "str": str,
    "format": lambda value: f"{value!s} {value!r} {value}",
    "pprint": pprint.pformat,
    "asdict of a holder": lambda value: dataclasses.asdict(dataclasses.make_dataclass("Holder", ["held"])(value)),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("value", HOLDERS, ids=lambda value: type(value).__name__)
def test_no_generic_reader_returns_the_secrets(value: Keys | Credentials, reader: Callable[[Any], object]) -> None:
    """A reader refuses the object, or returns what prints without the secret and the token."""
    try:
        read = str(reader(value))
    except (TypeError, AttributeError) as error:
        read = str(error)

    assert SECRET not in read
    assert TOKEN not in read


@pytest.mark.parametrize("value", HOLDERS, ids=lambda value: type(value).__name__)
def test_the_attributes_stay_readable(value: Keys | Credentials) -> None:
    """The secret and the token are there for code that names them, and equality compares them."""
    assert (value.secret_access_key, value.session_token) == (SECRET, TOKEN)
    assert value == type(value)("AKIAIOSFODNN7EXAMPLE", SECRET, TOKEN)
    assert value != type(value)("AKIAIOSFODNN7EXAMPLE", SECRET)
    with pytest.raises(AttributeError):
        value.session_token = None  # type: ignore[misc]  # frozen


@pytest.mark.parametrize("value", HOLDERS, ids=lambda value: type(value).__name__)
def test_a_copy_is_the_object_itself(value: Keys | Credentials) -> None:
    """Frozen objects need no copy, so an account that holds keys can be copied."""
    assert copy.copy(value) is copy.deepcopy(value) is value
