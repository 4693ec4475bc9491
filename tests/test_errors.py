"""The error tree is the contract's, and errors carry their fields wherever they go."""

from __future__ import annotations

import copy
import pickle

import pytest

from asyncauth import _errors


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """The docstring at the top of the module, read as a tree, is what the classes are."""
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
        "EndpointDown": ("AsyncAuthError",),
        "RateLimited": ("AsyncAuthError",),
        "PoolClosed": ("AsyncAuthError",),
    }

    for name, expected in bases.items():
        assert tuple(base.__name__ for base in getattr(_errors, name).__bases__) == expected
        assert name in (_errors.__doc__ or "")


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_fields_survive_copies_and_pickles(through: object) -> None:
    """An error that crosses a process keeps account, role, region, code and attempts."""
    error = _errors.AssumeRoleDenied(
        "no", account="123456789012", role_arn="arn:x", region_name="us-east-1", code="AccessDenied", attempts=1
    )
    error.add_note("seen")

    other = through(error)  # type: ignore[operator]

    assert type(other) is _errors.AssumeRoleDenied
    assert (str(other), other.account, other.role_arn, other.region_name, other.code, other.attempts) == (
        "no",
        "123456789012",
        "arn:x",
        "us-east-1",
        "AccessDenied",
        1,
    )
    assert other.__notes__ == ["seen"]
