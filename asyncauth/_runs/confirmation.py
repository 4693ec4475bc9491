"""Confirmation of a run: shows the accounts, regions and roles, and requests consent before the run starts."""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from asyncauth._errors import ConfigurationError
from asyncauth._runtime.daemon_thread import run_in_daemon_thread

if TYPE_CHECKING:
    from asyncauth._models import Role
    from asyncauth._runs.targets import Target

NOT_CONFIRMED = "not confirmed"


@dataclass(frozen=True, slots=True)
class Plan:
    """Accounts, regions and roles that a run will use.

    Attributes:
        targets: number of pairs of account and region.
        accounts: ids of the accounts, in order, each once.
        regions: number of targets in each region.
        partitions: number of accounts in each partition.
        roles: ARNs of the roles that will be assumed, in order, each once.
        dry_run: True if the job will not be called.
        up_to: True if the numbers of targets and regions are upper bounds, because the run selects `enabled` regions:
            these are found when an account is read, and the plan has all regions of its partition.
    """

    targets: int
    accounts: tuple[str, ...]
    regions: Mapping[str, int]
    partitions: Mapping[str, int]
    roles: tuple[str, ...]
    dry_run: bool
    up_to: bool = False

    @classmethod
    def of(cls, targets: Iterable[Target], role: Role, *, dry_run: bool, up_to: bool = False) -> Plan:
        """Return the plan of a run over `targets` that assumes `role`, except in accounts with a role of their own."""
        reachable = [target for target in targets if target.unreachable is None]
        accounts = {(target.account.partition, target.account.id): None for target in reachable}
        roles = {target.account.role_arn(role) or "SELF": None for target in reachable}
        return cls(
            targets=len(reachable),
            accounts=tuple(account for _, account in accounts),
            regions=MappingProxyType(dict(Counter(target.region_name for target in reachable))),
            partitions=MappingProxyType(dict(Counter(partition for partition, _ in accounts))),
            roles=tuple(roles),
            dry_run=dry_run,
            up_to=up_to,
        )

    def __str__(self) -> str:
        bound = f"up to {len(self.regions)} regions: " if self.up_to else ""
        regions = bound + ", ".join(f"{name} ({count})" for name, count in sorted(self.regions.items()))
        partitions = ", ".join(f"{name} ({count})" for name, count in sorted(self.partitions.items()))
        names = Counter(arn.partition(":role/")[2] or arn for arn in self.roles)
        verb = "dry run over" if self.dry_run else "will touch"
        lines = [
            f"{verb} {'up to ' if self.up_to else ''}{self.targets:,} targets in {len(self.accounts):,} accounts",
            f"  partitions: {partitions}",
            f"  regions:    {regions}",
            f"  roles:      {', '.join(f'{name} ({count})' for name, count in names.most_common(5))}",
            f"  accounts:   {', '.join(self.accounts[:8])}{', ...' if len(self.accounts) > 8 else ''}",
        ]
        return "\n".join(lines)


Confirm: TypeAlias = "bool | Callable[[Plan], bool | Awaitable[bool]]"


def check_confirm(confirm: object) -> None:
    """Check that a run can be confirmed as `confirm` requests.

    Args:
        confirm: the option of the run.

    Raises:
        ConfigurationError: `confirm` is True and stdin is no terminal; or it is neither a bool nor a callable.
    """
    if not confirm:
        return
    if confirm is True and not sys.stdin.isatty():
        raise ConfigurationError(
            "confirm=True needs a terminal on stdin, and there is none; pass a callable that takes the Plan and "
            "returns a bool"
        )
    if confirm is not True and not callable(confirm):
        raise ConfigurationError(f"confirm={confirm!r} must be True or a callable that takes the Plan")


async def is_confirmed(confirm: Confirm, plan: Plan) -> bool:
    """Request consent to a plan, and return whether the run may start."""
    if not confirm:
        return True
    if confirm is True:
        return await run_in_daemon_thread(partial(prompt, plan), name="asyncauth confirmation")
    consent = confirm(plan)
    return bool(await consent if inspect.isawaitable(consent) else consent)


def prompt(plan: object) -> bool:
    """Write a plan to stderr and request consent to it on the terminal; the end of input is none."""
    print(plan, file=sys.stderr)  # noqa: T201 - confirm=True is a request for this output
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return _read_line().strip().lower() in {"y", "yes"}


def _read_line() -> str:
    try:
        stdin = sys.stdin.fileno()
    except OSError:  # a stream without a file
        return sys.stdin.readline()
    # Not by sys.stdin: a thread that waits in its buffered reader holds a lock that the interpreter needs to exit.
    return os.read(stdin, 1024).decode(errors="replace")
