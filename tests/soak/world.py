"""World of the soak: accounts with role chains, sources whose keys end, and the job that checks its own identity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from asyncauth import Account, AccountSession, Keys, Role

if TYPE_CHECKING:
    from asyncauth import Clock
    from asyncauth.testing import SimulatedFleet

REGIONS: Final = {"aws": ("us-east-1", "eu-west-1"), "aws-cn": ("cn-north-1",)}
#: One account in five is in China; one in five is behind one role, one in fifteen behind two.
_CHINA_EVERY: Final = 5
_ONE_HOP_EVERY: Final = 5
_TWO_HOPS_EVERY: Final = 15
#: Regions that are disabled in some accounts: which ones identifies the account in an answer of EC2.
_MARKER_REGIONS: Final = (
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "sa-east-1",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Identity of a job's session, as the services see it.

    Args:
        arn: the caller in STS's answer.
        marker: the marker regions that are disabled in EC2's answer; None in partitions without them.
    """

    arn: str
    marker: frozenset[str] | None


def plain_accounts(count: int) -> list[Account]:
    """Return the accounts of the fleet, without their roles."""
    accounts = []
    for number in range(1, count + 1):
        partition = "aws-cn" if number % _CHINA_EVERY == _CHINA_EVERY - 1 else "aws"
        digit = {"aws": 1, "aws-cn": 2}[partition]
        accounts.append(Account(f"{digit}{number:011d}", partition=partition, regions=REGIONS[partition]))
    return accounts


def disabled_regions(accounts: list[Account]) -> dict[str, list[str]]:
    """Return the regions to disable in each account, a different set for each of up to 256 accounts."""
    return {account.id: sorted(_marker(account) or ()) for account in accounts}


async def with_chains(fleet: SimulatedFleet) -> list[Account]:
    """Add the roles of the chains to a fleet; return its accounts with the roles to assume."""
    hubs = {name: await fleet.add_role(fleet.management(name), "hub") for name in fleet.regions}
    relays = {
        name: await fleet.add_role(
            next(one for one in fleet.accounts if one.partition == name), "relay", trusted=[hubs[name]]
        )
        for name in fleet.regions
    }
    accounts = []
    for number, account in enumerate(fleet.accounts):
        via: tuple[str, ...] = ()
        if number % _TWO_HOPS_EVERY == 0:
            via = (hubs[account.partition], relays[account.partition])
        elif number % _ONE_HOP_EVERY == 0:
            via = (hubs[account.partition],)
        if via:
            await fleet.add_role(account, "inner", trusted=[via[-1]])
            account = replace(account, role=Role("inner", via=via))
        accounts.append(account)
    return accounts


async def job(session: AccountSession) -> Answer:
    """Return the identity that STS and EC2 see."""
    async with session.client("sts") as sts:
        arn: str = (await sts.get_caller_identity())["Arn"]
    if session.account.partition != "aws":
        return Answer(arn, None)
    async with session.client("ec2") as ec2:
        regions = (await ec2.describe_regions())["Regions"]
    return Answer(arn, frozenset(_MARKER_REGIONS) - {region["RegionName"] for region in regions})


def expected_answer(account: Account) -> Answer:
    """Return the only right answer of the job in an account."""
    role = account.role.name if isinstance(account.role, Role) else "manage-role"
    return Answer(
        f"arn:{account.partition}:sts::{account.id}:assumed-role/{role}/asyncauth",
        _marker(account),
    )


def _marker(account: Account) -> frozenset[str] | None:
    if account.partition != "aws":
        return None
    number = int(account.id[1:])
    return frozenset(name for bit, name in enumerate(_MARKER_REGIONS) if number >> bit & 1)


class EndingSource:
    """Source of base credentials whose keys end, and that is unavailable at times.

    Args:
        fleet: the fleet that knows the keys.
        partition: the partition of the keys.
        clock: the pool's clock.
        lifetime: seconds that the keys of each call are valid.

    Attributes:
        is_available: whether `fetch` returns keys or raises.
        issued: calls that returned keys.
        refused: calls that raised.
    """

    def __init__(self, fleet: SimulatedFleet, partition: str, clock: Clock, lifetime: int) -> None:
        self.is_available = True
        self.issued = self.refused = 0
        self._fleet = fleet
        self._partition = partition
        self._clock = clock
        self._lifetime = lifetime

    async def fetch(self) -> Keys:
        """Return new keys, with the time at which they end."""
        if not self.is_available:
            self.refused += 1
            raise ConnectionError("the key store does not answer")
        ends = self._clock.time() + self._lifetime
        self.issued += 1
        keys = await self._fleet.add_identity(
            f"source-{self.issued}", partition=self._partition, role="source", lifetime=self._lifetime
        )
        return Keys(
            keys.access_key_id, keys.secret_access_key, keys.session_token, expiration=datetime.fromtimestamp(ends, UTC)
        )

    async def end_early(self) -> int:
        """End the keys before their time; return the number of ended keys and of sessions beside them."""
        return await self._fleet.expire_tokens(self._fleet.management(self._partition))
