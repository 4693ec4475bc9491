"""Values of boto's settings: which ones botocore accepts, and the error of one that it does not.

botocore checks most values when it builds a client, with errors of a dozen classes that do not name the variable or
the profile. A mode of retries and a switch that it does not know it ignores: the client then does not retry, or uses
the endpoints that the switch was to replace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.utils import ensure_boolean

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.session import Session

#: Settings with a fixed list of values, in small letters. A test compares the lists with botocore's.
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "account_id_endpoint_mode": ("preferred", "disabled", "required"),
    "defaults_mode": ("legacy", "auto", "standard", "in-region", "cross-region", "mobile"),
    "request_checksum_calculation": ("when_supported", "when_required"),
    "response_checksum_validation": ("when_supported", "when_required"),
    "retry_mode": ("legacy", "standard", "adaptive"),
    "sts_regional_endpoints": ("legacy", "regional"),
}

#: Choices for which botocore does not accept capitals. The pool sets both itself where they are empty.
EXACT: Final = frozenset({"retry_mode", "sts_regional_endpoints"})

#: The same for the settings in the section `s3` of a profile.
S3_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "addressing_style": ("auto", "virtual", "path"),
    "us_east_1_regional_endpoint": ("legacy", "regional"),
}

#: Settings that hold others, one a line below them.
SECTIONS: Final = ("api_versions", "s3")

#: A number that botocore converts when it builds a client; the table of its settings has the other ones.
_LATE_NUMBERS: Final = ("request_min_compression_size_bytes",)

#: What a switch can be: of other texts, "1" and "yes" among them, botocore takes all for false.
_SWITCH: Final = frozenset({"true", "false", "no", "off", "0", ""})


def check_values(session: Session, label: str) -> None:
    """Refuse a value that botocore refuses later, or ignores.

    Raises:
        ConfigurationError: the message names the variable, or the setting and its profile, and the accepted values.
    """
    set_by_program = session.instance_variables()
    for name, (_, _, _, conversion) in session.session_var_map.items():
        if name in set_by_program:
            continue
        for where, value in _configured(session, name):
            requirement = _requirement(name, value, conversion)
            if requirement is not None:
                raise _invalid(label, where, value, requirement)
    _check_sections(session, label)


def _requirement(name: str, value: Any, conversion: Any) -> str | None:
    """Return what the value of a setting must be if `value` is not that; None if it is valid, or not checked."""
    if name in CHOICES:
        choices = (*CHOICES[name], "") if name in EXACT else CHOICES[name]
        folded = value if name in EXACT else str(value).lower()
        return None if folded in choices else f"must be one of {', '.join(CHOICES[name])}, or unset"
    if conversion is int or name in _LATE_NUMBERS:
        return None if _is_whole(value) else "must be a whole number or unset"
    if conversion is ensure_boolean:
        known = str(value).lower() in _SWITCH
        return None if known else "must be true or false, or unset (boto takes anything else for false)"
    return None


def _is_whole(value: Any) -> bool:
    try:
        int(value)
    except (TypeError, ValueError):
        return False
    return True


def _configured(session: Session, name: str) -> Iterator[tuple[str, Any]]:
    """Yield where a setting is configured and its value; nothing if it is not. A variable goes before the profile."""
    in_profile, variables, _, _ = session.session_var_map[name]
    for variable in [variables] if isinstance(variables, str) else variables or []:
        if variable in os.environ:
            yield f"the variable {variable}", os.environ[variable]
            return
    scoped = session.get_scoped_config()
    if in_profile in scoped:
        yield f"the setting {in_profile} of profile {_profile(session)!r}", scoped[in_profile]


def _check_sections(session: Session, label: str) -> None:
    scoped = session.get_scoped_config()
    for name in SECTIONS:
        where = f"the setting {name} of profile {_profile(session)!r}"
        if not isinstance(scoped.get(name, {}), Mapping):
            raise _invalid(label, where, scoped[name], "must be empty, with indented lines below it, or unset")
    for name, choices in S3_CHOICES.items():
        value = scoped.get("s3", {}).get(name)
        if value is not None and value not in choices:
            where = f"the setting {name} below s3 of profile {_profile(session)!r}"
            raise _invalid(label, where, value, f"must be one of {', '.join(choices)}, or unset")


def _invalid(label: str, where: str, value: Any, requirement: str) -> ConfigurationError:
    problem = "is empty" if value == "" else f"is {printable(str(value))!r}"
    return ConfigurationError(f"{label}: {where} {problem}, it {requirement}")


def _profile(session: Session) -> str:
    return printable(session.profile or "default")
