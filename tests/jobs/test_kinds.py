"""Kinds: what they name exists in the models of the installed botocore."""

from __future__ import annotations

from typing import Any

import botocore.session
import jmespath
import pytest

from asyncauth import ConfigurationError
from asyncauth.jobs import KINDS, Kind, Then

pytestmark = pytest.mark.botocore


def names_in(node: Any) -> set[str]:
    own = {node["value"]} if node["type"] == "field" else set()
    return own.union(*(names_in(child) for child in node["children"] if isinstance(child, dict)))


def members_below(shape: Any, depth: int = 6) -> set[str]:
    if depth and hasattr(shape, "members"):
        return set(shape.members).union(*(members_below(each, depth - 1) for each in shape.members.values()))
    return members_below(shape.member, depth) if hasattr(shape, "member") else set()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_operation_paths_and_page_size_exist(kind: Kind) -> None:
    """An upgrade of botocore that moves a member fails here, not at a user."""
    model: Any = botocore.session.get_session().get_service_model(kind.service).operation_model(kind.operation)

    answered = members_below(model.output_shape)
    operations = {then.operation: then for then in kind.then}
    if kind.name == "ec2:instance":
        operations["DescribeInstanceImageMetadata"] = Then("", "InstanceIds", "", into="ImageMetadata")
    for name, then in operations.items():
        described = model.service_model.operation_model(name)
        assert {then.parameter, *then.parameters} <= set(described.input_shape.members)
        answered |= members_below(described.output_shape) | {then.into}
    paths = [kind.result, kind.id, *kind.columns.values(), *filter(None, (kind.name_from, kind.tags))]
    paths += [] if "{" in kind.arn else [kind.arn]
    for path in paths:
        assert names_in(jmespath.compile(path).parsed) - {"Key", "Value"} <= answered, path
    if kind.page_size is not None:
        shape = model.input_shape.members[kind.page_limit]
        assert kind.page_size <= shape.metadata.get("max", 1000)


def test_a_name_that_cannot_be_a_view_is_refused() -> None:
    """Names of views and columns go into SQL, so only plain ones are accepted."""
    with pytest.raises(ConfigurationError, match="must be named service:resource"):
        Kind("ec2; drop", "ec2", "X", "a", "b", "c")
    with pytest.raises(ConfigurationError, match="cannot be the name of a column"):
        Kind("ec2:x", "ec2", "X", "a", "b", "c", columns={"a'b": "x"})
