"""Outcome of one target of a run: what its job returned or raised, how far it came, and as a row of a table."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Final, Generic, Literal, Self, TypeAlias, TypeVar, cast

from asyncauth._errors import AsyncAuthError
from asyncauth._fanout import Status
from asyncauth._models import Account
from asyncauth._runs.regions import RegionsFrom
from asyncauth._runtime.exceptions import can_be_pickled
from asyncauth._runtime.printable import MESSAGE_CHARACTERS, describe_error, printable

T = TypeVar("T")

Phase: TypeAlias = Literal["credentials", "region", "job"]

#: Reason of a target that was skipped because an earlier run with the same journal has done it.
DONE_BEFORE: Final = "done in an earlier run"


@dataclass(frozen=True, slots=True, repr=False)
class Outcome(Generic[T]):
    """Outcome of one target: an account in a region.

    Args:
        account: the account.
        region_name: the region.
        status: `succeeded`, `failed`, `timed_out`, `skipped` or `cancelled`.
        phase: the last phase of the target: `credentials`, `region` or `job`; None if it never started.
        value: the job's return value; None unless the status is `succeeded`.
        error: the exception of a failed target; a job's own exception is the same object. For a skipped target, the
            refusal by AWS that it was skipped for, if there was one.
        error_code: AWS's code of the error, or the name of botocore's exception class where AWS gave no answer; None
            for other errors.
        reason: why the target was skipped or cancelled; "still running" if the thread of a plain function had not
            ended by the end of the target's time.
        attempts: number of job calls; 0 if the job was never called.
        elapsed: seconds from admission to the end.
        regions_from: where the account's regions are from if the run selects `enabled` ones: `account` (ListRegions),
            `ec2` (DescribeRegions), or `default`, because neither could be read. None without `enabled`.

    It can be pickled if its value can. A pickled error has no traceback and no cause; one that cannot be pickled
    becomes an AsyncAuthError with its class, the first line of its message, and its code.
    """

    account: Account
    region_name: str
    status: Status
    phase: Phase | None = None
    value: T | None = None
    error: BaseException | None = None
    error_code: str | None = None
    reason: str | None = None
    attempts: int = 0
    elapsed: float = 0.0
    regions_from: RegionsFrom | None = None

    def __new__(cls, *arguments: Any, **keywords: Any) -> Self:
        status = keywords.get("status", arguments[2] if len(arguments) > 2 else None)
        made = Succeeded if cls is Outcome and status == "succeeded" else cls
        return cast("Self", object.__new__(made))

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "succeeded"

    def row(self) -> dict[str, Any]:
        """Return a flat record of it, for a table or a file: text, numbers and None.

        Text is cut and has no control characters, and an error is its class and first line. `value` is the job's
        return value as JSON text, None if the target did not succeed. For a value that is not JSON it is the name of
        the value's type; `Report.rows` warns of these.
        """
        return {**record_of(self), "value": as_json(self.value)[0] if self.ok else None}

    def __reduce__(self) -> tuple[Any, ...]:
        # An error that cannot be pickled, such as one that holds a lock, must not keep a whole report from travelling.
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.error is not None and not can_be_pickled(self.error):
            values["error"] = AsyncAuthError(
                f"{describe_error(self.error)} (it could not be pickled)", code=self.error_code
            )
        return (type(self), tuple(values.values()))

    def __str__(self) -> str:
        where = f" in {self.phase}" if self.phase and not self.ok else ""
        why = "" if self.ok else f": {describe_cause(self)}"
        calls = plural(self.attempts, "attempt")
        return f"{describe_target(self)} {self.status.replace('_', ' ')}{where}{why} ({calls}, {self.elapsed:.3f} s)"

    def __repr__(self) -> str:
        # Without the message of the error: a job's message can hold anything, and a repr gets into logs.
        why = self.error_code or self.reason or (type(self.error).__name__ if self.error else None)
        where = f" in {self.phase}" if self.phase and not self.ok else ""
        because = f" ({printable(why, MESSAGE_CHARACTERS)})" if why else ""
        return (
            f"<Outcome {self.account.id} {printable(self.region_name)} {self.status}{where}{because}, "
            f"{plural(self.attempts, 'attempt')}, {self.elapsed:.3f} s>"
        )


@dataclass(frozen=True, slots=True, repr=False)
class Succeeded(Outcome[T]):
    """Outcome of a target whose job returned: its `value` is of the job's type, also for a type checker.

    Every outcome with the status `succeeded` is one, so `isinstance(outcome, Succeeded)` distinguishes them.

    Example:
        for outcome in report.succeeded:
            total += outcome.value
    """

    value: T = None  # type: ignore[assignment]  # the order of the fields requires a default


def describe_target(outcome: Outcome[Any]) -> str:
    """Return the account's id, its name if it has one, and the region, in one printable line."""
    name = f" {printable(outcome.account.name)}" if outcome.account.name else ""
    return f"{outcome.account.id}{name} {printable(outcome.region_name)}"


def describe_cause(outcome: Outcome[Any]) -> str:
    """Return the class and first line of an outcome's error, or its reason; the status if it has neither."""
    if outcome.error is not None and outcome.status != "skipped":
        return describe_error(outcome.error)
    return printable(outcome.reason or outcome.status.replace("_", " "), MESSAGE_CHARACTERS)


def record_of(outcome: Outcome[Any]) -> dict[str, Any]:
    """Return an outcome's row without the value."""
    return {
        "account": outcome.account.id,
        "account_name": _clean(outcome.account.name),
        "partition": outcome.account.partition,
        "region_name": _clean(outcome.region_name),
        "status": outcome.status,
        "phase": outcome.phase,
        "error_code": _clean(outcome.error_code),
        "error": None if outcome.error is None else describe_error(outcome.error),
        "reason": _clean(outcome.reason),
        "attempts": outcome.attempts,
        "elapsed": outcome.elapsed,
    }


def as_json(value: object) -> tuple[str, Exception | None]:
    """Return a value as JSON text and None; the name of its type and the error if it is not JSON."""
    try:
        return json.dumps(value, allow_nan=False), None
    except Exception as error:  # noqa: BLE001 - the class of the value can raise anything
        return printable(type(value).__name__, MESSAGE_CHARACTERS), error


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 target", "1,200 targets"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _clean(text: str | None) -> str | None:
    return None if text is None else printable(text, MESSAGE_CHARACTERS)
