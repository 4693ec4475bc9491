"""Errors on their way from a worker: they arrive as themselves, and one that cannot never fails the others."""

from __future__ import annotations

import pickle
import sys
import threading
from types import ModuleType

import cloudpickle
import pytest
from botocore.exceptions import ClientError

from asyncauth import AsyncAuthError
from asyncauth.engines._values import sendable_error

pytestmark = pytest.mark.botocore


class TwoArgumentsError(Exception):
    """Its `args` are not the arguments of its `__init__`, so pickle makes a file that it cannot load."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} is {number}")
        self.number = number


class HoldsLockError(Exception):
    """It cannot be pickled at all."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.code = 7

    def __str__(self) -> str:
        return "the lock is held"


def arrived(error: Exception) -> Exception:
    """Return an error as the client reads it, from a list of messages."""
    arrived, other = pickle.loads(pickle.dumps([sendable_error(error, "Code"), "another message"]))
    assert other == "another message"
    assert isinstance(arrived, Exception)
    return arrived


def test_errors_arrive_as_themselves() -> None:
    """An error of botocore, and one whose `__init__` takes other arguments than its `args`, keep class and fields."""
    refused = arrived(ClientError({"Error": {"Code": "Throttling", "Message": "slow"}}, "DescribeInstances"))
    two = arrived(TwoArgumentsError("it", 2))

    assert isinstance(refused, ClientError)
    assert refused.response["Error"]["Code"] == "Throttling"
    assert type(two) is TwoArgumentsError
    assert (str(two), two.number) == ("it is 2", 2)


def module_of_a_script() -> ModuleType:
    module = ModuleType("jobs_of_a_script")
    exec("class JobError(Exception):\n    pass\n", module.__dict__)
    return module


def test_a_class_of_a_script_arrives_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has the class by value, from a file that it cannot import, sends it back by value."""
    module = module_of_a_script()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)
    try:
        shipped = cloudpickle.dumps(module.JobError)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    monkeypatch.delitem(sys.modules, module.__name__)

    error = arrived(pickle.loads(shipped)("it failed"))

    assert type(error) is module.JobError  # cloudpickle knows the class that it has sent
    assert str(error) == "it failed"


def test_a_class_that_is_missing_at_the_client_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a package that the workers have alone arrives as its text, and the messages beside it arrive."""
    module = module_of_a_script()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    sent = pickle.dumps([sendable_error(module.JobError("it failed"), "Code"), "another message"])
    monkeypatch.delitem(sys.modules, module.__name__)

    error, other = pickle.loads(sent)

    assert other == "another message"
    assert type(error) is AsyncAuthError
    assert str(error) == "JobError: it failed (its class cannot be imported in this process)"
    assert error.code == "Code"


def test_what_cannot_be_pickled_arrives_as_text() -> None:
    """An error that holds a lock becomes its class and first line."""
    error = arrived(HoldsLockError())

    assert type(error) is AsyncAuthError
    assert str(error) == "HoldsLockError: the lock is held (it could not be pickled)"
