"""Error tree: it is the documented one, and errors keep their fields in copies and pickles."""

from __future__ import annotations

import copy
import pickle

import pytest

from asyncauth import _errors


def test_the_classes_have_the_documented_bases() -> None:
    """Each error class has the bases that the tree in the module's docstring shows."""
    bases = {
        "ConfigurationError": ("AsyncAuthError", "ValueError"),
        "PartitionMismatch": ("ConfigurationError",),
        "SourceError": ("AsyncAuthError",),
        "NoSourceCredentials": ("SourceError",),
        "SourceExpired": ("SourceError",),
        "LongTermCredentialsError": ("SourceError",),
        "AssumeRoleError": ("AsyncAuthError",),
        "AssumeRoleDenied": ("AssumeRoleError",),
        "AssumeRoleThrottled": ("AssumeRoleError",),
        "RegionDisabled": ("AssumeRoleError",),
        "CredentialsRejected": ("AssumeRoleError",),
        "TargetTimeout": ("AsyncAuthError", "TimeoutError"),
        "JobExited": ("AsyncAuthError",),
        "EndpointDown": ("AsyncAuthError",),
        "RateLimited": ("AsyncAuthError",),
        "IncompleteMetrics": ("AsyncAuthError",),
        "PoolClosed": ("AsyncAuthError",),
    }

    for name, expected in bases.items():
        assert tuple(base.__name__ for base in getattr(_errors, name).__bases__) == expected
        assert name in (_errors.__doc__ or "")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies_and_pickles_keep_the_fields(duplicate: object) -> None:
    """A copied or pickled error keeps account, role, region, code, attempts and notes."""
    error = _errors.AssumeRoleDenied(
        "no", account="123456789012", role_arn="arn:x", region_name="us-east-1", code="AccessDenied", attempts=1
    )
    error.add_note("note")

    other = duplicate(error)  # type: ignore[operator]

    assert type(other) is _errors.AssumeRoleDenied
    assert (str(other), other.account, other.role_arn, other.region_name, other.code, other.attempts) == (
        "no",
        "123456789012",
        "arn:x",
        "us-east-1",
        "AccessDenied",
        1,
    )
    assert other.__notes__ == ["note"]


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_exit_code_survives_copies_and_pickles(through: object) -> None:
    """JobExited keeps its exit code and its other fields."""
    other = through(_errors.JobExited("exit", exit_code=3, account="123456789012"))  # type: ignore[operator]

    assert (str(other), other.exit_code, other.account) == ("exit", 3, "123456789012")
