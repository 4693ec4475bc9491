"""Description of what a simulated EC2 does to its listings that a caller must expect and rarely sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncauth._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Ec2Troubles:
    """Troubles of EC2's DescribeInstances, in every account of the fleet; a page's number in its listing is from 1.

    They apply to listings, not to calls that name instances. Empty and repeating pages need `MaxResults`: without it a
    listing is one page. A page that fails is a fault, `fleet.fault(action="DescribeInstances", after=2)`.

    Args:
        untagged_pages: pages on which no instance has its tags; DescribeTags has them. AWS does not promise tags in
            DescribeInstances.
        repeating_pages: pages that begin with the last reservation of the page before; from page 2 on.
        empty_pages: pages that are empty and have a token.
        hidden_every: every n-th initial instance of a region is managed by an AWS service and hidden by default: it is
            listed only if the call has `IncludeManagedResources`. None: no instance is hidden.

    Raises:
        ConfigurationError: a page number is below 1 (below 2 for a repeating page), or `hidden_every` is below 1.

    Example:
        SimulatedFleet(1, ec2=Ec2Troubles(untagged_pages=[2], empty_pages=[3]))
    """

    untagged_pages: Collection[int] = ()
    repeating_pages: Collection[int] = ()
    empty_pages: Collection[int] = ()
    hidden_every: int | None = None

    def __post_init__(self) -> None:
        for name, lowest in (("untagged_pages", 1), ("repeating_pages", 2), ("empty_pages", 1)):
            for number in getattr(self, name):
                if number < lowest:
                    raise ConfigurationError(f"{name} has page {number}, but must have pages from {lowest} on")
        if self.hidden_every is not None and self.hidden_every < 1:
            raise ConfigurationError(f"hidden_every must be at least 1 or None, got {self.hidden_every}")


def troubles_entry(troubles: Ec2Troubles) -> dict[str, Any]:
    """Return the troubles in the form that the child reads."""
    return {
        "untagged_pages": sorted(troubles.untagged_pages),
        "repeating_pages": sorted(troubles.repeating_pages),
        "empty_pages": sorted(troubles.empty_pages),
        "hidden_every": troubles.hidden_every,
    }
