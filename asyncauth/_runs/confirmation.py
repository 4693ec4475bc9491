"""What a run is about to touch, for somebody who is asked before it starts."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import anyio.to_thread

from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from asyncauth._models import Role
    from asyncauth._runs.targets import Target

NOT_CONFIRMED = "not confirmed"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will touch.

    Attributes:
        targets: how many account and region pairs.
        accounts: ids of the accounts, in order.
        regions: how many targets there are in each region.
        partitions: how many accounts there are in each partition.
        roles: ARNs of the roles that will be assumed, in order, each once.
        dry_run: whether the job will not be called.
    """

    targets: int
    accounts: tuple[str, ...]
    regions: Mapping[str, int]
    partitions: Mapping[str, int]
    roles: tuple[str, ...]
    dry_run: bool

    @classmethod
    def of(cls, targets: Iterable[Target], role: Role, *, dry_run: bool) -> Plan:
        """Return the plan of a run over `targets`, by `role` unless an account names its own."""
        reachable = [target for target in targets if target.unreachable is None]
        accounts = {(target.account.partition, target.account.id): None for target in reachable}
        roles = {target.account.effective_role(role).arn(target.account): None for target in reachable}
        return cls(
            targets=len(reachable),
            accounts=tuple(account for _, account in accounts),
            regions=MappingProxyType(dict(Counter(target.region_name for target in reachable))),
            partitions=MappingProxyType(dict(Counter(partition for partition, _ in accounts))),
            roles=tuple(roles),
            dry_run=dry_run,
        )

    def __str__(self) -> str:
        regions = ", ".join(f"{name} ({count})" for name, count in sorted(self.regions.items()))
        partitions = ", ".join(f"{name} ({count})" for name, count in sorted(self.partitions.items()))
        names = Counter(arn.partition(":role/")[2] for arn in self.roles)
        what = "dry run over" if self.dry_run else "will touch"
        lines = [
            f"{what} {self.targets:,} targets in {len(self.accounts):,} accounts",
            f"  partitions: {partitions}",
            f"  regions:    {regions}",
            f"  roles:      {', '.join(f'{name} ({count})' for name, count in names.most_common(5))}",
            f"  accounts:   {', '.join(self.accounts[:8])}{', ...' if len(self.accounts) > 8 else ''}",
        ]
        return "\n".join(lines)


Confirm: TypeAlias = "bool | Callable[[Plan], bool | Awaitable[bool]]"


def check_confirm(confirm: object, total: int | None) -> None:
    """Refuse what cannot be confirmed.

    Raises:
        ConfigurationError: nobody knows yet what the run will touch; there is no terminal to ask at; or `confirm` is
            neither a bool nor a callable.
    """
    if not confirm:
        return
    if total is None:
        raise ConfigurationError("confirm= must show what will be touched, so it needs a list of accounts, no iterator")
    if confirm is True and not sys.stdin.isatty():
        raise ConfigurationError(
            "confirm=True asks at a terminal, and there is none; give a callable that takes the Plan and returns a bool"
        )
    if confirm is not True and not callable(confirm):
        raise ConfigurationError(f"confirm={confirm!r} must be True or a callable that takes the Plan")


async def is_confirmed(confirm: Confirm, plan: Plan) -> bool:
    """Ask whether a run may start."""
    if not confirm:
        return True
    if confirm is True:
        return await anyio.to_thread.run_sync(_ask, plan, abandon_on_cancel=True)
    said = confirm(plan)
    return bool(await said if inspect.isawaitable(said) else said)


def _ask(plan: Plan) -> bool:
    print(plan, file=sys.stderr)  # noqa: T201 - it is what was asked for
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
