"""A run: a job over accounts times regions, on the fan-out engine, with outcomes that speak of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, cast

from asyncauth import _sts
from asyncauth._admission import Group
from asyncauth._errors import TargetTimeout
from asyncauth._fanout import fan_out
from asyncauth._models import Outcome
from asyncauth._targets import Target, Targets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random
    from types import TracebackType
    from typing import Self

    from asyncauth._clock import Clock
    from asyncauth._fanout import Attempt, FanOut, Settlement
    from asyncauth._limits import Limits
    from asyncauth._models import Account, Phase
    from asyncauth._session import AccountSession

T = TypeVar("T")


def passes_by_itself(error: Exception) -> bool:
    """Whether an error is one that another attempt may not meet: throttling, or a token that ended on the way."""
    return _sts.error_code(error) in (_sts.THROTTLED | _sts.EXPIRED)


class Run(Generic[T]):
    """The outcomes of a run, in the order in which they finish.

    Use it as `async with pool.as_completed(...) as outcomes`, and iterate. Leaving the block cancels what still runs,
    waits for its end, and leaves what had finished unread in `unread()`.
    """

    def __init__(
        self,
        job: Callable[[AccountSession], Awaitable[T]],
        targets: Targets,
        *,
        session: Callable[[Account, str], Awaitable[AccountSession]],
        limits: Limits,
        clock: Clock,
        random: Random,
    ) -> None:
        self._job = job
        self._session = session
        self._answers: FanOut[Target, T] = fan_out(
            self._work,
            targets.iterate(),
            limits=limits,
            groups=[
                Group("account", _account_of, limits.max_at_once_per_account),
                Group("region", _region_of, limits.max_at_once_per_region),
            ],
            clock=clock,
            random=random,
            total=targets.total,
            check=lambda target: target.unreachable,
            timeout_error=_timed_out,
        )

    @property
    def running(self) -> int:
        """How many targets are being worked on."""
        return self._answers.running

    @property
    def waiting(self) -> int:
        """How many targets were read and have not begun."""
        return self._answers.waiting

    async def __aenter__(self) -> Self:
        await self._answers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> bool | None:
        return await self._answers.__aexit__(kind, error, frames)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome[T]:
        return as_outcome(await self._answers.__anext__())

    async def collect(self) -> tuple[Outcome[T], ...]:
        """Wait for all outcomes that were not read yet, and return them in the order of the targets."""
        return tuple(as_outcome(settlement) for settlement in await self._answers.collect())

    def unread(self) -> tuple[Outcome[T], ...]:
        """Return the outcomes that were not read yet, without waiting; also after the block was left."""
        return tuple(as_outcome(settlement) for settlement in self._answers.unread())

    async def _work(self, target: Target, attempt: Attempt) -> T:
        attempt.phase = "credentials"
        session = await self._session(target.account, target.region_name)
        attempt.phase = "job"
        return await self._job(session)

    def __repr__(self) -> str:
        return f"<Run [targets: {self.running} running, {self.waiting} waiting]>"


def as_outcome(settlement: Settlement[Target, T]) -> Outcome[T]:
    """Return what the engine says of a target in the words of accounts."""
    return Outcome(
        settlement.target.account,
        settlement.target.region_name,
        settlement.status,
        cast("Phase | None", settlement.phase),
        settlement.value,
        settlement.error,
        None if settlement.error is None else _sts.error_code(settlement.error),
        settlement.reason,
        settlement.attempts,
        settlement.elapsed,
    )


def _account_of(target: Target) -> tuple[str, str]:
    return (target.account.partition, target.account.id)


def _region_of(target: Target) -> str:
    return target.region_name


def _timed_out(target: Target, message: str) -> TargetTimeout:
    return TargetTimeout(
        f"account {target.account.id} in {target.region_name} {message}",
        account=target.account.id,
        region_name=target.region_name,
        code="TargetTimeout",
    )
