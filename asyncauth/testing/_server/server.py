"""Child process of the fleet: one asyncio loop for all requests and commands, one thread for moto.

The process reads its specification from standard input (one line of JSON) and writes its port to standard output (one
line). It ends when standard input closes, which happens when the parent closes it, exits, or is killed.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import hmac
import json
import logging
import os
import sys
import threading
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NoReturn

from asyncauth.testing._server import http as _http
from asyncauth.testing._server.authenticator import Authenticator
from asyncauth.testing._server.call_recorder import CallRecorder
from asyncauth.testing._server.clock import FleetClock
from asyncauth.testing._server.cloudwatch import CloudWatchServer
from asyncauth.testing._server.faults import Fault, FaultInjector, Match, RateLimit
from asyncauth.testing._server.http import Request, Response
from asyncauth.testing._server.identity_center import IdentityCenterServer
from asyncauth.testing._server.metric_samples import Metrics
from asyncauth.testing._server.moto_backend import Moto, prepare_environment
from asyncauth.testing._server.organizations import OrganizationsServer
from asyncauth.testing._server.regions import Regions, RegionsServer
from asyncauth.testing._server.router import Router
from asyncauth.testing._server.seed import Seeds
from asyncauth.testing._server.sts import AccountState, Principal, Role, SecurityTokenService, role_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CONTROL_PATH = "/.simulated-fleet/"
_FORCED_EXIT_SECONDS = 2.0
_PARENT_CHECK_SECONDS = 1.0


class Fleet:
    """State of the child process, and the commands with which the parent changes it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._token = spec["control_token"]
        self.clock = FleetClock(spec["manual_clock"], float(spec["clock_offset"]))
        regions = Regions(
            {name: partition["regions"] for name, partition in spec["partitions"].items()},
            {name: partition["suffix"] for name, partition in spec["partitions"].items()},
            frozenset(spec["opt_in_regions"]),
        )
        self._closed_regions = {name: frozenset(partition["closed"]) for name, partition in spec["partitions"].items()}
        self.recorder = CallRecorder()
        self.faults = FaultInjector(spec["seed"], self.clock)
        self.sts = SecurityTokenService(
            token_lifetime=spec["token_lifetime"], clock=self.clock, mfa_secret=spec["mfa_secret"]
        )
        accounts = {account["id"]: account for account in spec["accounts"]}
        seeds = Seeds(
            accounts,
            seed=spec["seed"],
            metric_points=spec["metric_points"],
            wall=self.clock.time,
            hidden_every=spec["ec2"]["hidden_every"],
        )
        self.moto = Moto(seeds, regions.by_partition, spec["ec2"])
        self.cloudwatch = CloudWatchServer(Metrics(spec["cloudwatch"], seeds, seed=spec["seed"], wall=self.clock.time))
        self.identity_centers = IdentityCenterServer(spec["identity_centers"], accounts, self.sts, self.clock)
        self.router = Router(
            sts=self.sts,
            authenticator=Authenticator(
                self.sts,
                regions.partition_of,
                self.clock,
                spec["max_clock_skew"],
                home_regions={name: partition["home"] for name, partition in spec["partitions"].items()},
            ),
            moto=self.moto,
            cloudwatch=self.cloudwatch,
            faults=self.faults,
            recorder=self.recorder,
            regions=RegionsServer(regions, self.sts),
            organizations=OrganizationsServer(spec["organizations"], accounts, self.sts),
            identity_centers=self.identity_centers,
            default_regions=spec["default_regions"],
            clock=self.clock,
        )
        for account in spec["accounts"]:
            self._add_account(account)
        for identity in spec["identities"]:
            self._add_identity(identity)
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "counts": self._counts,
            "reset_counts": self._reset_counts,
            "fault": self._fault,
            "limit": self._limit,
            "remove": self._remove,
            "hits": self._hits,
            "clear": self._clear,
            "assumed": self._assumed,
            "add_role": self._command_add_role,
            "add_identity": self._command_add_identity,
            "expire": self._expire,
            "set_account": self._set_account,
            "set_token_lifetime": self._set_token_lifetime,
            "set_clock_offset": self._set_clock_offset,
            "advance_clock": self._advance_clock,
            "wait": self._wait,
            "preload": self._preload,
            "web_identity": self._web_identity,
            "sso_login": self._sso_login,
            "end_sso_logins": self._end_sso_logins,
        }

    def date(self) -> str:
        """Return the fleet's time in the format of the Date header."""
        return formatdate(self.clock.time(), usegmt=True)

    async def app(self, request: Request) -> Response:
        """Answer a request to the fleet's port."""
        if request.path.startswith(CONTROL_PATH):
            return await self._control(request)
        return await self.router.answer(request)

    async def _control(self, request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("x-control-token", "").encode(), self._token.encode()):
            return Response(403, b"{}")
        command = self._commands.get(request.path[len(CONTROL_PATH) :])
        if command is None:
            return Response(404, b"{}")
        arguments = json.loads(request.body or b"{}")
        try:
            answer = await command(arguments)
        except KeyError as error:
            return Response(400, f"the fleet has no {error}".encode())
        except ValueError as error:
            return Response(400, str(error).encode())
        return Response(200, json.dumps(answer).encode(), [("Content-Type", "application/json")])

    def _add_account(self, account: dict[str, Any]) -> None:
        self.sts.accounts[account["id"]] = AccountState(
            account["id"],
            account["partition"],
            denied=account.get("denied", False),
            suspended=account.get("suspended", False),
            disabled_regions=self._closed_regions[account["partition"]].union(account["disabled_regions"]),
        )
        state = self.sts.accounts[account["id"]]
        state.set_region_states(account["region_states"])
        state.scp_denied = tuple(account["scp_denied"])
        if account.get("management"):
            self.sts.trusted_accounts.add(account["id"])
            self.sts.management_accounts.add(account["id"])
        for role in account.get("roles", ()):
            self._add_role(account["id"], role)

    def _add_role(self, account: str, role: dict[str, Any]) -> None:
        trusted = role.get("trusted")
        self.sts.roles[role["arn"]] = Role(
            arn=role["arn"],
            account=account,
            role_id=role_id(role["arn"]),
            external_id=role.get("external_id"),
            trusted=None if trusted is None else tuple(trusted),
            mfa=role.get("mfa", False),
            max_session_duration=role.get("max_session_duration", 43_200),
        )

    def _add_identity(self, identity: dict[str, Any]) -> None:
        account, partition, name = identity["account"], identity["partition"], identity["name"]
        self.sts.trusted_accounts.add(account)
        lifetime = identity.get("lifetime")
        role = identity.get("role")
        self.sts.principals[identity["access_key_id"]] = Principal(
            account=account,
            partition=partition,
            arn=f"arn:{partition}:sts::{account}:assumed-role/{role}/{name}"
            if role
            else f"arn:{partition}:iam::{account}:user/{name}",
            user_id=f"{role_id(name)}:{name}" if role else "AIDA" + role_id(f"{account}/{name}")[4:],
            secret=identity["secret_access_key"],
            token=identity.get("session_token"),
            expires_at=None if lifetime is None else self.clock.monotonic() + lifetime,
            role_arn=f"arn:{partition}:iam::{account}:role/{role}" if role else None,
        )

    async def _counts(self, command: dict[str, Any]) -> Any:
        metrics = {"billed_metrics": self.cloudwatch.billed.units, "data_points": self.cloudwatch.billed.points}
        return {**self.recorder.snapshot(), **metrics}

    async def _reset_counts(self, command: dict[str, Any]) -> Any:
        self.recorder.reset()
        self.cloudwatch.billed.reset()
        self.sts.assumed.clear()
        return {}

    async def _fault(self, command: dict[str, Any]) -> Any:
        number = self.faults.next_id()
        self.faults.faults[number] = Fault(
            id=number,
            match=Match.from_json(command["match"]),
            kind=command["kind"],
            code=command.get("code"),
            status=command.get("status"),
            message=command.get("message"),
            seconds=command.get("seconds", 0.0),
            times=command.get("times"),
            after=command.get("after", 0),
            probability=command.get("probability", 1.0),
            headers=tuple((name, value) for name, value in command.get("headers", {}).items()),
        )
        return {"id": number}

    async def _limit(self, command: dict[str, Any]) -> Any:
        number = self.faults.next_id()
        self.faults.limits[number] = RateLimit(
            number,
            Match.from_json(command["match"]),
            command["per_second"],
            command["burst"],
            shared=command["shared"],
        )
        return {"id": number}

    async def _remove(self, command: dict[str, Any]) -> Any:
        return {"hits": self.faults.remove(command["id"])}

    async def _hits(self, command: dict[str, Any]) -> Any:
        fault = self.faults.faults.get(command["id"])
        return {"hits": fault.hits if fault else 0}

    async def _clear(self, command: dict[str, Any]) -> Any:
        self.faults.clear()
        return {}

    async def _assumed(self, command: dict[str, Any]) -> Any:
        account = command.get("account")
        return [
            record
            for record in self.sts.assumed
            if account is None or f":{account}:" in record["form"].get("RoleArn", "")
        ]

    async def _command_add_role(self, command: dict[str, Any]) -> Any:
        self._add_role(command["account"], command)
        return {}

    async def _command_add_identity(self, command: dict[str, Any]) -> Any:
        self._add_identity(command)
        return {}

    async def _expire(self, command: dict[str, Any]) -> Any:
        return {"expired": self.sts.expire(command.get("account"))}

    async def _set_account(self, command: dict[str, Any]) -> Any:
        state = self.sts.accounts[command["account"]]
        for name in ("denied", "suspended"):
            if command.get(name) is not None:
                setattr(state, name, command[name])
        if command.get("disabled_regions") is not None:
            state.disabled_regions = self._closed_regions[state.partition].union(command["disabled_regions"])
        if command.get("region_states") is not None:
            state.set_region_states(command["region_states"])
        if command.get("scp_denied") is not None:
            state.scp_denied = tuple(command["scp_denied"])
        return {}

    async def _set_token_lifetime(self, command: dict[str, Any]) -> Any:
        self.sts.token_lifetime = command["seconds"]
        return {}

    async def _set_clock_offset(self, command: dict[str, Any]) -> Any:
        self.clock.offset = float(command["seconds"])
        return {}

    async def _advance_clock(self, command: dict[str, Any]) -> Any:
        self.clock.advance(float(command["seconds"]))
        return {}

    async def _wait(self, command: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(command["timeout"]):
                await self.recorder.wait(Match.from_json(command["match"]), command["wanted"])
        except TimeoutError:
            return {"reached": False}
        return {"reached": True}

    async def _preload(self, command: dict[str, Any]) -> Any:
        await asyncio.wrap_future(self.moto.preload(command["services"]))
        return {}

    async def _web_identity(self, command: dict[str, Any]) -> Any:
        token = self.sts.web_identity_token(
            subject=command["subject"], audience=command["audience"], expires_at=self.clock.time() + command["seconds"]
        )
        return {"token": token}

    async def _sso_login(self, command: dict[str, Any]) -> Any:
        return self.identity_centers.login(command["partition"])

    async def _end_sso_logins(self, command: dict[str, Any]) -> Any:
        return {"ended": self.identity_centers.end_logins()}


async def _serve(spec: dict[str, Any], announce: Callable[[dict[str, Any]], None]) -> None:
    # Read before the port is announced: the parent may end directly after that.
    parent = os.getppid()
    fleet = Fleet(spec)
    loop = asyncio.get_running_loop()
    server, port, connections = await _http.listen(fleet.app, fleet.date, fleet.clock.sleep)
    done = asyncio.Event()

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.buffer.read(4096):
                pass
        # If the loop is stuck, the process must end all the same; it has no state to save.
        threading.Timer(_FORCED_EXIT_SECONDS, lambda: os._exit(0)).start()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    announce({"port": port})
    if spec["preload"]:
        fleet.moto.preload(spec["preload"])
    while not done.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARENT_CHECK_SECONDS):
                await done.wait()
        if os.getppid() != parent:
            # A process forked by the parent may keep the other end of standard input open after the parent's end.
            break
    server.close()
    for connection in list(connections):
        connection.close()


def main() -> NoReturn:
    """Run the child process."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    spec = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = spec["sys_path"]
    prepare_environment()
    # The event loop gets the interpreter every 0.5 ms while moto computes in its thread; the default is 5 ms.
    sys.setswitchinterval(0.0005)
    out = os.fdopen(os.dup(1), "w")
    # Output of moto must not fill the pipe: the parent reads one line only.
    os.dup2(2, 1)

    def announce(ready: dict[str, Any]) -> None:
        out.write(json.dumps(ready) + "\n")
        out.close()

    asyncio.run(_serve(spec, announce))
    # Run the exit handlers (coverage writes its file), then skip the interpreter's finalization of moto's modules,
    # which takes 0.25 s.
    atexit._run_exitfuncs()  # noqa: SLF001
    os._exit(0)
