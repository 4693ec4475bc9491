"""Profile files: a fragment of `~/.aws/config` for many accounts, and its place in the user's own file."""

from __future__ import annotations

import configparser
import itertools
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from asyncauth._models import Account

BEGIN: Final = "# >>> profiles of asyncauth >>>"
END: Final = "# <<< profiles of asyncauth <<<"
_BLOCK: Final = re.compile(rf"^{re.escape(BEGIN)}\n.*?^{re.escape(END)}\n?", re.MULTILINE | re.DOTALL)
#: Characters that the AWS CLI and shells take in a profile's name without quotes.
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.+@-]+")


def is_name(text: str) -> bool:
    """Return whether a text can be a part of a profile's name."""
    return _NOT_IN_NAMES.search(text) is None


def profile_names(accounts: Iterable[Account], prefix: str = "") -> dict[Account, str]:
    """Return a profile's name for each account: its own name, or its id; names that occur twice get the id.

    Names come from AWS accounts of others: characters other than letters, digits and `_.+@-` become `-`.
    """
    plain = {account: _NOT_IN_NAMES.sub("-", account.name or "").strip("-") or account.id for account in accounts}
    taken = [name.lower() for name in plain.values()]
    return {
        account: prefix + (name if taken.count(name.lower()) == 1 else f"{name}-{account.partition}-{account.id}")
        for account, name in plain.items()
    }


def executable() -> list[str]:
    """Return the command that starts this program from any folder."""
    found = shutil.which("asyncauth")
    beside = Path(sys.executable).with_name("asyncauth")
    if beside.is_file():
        return [str(beside)]
    return [str(Path(found).resolve())] if found else [sys.executable, "-m", "asyncauth"]


def fragment(profiles: Iterable[tuple[str, str, Sequence[str]]]) -> str:
    """Return the sections of profiles.

    Args:
        profiles: for each its name, its region, and the command that prints its credentials.
    """
    return "\n".join(
        f"[profile {name}]\nregion = {region}\ncredential_process = {shlex.join(command)}\n"
        for name, region, command in profiles
    )


def config_path() -> Path:
    """Return the path of the user's configuration: AWS_CONFIG_FILE, else `~/.aws/config`."""
    return Path(os.environ.get("AWS_CONFIG_FILE") or Path.home() / ".aws" / "config").expanduser()


def write_into(path: Path, names: Iterable[str], text: str) -> Path | None:
    """Put a fragment into a configuration file, in place of the one that was put there before.

    The file is replaced at once by a new one with the same mode; what else it holds stays as it is.

    Returns:
        The path of the copy of the former file; None if there was none.

    Raises:
        ConfigurationError: a profile of one of these names is in the file already, outside of the fragment.
    """
    path = path.resolve()  # a link to the file stays a link
    former = path.read_text(encoding="utf-8") if path.exists() else ""
    rest = _BLOCK.sub("", former)
    parser = configparser.RawConfigParser(strict=False, default_section="\0")
    parser.read_string(rest)
    own = {name.removeprefix("profile ").strip() for name in parser.sections()}
    taken = sorted(own.intersection(names))
    if taken:
        raise ConfigurationError(
            f"{path} has a profile {taken[0]!r} already, and {len(taken) - 1} more of these names; add --prefix"
            if len(taken) > 1
            else f"{path} has a profile {taken[0]!r} already; add --prefix"
        )
    separator = "" if not rest or rest.endswith("\n\n") else "\n" if rest.endswith("\n") else "\n\n"
    content = f"{rest}{separator}{BEGIN}\n{text}{END}\n"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = None
    if path.exists():
        stamp = time.strftime("%Y%m%dT%H%M%S")
        # Two writes in one second have a copy each: the first one is of the file that the user wrote.
        candidates = (
            f"{path.name}.asyncauth-{stamp}{f'-{number}' if number else ''}.bak" for number in itertools.count()
        )
        copy = next(each for each in map(path.with_name, candidates) if not each.exists())
        shutil.copy2(path, copy)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return copy
