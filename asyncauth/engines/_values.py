"""Values and errors of jobs, on their way from a worker to the client."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle

from asyncauth._errors import AsyncAuthError
from asyncauth._runtime.printable import describe_error


def dump_value(value: Any) -> bytes:
    """Return a job's value as bytes.

    Raises:
        AsyncAuthError: the value cannot be pickled.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - classes of a script or notebook are pickled by value, more slowly
        try:
            dumped: bytes = cloudpickle.dumps(value)
        except Exception as error:  # noqa: BLE001 - the class of the value can raise anything
            raise AsyncAuthError(
                f"the job has run, but its value, a {type(value).__qualname__}, cannot be pickled: "
                f"{describe_error(error)}"
            ) from None
        return dumped


def load_value(dumped: bytes) -> tuple[Any, Exception | None]:
    """Return a job's value and None, or None and the error if it cannot be unpickled here."""
    try:
        return pickle.loads(dumped), None  # noqa: S301 - of a worker, which runs this program's code anyway
    except Exception as error:  # noqa: BLE001 - the class of the value can raise anything
        return None, AsyncAuthError(
            f"the job has run, but its value cannot be unpickled in this process: {describe_error(error)}"
        )


def sendable_error(error: BaseException | None, code: str | None) -> Exception | None:
    """Return an error as it can be sent: unpickled it is itself, or its class and first line if that is impossible."""
    if error is None:
        return None
    text = describe_error(error)
    for dump in (pickle.dumps, cloudpickle.dumps, _dump_parts):  # each is slower than the one before
        try:
            dumped: bytes = dump(error)
            _load(dumped)  # many classes can be pickled, and then not be loaded
        except Exception:  # noqa: BLE001, S112 - whatever the class raises, it cannot be pickled
            continue
        return _SentError(dumped, text, code)
    return AsyncAuthError(f"{text} (it could not be pickled)", code=code)


class _SentError(Exception):
    """An error on its way: unpickled it is the original, and never fails the messages that it travels with."""

    def __init__(self, dumped: bytes, text: str, code: str | None) -> None:
        super().__init__(text)
        self._arguments = (dumped, text, code)

    def __reduce__(self) -> tuple[Any, ...]:
        return (load_error, self._arguments)


def load_error(dumped: bytes, text: str, code: str | None) -> Exception:
    """Return an error of a job; one whose class is missing in this process becomes its class and first line."""
    try:
        return _load(dumped)
    except Exception:  # noqa: BLE001 - the class of the error can raise anything
        return AsyncAuthError(f"{text} (its class cannot be imported in this process)", code=code)


def _dump_parts(error: BaseException) -> bytes:
    """Return what makes an error without a call of its `__init__`, which often takes other arguments than `args`."""
    dumped: bytes = cloudpickle.dumps((type(error), error.args, error.__dict__))
    return dumped


def _load(dumped: bytes) -> Exception:
    error = pickle.loads(dumped)  # noqa: S301 - of a worker, which runs this program's code anyway
    if isinstance(error, tuple):
        kind, arguments, state = error
        error = kind.__new__(kind, *arguments)
        error.__dict__.update(state)
    if not isinstance(error, Exception):
        raise TypeError(f"{type(error).__qualname__} is no exception")
    return error
