"""Simulated fleet of AWS accounts on one port of 127.0.0.1, with its controls."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread

from asyncauth._aws.partitions import get_partition, partitions
from asyncauth._models import Account, Keys
from asyncauth.testing import _commands, _spec
from asyncauth.testing._blocking import BlockingControls
from asyncauth.testing._cloudwatch import CloudWatch, cloudwatch_entry
from asyncauth.testing._ec2 import Ec2Troubles, troubles_entry
from asyncauth.testing._handles import Fault
from asyncauth.testing._identity_center import identity_center_entries
from asyncauth.testing._organization import (
    Organization,
    expand_organizations,
    organization_entry,
    organization_identifier,
    unit_identifier,
)
from asyncauth.testing._process import ChildProcess, FleetError
from asyncauth.testing._records import account_id
from asyncauth.testing._server.sts import mfa_code

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Self

    from asyncauth.testing._commands import FaultKind
    from asyncauth.testing._identity_center import IdentityCenterLike
    from asyncauth.testing._organization import OrganizationLike
    from asyncauth.testing._spec import RegionState

_USER: Final = "fleet-operator"
_ORGANIZATION: Final = Organization()
_NO_TROUBLES: Final = Ec2Troubles()
_NO_METRICS: Final = CloudWatch()
_INACCESSIBLE: Final = frozenset(("SUSPENDED", "PENDING_CLOSURE", "CLOSED"))


class SimulatedFleet:
    """Fleet of simulated AWS accounts, in a child process on 127.0.0.1, as strict as AWS.

    Tokens expire, signatures are checked, keys of one partition are unknown in the others, unknown roles and wrong
    external ids are denied, and faults can be injected into calls. The fleet itself answers STS; moto answers all
    other services, under the account whose key signed. One port serves every service, region and partition.

    Each partition has a management account besides `accounts`. The base identity of `keys()` is a user in it, and the
    role in every account trusts that user. However the block ends, no process, port or file is left.

    Args:
        accounts: a number of accounts; numbers by partition, `{"aws": 50, "aws-cn": 10}`; or the accounts themselves,
            whose `role`, `external_id`, `regions` and `tags` are used.
        regions: regions in which the accounts have resources: names, or names by partition; None: us-east-1 and
            eu-west-1, and the default region of other partitions.
        role: the role in each account that does not name its own (the part after `role/` in its ARN).
        instances_per_region: EC2 instances in each region of each account, with CPU metrics: a number, a pair
            (lowest, highest), or a function of account and region name.
        token_lifetime: lifetime of session tokens in seconds, whatever `DurationSeconds` requested; None: as
            requested. `Expiration` has whole seconds, as in AWS.
        clock_offset: seconds by which the fleet's clock is ahead of the real one, in `Date` and `Expiration`.
        manual_clock: Unix time at which the fleet's clock starts; it then moves only by `advance_clock`, in step with
            a `FakeClock`. Delays and dripping bodies wait on it. None: the clock of the machine.
        max_clock_skew: seconds by which a signature's date may differ from the fleet's clock (AWS: 300, S3: 900);
            None: not checked.
        denied: ids of accounts whose roles refuse every caller.
        suspended: ids of accounts that are closed.
        disabled_regions: regions that are not enabled: names for all accounts, or names by account id. Opt-in regions
            in which the fleet has no resources are never enabled.
        metric_points: data points of `CPUUtilization` per instance, one every five minutes up to now.
        preload: services to import at the start, in the background, such as `("ec2", "cloudwatch")`. Without it the
            first call that needs moto waits for the import.
        region_states: `RegionOptStatus` by region, by account id: `ENABLED`, `ENABLING`, `DISABLING`, `DISABLED`. Only
            an enabled region accepts calls.
        scp_denied: actions that a service control policy denies, by account id: `account:ListRegions`, `ec2:*`.
        organization: the organization of each partition: one description for all of them; descriptions by partition,
            None for a partition without an organization; or None: no partition has one.
        identity_center: IAM Identity Center of each partition: one description for all of them, or descriptions by
            partition; None: none.
        management_role: the management accounts have the role too. AWS does not create it there.
        ec2: troubles of EC2's listings, in every account; without them, pages are as AWS documents them.
        cloudwatch: generated metrics, troubles of GetMetricData, and monitoring accounts.
        seed: the same seed gives the same sizes, ids and random choices.
        start_timeout: seconds within which the child must start.

    Raises:
        ImportError: at the start: the extra `asyncauth[simulate]` is not installed.
        FleetError: at the start: the child did not start; the message has its output.

    Example:
        async with SimulatedFleet({"aws": 3, "aws-cn": 1}, token_lifetime=2) as fleet:
            os.environ.update(fleet.environ())
            await fleet.fault(service="ec2", account=fleet.accounts[0], kind="hang")
            ...
            assert (await fleet.counts()).calls("sts", "AssumeRole") == 3
    """

    def __init__(
        self,
        accounts: _spec.AccountsLike = 3,
        *,
        regions: _spec.RegionsLike = None,
        role: str = "manage-role",
        instances_per_region: _spec.InstancesLike = 2,
        token_lifetime: float | None = None,
        clock_offset: float = 0.0,
        manual_clock: float | None = None,
        max_clock_skew: float | None = None,
        denied: Collection[Account | str] = (),
        suspended: Collection[Account | str] = (),
        disabled_regions: Collection[str] | Mapping[str, Collection[str]] = (),
        metric_points: int = 36,
        preload: Sequence[str] = (),
        region_states: Mapping[str, Mapping[str, RegionState]] | None = None,
        scp_denied: Mapping[str, Collection[str]] | None = None,
        organization: OrganizationLike = _ORGANIZATION,
        identity_center: IdentityCenterLike = None,
        management_role: bool = False,
        ec2: Ec2Troubles = _NO_TROUBLES,
        cloudwatch: CloudWatch = _NO_METRICS,
        seed: int = 0,
        start_timeout: float = 30.0,
    ) -> None:
        given = _spec.expand_accounts(accounts)
        names = [name for name in partitions() if name == "aws" or any(one.partition == name for one in given)]
        self._regions = _spec.expand_regions(regions, names)
        self._accounts = tuple(_spec.with_regions(account, self._regions) for account in given)
        self._management = {name: _spec.management_account(name) for name in names}
        self._role = _spec.default_role(role)
        self._keys = {name: _commands.new_keys("AKIA") for name in names}
        self._instances = {
            (account.id, region): _spec.count_instances(instances_per_region, account, region, seed)
            for account in self._accounts
            for region in account.regions
        }
        self._options = {
            "token_lifetime": token_lifetime,
            "clock_offset": clock_offset,
            "manual_clock": manual_clock,
            "max_clock_skew": max_clock_skew,
            "metric_points": metric_points,
            "preload": list(preload),
            "ec2": troubles_entry(ec2),
            "cloudwatch": cloudwatch_entry(cloudwatch),
            "seed": seed,
        }
        self._denied = {str(account_id(account)) for account in denied}
        self._suspended = {str(account_id(account)) for account in suspended}
        self._disabled_regions = disabled_regions
        self._region_states = _spec.check_region_states(region_states or {})
        self._scp_denied = {one_id: sorted(actions) for one_id, actions in (scp_denied or {}).items()}
        self._seed = seed
        self._management_role = management_role
        self._identity_centers = identity_center_entries(
            identity_center,
            {name: [one.id for one in self._accounts if one.partition == name] for name in names},
            {name: regions[0] for name, regions in self._regions.items()},
        )
        self._organizations = {
            name: organization_entry(
                one,
                partition=name,
                seed=seed,
                members=self._members(name),
                # One description for all partitions names accounts of each; one for a partition must name its own.
                foreign=() if isinstance(organization, Mapping) else self._members(None) - self._members(name),
            )
            for name, one in expand_organizations(organization, names).items()
            if one is not None
        }
        for entry in self._organizations.values():
            self._suspended.update(one_id for one_id, state in entry["states"].items() if state in _INACCESSIBLE)
        self._start_timeout = start_timeout
        self._control_token = secrets.token_urlsafe(32)
        self._mfa_secret = secrets.token_urlsafe(32)
        self._mfa_counter = itertools.count(1)
        self._child: ChildProcess | None = None
        self._require_own_accounts()

    # Life cycle

    def start(self) -> Self:
        """Start the child process, and wait until it listens.

        Raises:
            ImportError: the extra `asyncauth[simulate]` is not installed.
            FleetError: the child did not start in time.
            RuntimeError: this fleet was started before.
        """
        if self._child is not None:
            raise RuntimeError("this fleet was started before; a fleet can be started once")
        self._child = ChildProcess(self._specification(), self._start_timeout)
        return self

    def stop(self) -> None:
        """Stop the child process and wait for its end; a second call does nothing."""
        if self._child is not None:
            self._child.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            # On cancellation the thread still runs to its end, so `stop` below always knows the child it started.
            await anyio.to_thread.run_sync(self.start)
            await anyio.lowlevel.checkpoint()
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.stop)

    def __repr__(self) -> str:
        if self._child is None:
            state = "not started"
        elif not self._child.alive:
            state = "stopped"
        else:
            state = f"on 127.0.0.1:{self._child.port}"
        by_partition = ", ".join(
            f"{sum(one.partition == name for one in self._accounts)} in {name}" for name in self._management
        )
        return f"<SimulatedFleet {state} [accounts: {by_partition}]>"

    # Attributes

    @property
    def accounts(self) -> Sequence[Account]:
        """Accounts with their regions expanded, without the management accounts."""
        return self._accounts

    @property
    def regions(self) -> Mapping[str, tuple[str, ...]]:
        """Regions by partition."""
        return MappingProxyType(self._regions)

    @property
    def port(self) -> int:
        """Port on 127.0.0.1."""
        return self._running().port

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._running().pid

    @property
    def endpoint_url(self) -> str:
        """Value for `AWS_ENDPOINT_URL` or a client's `endpoint_url`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def blocking(self) -> BlockingControls:
        """Same controls for code without an event loop."""
        return BlockingControls(self, self._address)

    def management(self, partition: str = "aws") -> Account:
        """Return a partition's management account, which contains the base identity."""
        return self._management[self._own_partition(partition)]

    def find(self, account: Account | str) -> Account:
        """Return an account of the fleet or a management account, by the account or its id.

        Raises:
            ValueError: the fleet does not have this account.
        """
        wanted = account_id(account)
        for one in (*self._accounts, *self._management.values()):
            if one.id == wanted:
                return one
        raise ValueError(f"the fleet has no account {wanted}")

    def keys(self, partition: str = "aws") -> Keys:
        """Return the long-term keys of a partition's base identity."""
        return self._keys[self._own_partition(partition)]

    def environ(self, partition: str = "aws") -> dict[str, str]:
        """Return the environment variables with which an unmodified program runs against the fleet."""
        keys = self.keys(partition)
        return {
            "AWS_ACCESS_KEY_ID": keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
            "AWS_DEFAULT_REGION": self._regions[partition][0],
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def role_arn(self, account: Account | str) -> str:
        """Return the ARN of the role to assume in an account of the fleet.

        Raises:
            FleetError: its role is SELF.
        """
        found = self.find(account)
        arn = found.role_arn(self._role)
        if arn is None:
            raise FleetError(f"no role is assumed in account {found.id}, whose role is SELF")
        return arn

    def organization_id(self, partition: str = "aws") -> str:
        """Return the id of a partition's organization, such as `o-a1b2c3d4e5`."""
        return organization_identifier(partition=self._own_partition(partition), seed=self._seed)

    def parent_id(self, path: str = "", partition: str = "aws") -> str:
        """Return the id of an organizational unit by its names from the root down, `Workloads/Production`.

        Args:
            path: the names, with slashes between them; "" for the id of the root.
            partition: the partition of the organization.
        """
        names = path.split("/") if path else ()
        return unit_identifier(names, partition=self._own_partition(partition), seed=self._seed)

    def instances(self, account: Account | str | None = None, region: str | None = None) -> int:
        """Return the number of EC2 instances at the start, of one account and region or of all (None)."""
        wanted = account_id(account)
        return sum(
            count
            for (one_id, name), count in self._instances.items()
            if wanted in {None, one_id} and region in {None, name}
        )

    def mfa_serial(self, partition: str = "aws") -> str:
        """Return the serial number of the base identity's MFA device."""
        return f"arn:{partition}:iam::{self.management(partition).id}:mfa/{_USER}"

    def mfa_code(self) -> str:
        """Return the next six-digit code of the MFA device; each is accepted once, 1,000 in all."""
        return mfa_code(self._mfa_secret.encode(), next(self._mfa_counter))

    def log(self) -> str:
        """Return the last 8,000 bytes of the child's standard error: warnings, and tracebacks of moto."""
        return self._running().log()

    # Controls

    async def fault(
        self,
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
    ) -> Fault:
        """Inject a fault into matching calls from now on; if several faults match, the oldest is applied.

        Args:
            kind: `error`: answer with `code` and `status` (without `code`: the service's own AccessDenied);
                `throttle`: the service's own throttling answer; `delay`: wait `seconds`, then answer; `hang`: do not
                answer until the fault is removed; `reset`: TCP reset; `drip`: the correct answer, one byte every
                `seconds`; `truncate`: the correct answer, cut off after half of the body.
            service: botocore's service name or the signing name. This and the next three are an exact name, a shell
                pattern, or None for any.
            action: the operation name of AWS, such as `DescribeInstances`.
            account: the account of the signer; for AssumeRole the account of the role.
            region: the region of the endpoint.
            code: the error code of the answer, for `error` and `throttle`.
            status: the HTTP status; None: 400 with a `code`, else that of the service.
            message: the error's text.
            seconds: the duration for `delay` and `drip`.
            times: number of calls to affect; None: no limit.
            after: number of matching calls to leave alone first: 2 for the third page of a listing.
            probability: chance that a matching call is affected, from 0 to 1.
            headers: headers of the error's answer, such as `Retry-After`.

        Raises:
            ValueError: `seconds` is missing for `delay` or `drip`, `after` is negative, or `probability` is not
                from 0 to 1.
        """
        command = _commands.fault(
            kind,
            service=service,
            action=action,
            account=account,
            region=region,
            code=code,
            status=status,
            message=message,
            seconds=seconds,
            times=times,
            after=after,
            probability=probability,
            headers=headers,
        )
        return Fault(self._address, await self._address.send_async(command))

    async def limit(
        self,
        *,
        service: str | None = None,
        action: str | None = None,
        account: Account | str | None = None,
        region: str | None = None,
        per_second: float,
        burst: float | None = None,
        shared: bool = False,
    ) -> Fault:
        """Throttle matching calls above a rate, as AWS does: one token bucket per calling account and region.

        Args:
            service: and `action`, `account`, `region`: the calls to limit, as for `fault`.
            per_second: refill rate in calls a second.
            burst: size of the bucket in calls; None: `per_second`, at least 1.
            shared: use one bucket for all callers and regions.

        Raises:
            ValueError: `per_second` is negative.
        """
        command = _commands.limit(
            service=service,
            action=action,
            account=account,
            region=region,
            per_second=per_second,
            burst=burst,
            shared=shared,
        )
        return Fault(self._address, await self._address.send_async(command))

    async def add_role(
        self,
        account: Account | str,
        name: str,
        *,
        trusted: Collection[str] | None = None,
        external_id: str | None = None,
        mfa: bool = False,
        max_session_duration: int = 43_200,
    ) -> str:
        """Add a role to an account, or replace it; return its ARN.

        Args:
            account: an account of the fleet, or a management account.
            name: the part after `role/` in its ARN.
            trusted: principals that may assume it: ARNs of users, roles or account roots; None: the management
                account.
            external_id: the external id that AssumeRole must send; None: none.
            mfa: accept only callers that authenticated with MFA.
            max_session_duration: seconds, 3,600 to 43,200.
        """
        command = _commands.add_role(
            self.find(account),
            name,
            trusted=trusted,
            external_id=external_id,
            mfa=mfa,
            max_session_duration=max_session_duration,
        )
        return await self._address.send_async(command)

    async def add_identity(
        self,
        name: str,
        *,
        account: Account | str | None = None,
        partition: str = "aws",
        role: str | None = None,
        lifetime: float | None = None,
    ) -> Keys:
        """Add an identity that the fleet's roles trust, and return its keys.

        Args:
            name: name of the user; with `role`, of the role session.
            account: account of the identity; None: the partition's management account.
            partition: partition of the management account, used if `account` is None.
            role: make a session of this role, as on an EC2 instance: temporary keys with a token; None: a user.
            lifetime: seconds until the keys expire; None: never for a user, an hour for a session.
        """
        owner = self.management(partition) if account is None else self.find(account)
        return await self._address.send_async(_commands.add_identity(owner, name, role=role, lifetime=lifetime))

    web_identity_token = _commands.awaited(_commands.web_identity_token)
    sso_login = _commands.awaited(_commands.sso_login)
    end_sso_logins = _commands.awaited(_commands.end_sso_logins)
    counts = _commands.awaited(_commands.counts)
    reset_counts = _commands.awaited(_commands.reset_counts)
    assumed = _commands.awaited(_commands.assumed)
    clear_faults = _commands.awaited(_commands.clear_faults)
    wait_until = _commands.awaited(_commands.wait_until)
    expire_tokens = _commands.awaited(_commands.expire_tokens)
    change_account = _commands.awaited(_commands.change_account)
    set_token_lifetime = _commands.awaited(_commands.set_token_lifetime)
    set_clock_offset = _commands.awaited(_commands.set_clock_offset)
    advance_clock = _commands.awaited(_commands.advance_clock)
    preload = _commands.awaited(_commands.preload)

    # Internals

    @property
    def _address(self) -> _commands.Address:
        child = self._running()
        if not child.alive:
            raise FleetError(f"the simulated fleet's process has ended; it wrote:\n{child.log()}")
        return _commands.Address(child.port, self._control_token)

    def _running(self) -> ChildProcess:
        if self._child is None:
            raise RuntimeError("the fleet was not started: use it with `async with`, `with`, or call start()")
        return self._child

    def _own_partition(self, partition: str) -> str:
        if partition not in self._management:
            get_partition(partition)
            raise ValueError(f"the fleet has no accounts in {partition!r}, only in {', '.join(self._management)}")
        return partition

    def _require_own_accounts(self) -> None:
        for one_id in (*self._denied, *self._suspended, *self._region_states, *self._scp_denied):
            self.find(one_id)

    def _members(self, partition: str | None) -> set[str]:
        every = (*self._accounts, *self._management.values())
        return {account.id for account in every if partition in {None, account.partition}}

    def _mentioned_regions(self) -> set[str]:
        mentioned = {region for regions in self._regions.values() for region in regions}
        return mentioned.union(*(account.regions for account in self._accounts))

    def _specification(self) -> dict[str, Any]:
        def entry(account: Account, *, management: bool) -> dict[str, Any]:
            return _spec.account_entry(
                account,
                role=self._role,
                instances={region: self._instances.get((account.id, region), 0) for region in account.regions},
                denied=self._denied,
                suspended=self._suspended,
                disabled_regions=self._disabled_regions,
                management=management,
                region_states=self._region_states.get(account.id, {}),
                scp_denied=self._scp_denied.get(account.id, ()),
                has_role=self._management_role or not management,
            )

        return {
            **self._options,
            "control_token": self._control_token,
            "mfa_secret": self._mfa_secret,
            "default_regions": {name: regions[0] for name, regions in self._regions.items()},
            "partitions": _spec.partition_entries(self._mentioned_regions()),
            "opt_in_regions": sorted(_spec.opt_in_regions()),
            "accounts": [
                *(entry(account, management=True) for account in self._management.values()),
                *(entry(account, management=False) for account in self._accounts),
            ],
            "organizations": self._organizations,
            "identity_centers": self._identity_centers,
            "identities": [
                {
                    "account": self._management[name].id,
                    "partition": name,
                    "name": _USER,
                    "access_key_id": keys.access_key_id,
                    "secret_access_key": keys.secret_access_key,
                }
                for name, keys in self._keys.items()
            ],
        }
