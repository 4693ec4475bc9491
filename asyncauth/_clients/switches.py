"""Switches of the speed-ups: all on, and only the benchmark of what each is worth turns one off.

Each speed-up has the results of the code of botocore that it replaces, so a switch changes nothing but the cost. A
switch is read when a client factory builds its parts; to turn one off later has no effect on clients that exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class Switches:
    """Whether each speed-up is used.

    Attributes:
        signatures: sign plain requests in one pass (`speedups.sigv4`).
        user_agent: keep the user-agent header of equal calls (`speedups.user_agent_cache`).
        parsers: parse responses by compiled plans, large ones in a thread (`parsing.factory`).
        timestamps: parse timestamps by `datetime.fromisoformat` (`parsing.timestamps`).
    """

    signatures: bool = True
    user_agent: bool = True
    parsers: bool = True
    timestamps: bool = True


SWITCHES: Final = Switches()
