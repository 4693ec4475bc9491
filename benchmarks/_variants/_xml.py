"""Answers of STS and EC2 as ElementTree, for the variants that do not parse with a model."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from benchmarks._variants import Answer

_STS = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_EC2 = "{http://ec2.amazonaws.com/doc/2016-11-15/}"


def assume_role_fields(arn: str) -> dict[str, str]:
    """Return the fields of an AssumeRole request."""
    return {"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": arn, "RoleSessionName": "benchmark"}


def describe_instances_fields() -> dict[str, str]:
    """Return the fields of a DescribeInstances request."""
    return {"Action": "DescribeInstances", "Version": "2016-11-15"}


def parse_keys(text: bytes) -> tuple[str, str, str]:
    """Return the key id, the secret and the token of an answer to AssumeRole."""
    found = ET.fromstring(text).find(f"{_STS}AssumeRoleResult/{_STS}Credentials")
    assert found is not None
    keys = {child.tag[len(_STS) :]: child.text or "" for child in found}
    return keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]


def parse_instances(text: bytes) -> Answer:
    """Return the parts of an answer to DescribeInstances, after making dictionaries and lists of all of it."""
    reservations = _tree(ET.fromstring(text), len(_EC2))["reservationSet"]
    return Answer(
        frozenset(reservation["ownerId"] for reservation in reservations),
        sum(len(reservation["instancesSet"]) for reservation in reservations),
    )


def _tree(element: ET.Element, prefix: int) -> Any:
    """Return an element as text, a list of items or a dictionary, with text as the only type of values."""
    if not len(element):
        return element.text or ""
    if element[0].tag[prefix:] == "item":
        return [_tree(child, prefix) for child in element]
    return {child.tag[prefix:]: _tree(child, prefix) for child in element}
