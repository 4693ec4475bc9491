"""Errors of boto's providers that have no type of botocore's: the traceback holds the provider that raised them.

A provider that reads an invalid setting or answer raises a ValueError, a TypeError or the error of a parser. The class
alone has no meaning then. The provider that raised it has, because only a few settings belong to each.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from botocore.credentials import CredentialProvider, Credentials

from asyncauth._runtime.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

_EXPIRATION: Final = "write it as 2030-01-31T23:59:59Z, with a time zone, or leave it out"
_NOT_SHOWN: Final = "(not shown, it may hold secrets)"


def describe_provider_error(error: Exception) -> str | None:
    """Return which setting or answer of a provider is invalid; None if unknown.

    Args:
        error: an error of botocore's chain, with its traceback.
    """
    if any(frame.f_globals.get("__name__") == "getpass" for frame in _frames(error)):
        return (
            "its mfa_serial needs a code, and there is no terminal to type it on; remove mfa_serial from the profile "
            "and give the code through Role(mfa_serial=, mfa_token=)"
        )
    if isinstance(error, OSError):
        return _file(error)
    describe = _DESCRIPTIONS.get(_provider(error) or "")
    return None if describe is None else describe(error)


def _frames(error: Exception) -> Iterator[FrameType]:
    entry = error.__traceback__
    while entry is not None:
        yield entry.tb_frame
        entry = entry.tb_next


def _provider(error: Exception) -> str | None:
    """Return the innermost provider: one that assumes a role gets its keys from another one."""
    provider: str | None = None
    for frame in _frames(error):
        owner = frame.f_locals.get("self")
        if isinstance(owner, CredentialProvider):
            provider = owner.METHOD
        elif isinstance(owner, Credentials):
            provider = owner.method
    return provider


def _file(error: OSError) -> str | None:
    """Return which setting names a file that cannot be read, or a program that cannot be run; None if none does."""
    name = _FILES.get(_provider(error) or "")
    if name is None or not isinstance(error.filename, str):
        return None
    variables = [variable for variable in _FILE_VARIABLES if os.environ.get(variable) == error.filename]
    setting = f"the variable {variables[0]}" if variables else name
    problem = error.strerror or type(error).__name__
    return f"{setting} names {printable(error.filename, 300)!r}, which cannot be used: {problem}; correct or unset it"


def _process(error: Exception) -> str:
    name = type(error).__name__
    if name in {"AttributeError", "UnicodeDecodeError"}:
        return f"the answer of the credential_process is not a JSON object {_NOT_SHOWN}"
    if name in {"ParserError", "TypeError", "OverflowError"}:
        return f"the Expiration in the answer of the credential_process is not a time {_NOT_SHOWN}; {_EXPIRATION}"
    return "its credential_process is not a command: it is empty, or a quote in it is not closed"


def _environment(_: Exception) -> str:
    return f"the variable AWS_CREDENTIAL_EXPIRATION is not a time; {_EXPIRATION}"


def _container(error: Exception) -> str:
    if "Auth token" in str(error):
        file = "_FILE" if "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" in os.environ else ""
        return (
            f"the token of AWS_CONTAINER_AUTHORIZATION_TOKEN{file} {_NOT_SHOWN} has a line end in it, which a header "
            "must not have"
        )
    if os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        return "the variable AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not a path that begins with /"
    return (
        "boto refuses the address in AWS_CONTAINER_CREDENTIALS_FULL_URI: it must begin with https://, or with http:// "
        "and the host of this machine or of a container agent (169.254.170.2, 169.254.170.23, fd00:ec2::23)"
    )


#: Variables with the name of a file that a provider reads.
_FILE_VARIABLES: Final = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")

#: What names the file that a provider reads, unless it is one of those variables.
_FILES: Final[Mapping[str, str]] = {
    "assume-role-with-web-identity": "the setting web_identity_token_file of the profile",
    "container-role": "the variable AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "custom-process": "the setting credential_process of the profile",
}

_DESCRIPTIONS: Final[Mapping[str, Callable[[Exception], str]]] = {
    "custom-process": _process,
    "env": _environment,
    "container-role": _container,
}
