"""Global calls: one warning in a run whose job does the same work on a global service once per region."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from asyncauth._aws.global_services import GLOBAL_SERVICES

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncauth._runs.targets import Target

logger: Final = logging.getLogger("asyncauth.runs")


class GlobalCalls:
    """The global services that the jobs of a run have used, by account; nothing is kept after the warning."""

    def __init__(self) -> None:
        self._regions: dict[tuple[str, str, str], str] = {}
        self._has_warned = False

    def note(self, target: Target, services: Collection[str]) -> None:
        """Note the services that a target's job had clients of; warn if another region of the account had one, too."""
        if self._has_warned:
            return
        for service in GLOBAL_SERVICES.intersection(services):
            key = (target.account.partition, target.account.id, service)
            first = self._regions.setdefault(key, target.region_name)
            if first != target.region_name:
                logger.warning(
                    "the job uses %s in more than one region of an account (%s and %s of %s); it is a global service, "
                    'so each region repeats the same work: regions=["global"] runs the job once per account',
                    service,
                    first,
                    target.region_name,
                    target.account.id,
                )
                self._has_warned = True
                self._regions.clear()
                return
