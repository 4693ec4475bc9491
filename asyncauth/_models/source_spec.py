"""Source specifications: explicit keys, profiles and roles of a portal. No secret in them is printed or pickled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn, Self, TypeVar

from asyncauth._errors import ConfigurationError
from asyncauth._models import aws_limits

T = TypeVar("T")


class _Secret:
    """Base of classes that hold secrets: instances are not pickled, and a copy is the instance itself."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secrets and is not pickled; give the other process its own source"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _hide_fields(kind: type[T]) -> type[T]:
    """Remove what `dataclasses.asdict`, `astuple`, `replace` and `copy.replace` read the fields of a class by.

    All of these raise TypeError then. `asdict` of a dataclass that has such an object as a field keeps the object.
    """
    del kind.__dataclass_fields__  # type: ignore[attr-defined]  # the decorator below has set it
    kind.__getstate__ = kind.__replace__ = _refuse_fields  # type: ignore[method-assign, attr-defined]
    return kind


def _refuse_fields(self: object, **_: object) -> NoReturn:
    raise TypeError(f"{type(self).__name__} holds secrets; read its attributes by their names")


@_hide_fields
@dataclass(frozen=True, slots=True, repr=False)
class Keys(_Secret):
    """Explicit keys: the long-term keys of a user, or temporary keys with their session token.

    Args:
        access_key_id: 16 to 128 letters and digits.
        secret_access_key: the secret; never printed.
        session_token: the session token of temporary keys; None for long-term keys.
        expiration: when the keys end, as an aware datetime; None for keys that do not end. A callable source is called
            again shortly before the expiration of the keys that it returned. Keys passed as `keys=` cannot be renewed.

    Raises:
        ConfigurationError: a part is missing or malformed, or the datetime is naive.
    """

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    expiration: datetime | None = None

    def __post_init__(self) -> None:
        key_id = self.access_key_id
        if not isinstance(key_id, str) or not (16 <= len(key_id) <= 128 and key_id.isascii() and key_id.isalnum()):
            raise ConfigurationError("access_key_id must be 16 to 128 ASCII letters and digits")
        if not isinstance(self.secret_access_key, str) or not self.secret_access_key.strip():
            raise ConfigurationError(f"secret_access_key of {_last_four(key_id)} is missing")
        if self.session_token is not None and not isinstance(self.session_token, str):
            raise ConfigurationError(f"session_token of {_last_four(key_id)} must be a string or None")
        if self.expiration is not None:
            if not isinstance(self.expiration, datetime) or self.expiration.tzinfo is None:
                raise ConfigurationError(
                    f"expiration of {_last_four(key_id)} must be a datetime with a time zone, such as "
                    "datetime.now(timezone.utc) + timedelta(hours=1)"
                )
            object.__setattr__(self, "expiration", self.expiration.astimezone(UTC))

    def __repr__(self) -> str:
        temporary = "" if self.session_token is None else ", temporary"
        ends = "" if self.expiration is None else f", until {self.expiration:%Y-%m-%dT%H:%M:%SZ}"
        return f"<Keys {_last_four(self.access_key_id)}{temporary}{ends}>"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile of `~/.aws/config` or `~/.aws/credentials`, resolved by boto; every kind that boto supports.

    Args:
        name: the profile's name, without the `profile ` prefix of the config file.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"a profile's name must be a non-empty string, got {self.name!r}")


@dataclass(frozen=True, slots=True)
class SsoRole:
    """A role of IAM Identity Center, reached through the login that `aws sso login` cached.

    The portal returns its credentials at the first use, at most 20 a second. The login is refreshed once for all
    processes; no browser is opened.

    Args:
        session: the name of the `[sso-session NAME]` section of `~/.aws/config`.
        account_id: the account of the role, 12 digits.
        role_name: the name of the permission set.

    Raises:
        ConfigurationError: a name is empty, or the id is no account id.

    Example:
        Account("123456789012", role=SELF, source=SsoRole("corp", "123456789012", "ReadOnly"))
    """

    session: str
    account_id: str
    role_name: str

    def __post_init__(self) -> None:
        for name in ("session", "role_name"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ConfigurationError(f"{name} of an SsoRole must be a non-empty string, got {value!r}")
        aws_limits.check_account_id(self.account_id)


class SelfRole:
    """The type of `SELF`: no role is assumed, the session acts as its source. It has one instance."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SELF"

    def __reduce__(self) -> str:
        return "SELF"  # pickled by its name, so that it is the same object everywhere


#: As the role of an account: act as the source itself.
SELF: Final = SelfRole()


def _last_four(access_key_id: str) -> str:
    return f"...{access_key_id[-4:]}"
