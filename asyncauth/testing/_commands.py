"""Commands to a running fleet, each built once and sent in two ways: awaited or blocking."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar

import anyio

from asyncauth._models import Keys
from asyncauth.testing._identity_center import SsoLogin
from asyncauth.testing._process import FleetError
from asyncauth.testing._records import AssumedRole, Counts, account_id, signing_name
from asyncauth.testing._spec import check_region_states

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Mapping

    from asyncauth._models import Account
    from asyncauth.testing._spec import RegionState

T = TypeVar("T")
P = ParamSpec("P")

FaultKind: TypeAlias = Literal["error", "throttle", "delay", "hang", "reset", "drip", "truncate"]

CONTROL_PATH: Final = "/.simulated-fleet/"


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """Command to send, and the function that reads the fleet's answer."""

    name: str
    arguments: dict[str, Any]
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Address:
    """Port on which a fleet receives commands, and the token that authorizes them."""

    port: int
    token: str = field(repr=False)

    def request(self, command: Command[Any]) -> tuple[bytes, dict[str, str]]:
        """Return the body and headers of a command."""
        body = json.dumps(command.arguments).encode()
        return body, {"X-Control-Token": self.token, "Connection": "close", "Host": "127.0.0.1"}

    def send(self, command: Command[T]) -> T:
        """Send a command and block until it is answered.

        Raises:
            FleetError: the fleet refuses the command.
            OSError: the fleet's process has ended.
        """
        body, headers = self.request(command)
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("POST", CONTROL_PATH + command.name, body, headers)
            answer = connection.getresponse()
            return _read(command, answer.status, answer.read())
        finally:
            connection.close()

    async def send_async(self, command: Command[T]) -> T:
        """Send a command and await its answer, on asyncio or trio, without a thread.

        Raises:
            FleetError: the fleet refuses the command.
            OSError: the fleet's process has ended.
        """
        body, headers = self.request(command)
        lines = [f"POST {CONTROL_PATH}{command.name} HTTP/1.1", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        answer = b""
        async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
            await stream.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            async for chunk in stream:
                answer += chunk
        head, _, content = answer.partition(b"\r\n\r\n")
        if not head:
            raise ConnectionResetError("the simulated fleet closed the connection without an answer")
        return _read(command, int(head.split(b" ", 2)[1]), content)


def _read(command: Command[T], status: int, content: bytes) -> T:
    if status != 200:
        raise FleetError(f"the fleet refused {command.name!r} (HTTP {status}): {content.decode('utf-8', 'replace')}")
    return command.read(json.loads(content))


class Commander(Protocol):
    """Object with the address of a fleet that runs."""

    @property
    def _address(self) -> Address: ...


def awaited(build: Callable[P, Command[T]]) -> Callable[Concatenate[Commander, P], Coroutine[Any, Any, T]]:
    """Turn a function that builds a command into a method that sends it and is awaited."""

    @functools.wraps(build)
    async def method(self: Commander, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._address.send_async(build(*args, **kwargs))

    return method


def blocking(build: Callable[P, Command[T]]) -> Callable[Concatenate[Commander, P], T]:
    """Turn a function that builds a command into a method that sends it and blocks."""

    @functools.wraps(build)
    def method(self: Commander, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._address.send(build(*args, **kwargs))

    return method


def blocking_handle(
    build: Callable[P, Command[int]], handle: Callable[[Address, int], T]
) -> Callable[Concatenate[Commander, P], T]:
    """Turn a command whose answer is the number of a fault or limit into a blocking method that returns its handle."""

    @functools.wraps(build)
    def method(self: Commander, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return handle(self._address, self._address.send(build(*args, **kwargs)))

    return method


def _match(
    service: str | None, action: str | None, account: Account | str | None, region: str | None
) -> dict[str, str | None]:
    return {
        "service": None if service is None else signing_name(service),
        "action": action,
        "account": account_id(account),
        "region": region,
    }


def _nothing(answer: Any) -> None:
    return None


def counts() -> Command[Counts]:
    """Return the counts of the calls that the fleet received since the start or the last `reset_counts`."""
    return Command("counts", {}, Counts.from_json)


def reset_counts() -> Command[None]:
    """Reset all counts to zero, and drop the AssumeRole records that `assumed` returns."""
    return Command("reset_counts", {}, _nothing)


def assumed(account: Account | str | None = None) -> Command[list[AssumedRole]]:
    """Return the last 20,000 AssumeRole calls, oldest first, of one account or of all (None)."""
    return Command(
        "assumed", {"account": account_id(account)}, lambda answer: [AssumedRole.from_json(one) for one in answer]
    )


def fault(
    kind: FaultKind = "error",
    *,
    service: str | None = None,
    action: str | None = None,
    account: Account | str | None = None,
    region: str | None = None,
    code: str | None = None,
    status: int | None = None,
    message: str | None = None,
    seconds: float | None = None,
    times: int | None = None,
    after: int = 0,
    probability: float = 1.0,
    headers: Mapping[str, str] | None = None,
) -> Command[int]:
    """Inject a fault into matching calls from now on: see `SimulatedFleet.fault`."""
    if kind in {"delay", "drip"} and seconds is None:
        raise ValueError(f"a fault of kind {kind!r} needs seconds=")
    if after < 0:
        raise ValueError(f"after must not be negative, got {after}")
    if not 0.0 <= probability <= 1.0:
        raise ValueError(f"probability must be from 0 to 1, got {probability}")
    return Command(
        "fault",
        {
            "match": _match(service, action, account, region),
            "kind": kind,
            "code": code,
            "status": status,
            "message": message,
            "seconds": seconds or 0.0,
            "times": times,
            "after": after,
            "probability": probability,
            "headers": dict(headers or {}),
        },
        lambda answer: int(answer["id"]),
    )


def limit(
    *,
    service: str | None = None,
    action: str | None = None,
    account: Account | str | None = None,
    region: str | None = None,
    per_second: float,
    burst: float | None = None,
    shared: bool = False,
) -> Command[int]:
    """Throttle matching calls above a rate: see `SimulatedFleet.limit`."""
    if per_second < 0:
        raise ValueError(f"per_second must not be negative, got {per_second}")
    return Command(
        "limit",
        {
            "match": _match(service, action, account, region),
            "per_second": per_second,
            "burst": max(1.0, per_second) if burst is None else burst,
            "shared": shared,
        },
        lambda answer: int(answer["id"]),
    )


def remove(number: int) -> Command[int]:
    """Remove a fault or limit; return the number of calls that it affected."""
    return Command("remove", {"id": number}, lambda answer: int(answer["hits"]))


def hits(number: int) -> Command[int]:
    """Return the number of calls that a fault has affected so far."""
    return Command("hits", {"id": number}, lambda answer: int(answer["hits"]))


def clear_faults() -> Command[None]:
    """Remove all faults and limits; calls held by a fault continue and are answered."""
    return Command("clear", {}, _nothing)


def wait_until(
    *,
    service: str | None = None,
    action: str | None = None,
    account: Account | str | None = None,
    region: str | None = None,
    calls: int | None = None,
    in_flight: int | None = None,
    timeout: float = 10.0,
) -> Command[None]:
    """Wait until at least this many matching calls have been answered (`calls`) or are in flight (`in_flight`).

    Orders the steps of a test without a sleep: hang a call, wait until it is in flight, cancel its caller.

    Args:
        service: and `action`, `account`, `region`: the calls that count, by name or shell pattern; None: any.
        calls: number answered since the start or the last `reset_counts`.
        in_flight: number received and not answered yet, calls held by a fault included.
        timeout: seconds to wait at most.

    Raises:
        TimeoutError: the numbers were not reached within `timeout`.
        ValueError: neither `calls` nor `in_flight` is given.
    """
    wanted = {name: number for name, number in (("calls", calls), ("in_flight", in_flight)) if number is not None}
    if not wanted:
        raise ValueError("wait_until needs calls= or in_flight=")

    def read(answer: Any) -> None:
        if not answer["reached"]:
            raise TimeoutError(f"the fleet did not see {wanted} within {timeout:g} s")

    return Command(
        "wait", {"match": _match(service, action, account, region), "wanted": wanted, "timeout": timeout}, read
    )


def expire_tokens(account: Account | str | None = None) -> Command[int]:
    """Expire every token issued so far, of one account or of all (None); return their number."""
    return Command("expire", {"account": account_id(account)}, lambda answer: int(answer["expired"]))


def change_account(
    account: Account | str,
    *,
    denied: bool | None = None,
    suspended: bool | None = None,
    disabled_regions: Collection[str] | None = None,
    region_states: Mapping[str, RegionState] | None = None,
    scp_denied: Collection[str] | None = None,
) -> Command[None]:
    """Change the state of an account from now on; None leaves a value unchanged.

    Args:
        account: an account of the fleet, or a management account.
        denied: whether its roles refuse every caller.
        suspended: whether the account is closed: its roles and keys are refused.
        disabled_regions: all regions that are not enabled for the account.
        region_states: `RegionOptStatus` by region, in place of all that were set.
        scp_denied: all actions that a service control policy denies, such as `account:ListRegions` or `ec2:*`.
    """
    return Command(
        "set_account",
        {
            "account": account_id(account),
            "denied": denied,
            "suspended": suspended,
            "disabled_regions": None if disabled_regions is None else sorted(disabled_regions),
            "region_states": None
            if region_states is None
            else check_region_states({str(account_id(account)): region_states})[str(account_id(account))],
            "scp_denied": None if scp_denied is None else sorted(scp_denied),
        },
        _nothing,
    )


def set_token_lifetime(seconds: float | None) -> Command[None]:
    """Set the lifetime in seconds of tokens issued from now on; None: the requested `DurationSeconds`."""
    return Command("set_token_lifetime", {"seconds": seconds}, _nothing)


def set_clock_offset(seconds: float) -> Command[None]:
    """Set the fleet's wall clock ahead of the real one by `seconds` (negative: behind).

    Changes `Date`, `Expiration` and the check of signature dates. Tokens live as long as before.
    """
    return Command("set_clock_offset", {"seconds": seconds}, _nothing)


def advance_clock(seconds: float) -> Command[None]:
    """Advance the manual clock of a fleet: tokens age, delays and dripping bodies continue.

    Together with `FakeClock.advance` this lets tokens expire in a test without waiting.

    Args:
        seconds: how far; not negative.

    Raises:
        FleetError: the fleet was not started with `manual_clock`.
        ValueError: `seconds` is negative.
    """
    if seconds < 0:
        raise ValueError(f"advance_clock() moves forward only, got {seconds}")
    return Command("advance_clock", {"seconds": seconds}, _nothing)


def preload(*services: str) -> Command[None]:
    """Wait until moto and these services are imported, so that the first call does not wait for the import.

    Args:
        services: botocore service names, such as `ec2` and `cloudwatch`.
    """
    return Command("preload", {"services": list(services)}, _nothing)


def add_role(
    owner: Account,
    name: str,
    *,
    trusted: Collection[str] | None,
    external_id: str | None,
    mfa: bool,
    max_session_duration: int,
) -> Command[str]:
    """Build the command of `SimulatedFleet.add_role`."""
    arn = f"arn:{owner.partition}:iam::{owner.id}:role/{name}"
    arguments = {
        "account": owner.id,
        "arn": arn,
        "trusted": None if trusted is None else sorted(trusted),
        "external_id": external_id,
        "mfa": mfa,
        "max_session_duration": max_session_duration,
    }
    return Command("add_role", arguments, lambda _: arn)


def add_identity(owner: Account, name: str, *, role: str | None, lifetime: float | None) -> Command[Keys]:
    """Build the command of `SimulatedFleet.add_identity`."""
    keys = new_keys("AKIA" if role is None else "ASIA")
    arguments = {
        "account": owner.id,
        "partition": owner.partition,
        "name": name,
        "role": role,
        "lifetime": 3600.0 if role is not None and lifetime is None else lifetime,
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
        "session_token": keys.session_token,
    }
    return Command("add_identity", arguments, lambda _: keys)


def web_identity_token(subject: str = "workload", *, seconds: float = 3600.0) -> Command[str]:
    """Return a token that AssumeRoleWithWebIdentity accepts for `seconds`, in every partition and for every role."""
    arguments = {"subject": subject, "audience": "sts.amazonaws.com", "seconds": seconds}
    return Command("web_identity", arguments, lambda answer: str(answer["token"]))


def sso_login(partition: str = "aws") -> Command[SsoLogin]:
    """Log the user in to the Identity Center of a partition, as `aws sso login` does.

    Raises:
        FleetError: the partition has no Identity Center.
    """
    return Command("sso_login", {"partition": partition}, lambda answer: SsoLogin(**answer))


def end_sso_logins() -> Command[int]:
    """End all logins: the portal answers 401, no refresh token is accepted; return their number."""
    return Command("end_sso_logins", {}, lambda answer: int(answer["ended"]))


def new_keys(prefix: Literal["AKIA", "ASIA"]) -> Keys:
    """Return new random keys of a user (`AKIA`), or of a session with its token (`ASIA`)."""
    access_key_id = prefix + base64.b32encode(secrets.token_bytes(10)).decode()
    token = "SimulatedSessionToken//" + secrets.token_urlsafe(150) if prefix == "ASIA" else None
    return Keys(access_key_id, "SimulatedSecret//" + secrets.token_urlsafe(17), token)
