"""Documented limits of IAM and STS, as checks whose messages have the parameter, the value and the limit.

Source of the figures: botocore's models of `sts` and `iam`, and the IAM user guide, "IAM and STS quotas".
Patterns are ASCII and match the whole string: `\\d` would accept full-width digits, and `$` a trailing newline.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncauth._aws.partitions import check_partition
from asyncauth._errors import ConfigurationError

_ROLE_ARN: Final = re.compile(r"arn:([a-z0-9-]+):iam::([^:]*):role/(.+)", re.DOTALL)
_ACCOUNT_ID: Final = re.compile(r"[0-9]{12}")


@dataclass(frozen=True, slots=True)
class TextLimit:
    """Limits of a string: its length, and its characters."""

    min_length: int
    max_length: int
    pattern: re.Pattern[str]
    description: str

    def check(self, parameter: str, value: object) -> str:
        """Return `value` if it is within the limits, else raise ConfigurationError."""
        if not isinstance(value, str):
            raise ConfigurationError(f"{parameter} must be a string, got {value!r} ({type(value).__name__})")
        if not self.min_length <= len(value) <= self.max_length:
            raise ConfigurationError(
                f"{parameter} must have {self.min_length} to {self.max_length} characters, "
                f"got {len(value)}: {_short(value)}"
            )
        if not self.pattern.fullmatch(value):
            raise ConfigurationError(f"{parameter} may hold {self.description} only, got {_short(value)}")
        return value


_NAME: Final = re.compile(r"[A-Za-z0-9_+=,.@-]+")
_NAME_DESCRIPTION: Final = "ASCII letters, digits and any of _+=,.@-"

ROLE_NAME: Final = TextLimit(1, 64, _NAME, _NAME_DESCRIPTION)
SESSION_NAME: Final = TextLimit(2, 64, _NAME, _NAME_DESCRIPTION)
SOURCE_IDENTITY: Final = SESSION_NAME
EXTERNAL_ID: Final = TextLimit(
    2, 1224, re.compile(r"[A-Za-z0-9_+=,.@:/-]+"), "ASCII letters, digits and any of _+=,.@:/-"
)
MFA_SERIAL: Final = TextLimit(
    9, 256, re.compile(r"[A-Za-z0-9_+=/:,.@-]+"), "ASCII letters, digits and any of _+=/:,.@-"
)
PATH: Final = TextLimit(
    1, 512, re.compile(r"/|/[!-~]+/"), "ASCII from ! to ~, beginning and ending with a slash, such as / or /team/"
)
POLICY: Final = TextLimit(
    1, 2048, re.compile(r"[\t\n\r\u0020-\u00ff]+"), "tab, line ends and characters from space to U+00FF"
)
POLICY_ARN: Final = TextLimit(
    20, 2048, re.compile(r"arn:[a-z0-9-]+:iam::([0-9]{12}|aws):policy/[!-~]+"), "an IAM policy's ARN"
)
CONTEXT_PROVIDER: Final = TextLimit(20, 2048, re.compile(r"arn:[!-~]+"), "an ARN")
CONTEXT_ASSERTION: Final = TextLimit(4, 2048, re.compile(r"[\s\S]+"), "text")


def check_account_id(value: object) -> str:
    """Return `value` if it is a 12-digit account id.

    Raises:
        ConfigurationError: it is not one; for an integer the message has the string with leading zeros.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        hint = _readings(value)
        raise ConfigurationError(
            f"an account id must be a string of 12 digits, got the integer {value} (leading zeros are lost){hint}"
        )
    if not isinstance(value, str) or not _ACCOUNT_ID.fullmatch(value):
        raise ConfigurationError(
            f"an account id must be exactly 12 ASCII digits, got {_short(value)}{_suggestion(value)}"
        )
    return value


def _readings(value: int) -> str:
    """Return the account ids that an integer may be: YAML 1.1 reads digits after a leading zero as octal."""
    if not 0 <= value < 10**12:
        return ""
    octal = f"{value:o}"
    if len(octal) > 11 or value == 0:  # with a leading zero an id has at most 11 digits behind it
        return f"; as a string that is '{value:012d}'"
    return (
        f"; quote it where it is written: as a string that is '{value:012d}', or '{octal:0>12}' if it began with a "
        "zero in a YAML file, which makes the number octal"
    )


def _suggestion(value: object) -> str:
    """Return how to get the account id from a record of Organizations, or from a string with extra characters."""
    if isinstance(value, Mapping) and "Id" in value:
        return "; for a record of Organizations write Account(record['Id'], name=record['Name'])"
    if isinstance(value, str):
        digits = re.sub(r"[\s-]", "", value)
        if _ACCOUNT_ID.fullmatch(digits):
            return f"; did you mean {digits!r}?"
    return ""


def check_integer(parameter: str, value: object, lowest: int, highest: int, unit: str = "") -> int:
    """Return `value` if it is an integer from `lowest` to `highest`, else raise ConfigurationError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{parameter} must be an integer, got {_short(value)}")
    if not lowest <= value <= highest:
        raise ConfigurationError(f"{parameter} must be from {lowest:,} to {highest:,}{unit}, got {value:,}")
    return value


def check_count(parameter: str, count: int, highest: int) -> None:
    """Raise ConfigurationError if a parameter has more than `highest` entries."""
    if count > highest:
        raise ConfigurationError(f"{parameter} may have at most {highest} entries, got {count}")


def check_tag_text(parameter: str, value: object, min_length: int, max_length: int) -> str:
    """Return a tag's key or value if it holds only letters, digits and spaces of any script, and _.:/=+-@."""
    if not isinstance(value, str) or not min_length <= len(value) <= max_length:
        raise ConfigurationError(
            f"{parameter} must be a string of {min_length} to {max_length} characters, got {_short(value)}"
        )
    for character in value:
        if character not in "_.:/=+-@" and unicodedata.category(character)[0] not in "LZN":
            raise ConfigurationError(
                f"{parameter} may hold letters, digits, spaces and any of _.:/=+-@ only, got {_short(value)}"
            )
    return value


@dataclass(frozen=True, slots=True)
class RoleArn:
    """Parts of a role's ARN, each checked."""

    partition: str
    account_id: str
    path: str
    name: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:role{self.path}{self.name}"


def parse_role_arn(arn: str) -> RoleArn:
    """Return the parts of a role's ARN.

    Raises:
        ConfigurationError: it is not a role's ARN; the message has a hint if it is the ARN of a role's session.
    """
    match = _ROLE_ARN.fullmatch(arn)
    if match is None:
        hint = ""
        if ":assumed-role/" in arn:
            hint = "; this is the ARN of a role's session, the role's ARN is arn:...:iam::ID:role/NAME"
        raise ConfigurationError(f"not a role ARN (arn:PARTITION:iam::ID:role/NAME): {_short(arn)}{hint}")
    partition, account_id, rest = match.groups()
    path, name = split_role(rest)
    return RoleArn(check_partition(partition), check_account_id(account_id), path, name)


def split_role(text: str) -> tuple[str, str]:
    """Split the part of an ARN after `role/`, `team/deploy`, into path and name: `("/team/", "deploy")`."""
    before, _, name = text.removeprefix("/").rpartition("/")
    path = f"/{before}/" if before else "/"
    return PATH.check("a role's path", path), ROLE_NAME.check("a role's name", name)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
