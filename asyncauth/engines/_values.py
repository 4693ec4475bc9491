"""Values and errors of jobs, on their way from a worker to the client."""

from __future__ import annotations

import pickle
from typing import Any

import cloudpickle

from asyncauth._errors import AsyncAuthError
from asyncauth._runtime.exceptions import can_be_pickled
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
    """Return an error as it can be sent: itself, or its class and first line if it cannot be pickled."""
    if error is None or (isinstance(error, Exception) and can_be_pickled(error)):
        return error
    return AsyncAuthError(f"{describe_error(error)} (it could not be pickled)", code=code)
