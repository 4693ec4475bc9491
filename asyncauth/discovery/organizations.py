"""Accounts of an organization: AWS Organizations is listed page by page, no page ahead of what is consumed."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import anyio

from asyncauth._errors import ConfigurationError, RateLimited
from asyncauth._models import SELF, Account, as_account
from asyncauth.discovery.composition import unique

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncauth._models import AccountLike
    from asyncauth._session import AccountSession

logger: Final = logging.getLogger("asyncauth.discovery")

ManagementMode: TypeAlias = Literal["auto", "skip", "role"]

#: The largest page of every listing, from the Organizations API reference.
PAGE_SIZE: Final = 20
#: Values of an account's `State`, from the Organizations API reference.
STATES: Final = ("PENDING_ACTIVATION", "ACTIVE", "SUSPENDED", "PENDING_CLOSURE", "CLOSED")

#: Calls of one page in all, after botocore's own retries. ServiceException's documentation: "try again later".
_ATTEMPTS: Final = 8
_FIRST_WAIT_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 20.0

#: Codes of answers that another call may not get: throttled, or "try again later".
_BUSY: Final = frozenset({"TooManyRequestsException", "ThrottlingException", "ServiceException"})

#: Ids of organizational units and roots, from the Organizations API reference.
_PARENT: Final = re.compile(r"ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}|r-[0-9a-z]{4,32}")
_ORGANIZATION: Final = re.compile(r"o-[a-z0-9]{10,32}")
_ARN: Final = re.compile(r"arn:[a-z0-9-]+:organizations::([0-9]{12}):account/(o-[a-z0-9]+)/[0-9]{12}")


def organization_accounts(
    session: AccountSession,
    *,
    parents: Collection[str] | None = None,
    exclude: Collection[AccountLike] = (),
    tags: Mapping[str, str] | None = None,
    states: Collection[str] = ("ACTIVE",),
    organization_id: str | None = None,
    management: ManagementMode = "auto",
) -> AsyncIterator[Account]:
    """Return the accounts of an organization, the first ones after one page of 20.

    The calls are ListAccounts alone: 100 for 2,000 accounts. With `parents` or an organizational unit in `exclude` that
    is still so where AWS returns the paths of accounts (`Paths`) and the installed botocore knows them. Else the tree
    is walked: for each organizational unit and root, one ListOrganizationalUnitsForParent, and one
    ListAccountsForParent for every 20 accounts directly in it, at least one. Before that one ListAccounts finds out
    whether there are paths, unless botocore does not know them, and one ListRoots finds the root if `parents` is None.
    The calls count in the pool's rate limit of Organizations, which adapts to what AWS accepts.

    An account has its name, and in `facts` its `email`, `state`, `joined` and `joined_method`, the `organization_id`
    and, where known, its `parent` and `path`.

    Args:
        session: a session of the management account or of a delegated administrator.
        parents: ids of organizational units or roots; the accounts in and below them are returned. None: all.
        exclude: ids of organizational units, with all that is below them, and accounts.
        tags: AWS tags that an account must have, by key; a value may be a pattern such as `prod-*`. The account then
            has all of its tags. This costs one call per account (ListTagsForResource), so 10,000 accounts take a
            quarter of an hour at the rate of 10 a second with which a pool begins. An empty mapping reads the tags and
            filters nothing. None: no tags are read.
        states: an account in another state is returned as unavailable, and a run skips it with that reason.
        organization_id: the id of the organization that is expected, `o-a1b2c3d4e5`; None: any.
        management: the management account has no role of a new member. "auto": it is used as the session itself where
            that is a session of the management account, else it is unavailable. "skip": it is always unavailable.
            "role": it is an account like any other.

    Raises:
        ConfigurationError: an argument is invalid. Raised when the accounts are read: the session's account may not
            list, is in no organization or in another one than `organization_id`, or one of `parents` does not exist.

    Example:
        hub = await pool.session("arn:aws:iam::111111111111:role/list-accounts")
        report = await pool.map(job, organization_accounts(hub, parents=["ou-ab12-34567890"]))
    """
    if organization_id is not None and not (
        isinstance(organization_id, str) and _ORGANIZATION.fullmatch(organization_id)
    ):
        raise ConfigurationError(f"organization_id={organization_id!r} must be an organization's id, o-a1b2c3d4e5")
    if management not in ("auto", "skip", "role"):
        raise ConfigurationError(f"management={management!r} must be 'auto', 'skip' or 'role'")
    selection = _Selection.of(parents, exclude, tags, states)
    return unique(_Listing(session, selection, organization_id, management).iterate())


@dataclass(frozen=True, slots=True)
class _Selection:
    """Accounts to return: the checked arguments.

    Args:
        parents: units whose accounts are returned; None: all.
        excluded_units: units that are left out.
        excluded: ids of accounts that are left out.
        tags, states: as the arguments.
    """

    parents: tuple[str, ...] | None
    excluded_units: frozenset[str]
    excluded: frozenset[str]
    tags: Mapping[str, str] | None
    states: frozenset[str]

    @classmethod
    def of(cls, parents: object, exclude: object, tags: object, states: Collection[str]) -> _Selection:
        """Return the checked arguments.

        Raises:
            ConfigurationError: one of them is invalid.
        """
        units, accounts = [], []
        for each in _items("exclude", exclude):
            if isinstance(each, str) and _PARENT.fullmatch(each):
                units.append(each)
            else:
                accounts.append(as_account(cast("AccountLike", each)).id)
        if tags is not None and not isinstance(tags, Mapping):
            raise ConfigurationError(f"tags= must be a mapping of keys to values, got {tags!r}")
        for state in _items("states", states):
            if state not in STATES:
                raise ConfigurationError(f"states= has {state!r}; the states are {', '.join(STATES)}")
        return cls(
            None if parents is None else tuple(_check_parent(each) for each in _items("parents", parents)),
            frozenset(units),
            frozenset(accounts),
            tags,
            frozenset(states),
        )

    @property
    def by_unit(self) -> bool:
        """Whether the place of an account in the tree decides."""
        return self.parents is not None or bool(self.excluded_units)

    def includes(self, paths: Iterable[str]) -> bool:
        """Return whether an account with these paths is selected."""
        units = {unit for path in paths for unit in path.split("/")}
        if units & self.excluded_units:
            return False
        return self.parents is None or not units.isdisjoint(self.parents)

    def has_tags(self, found: Mapping[str, str]) -> bool:
        """Return whether an account with these tags is selected."""
        return all(key in found and fnmatchcase(found[key], pattern) for key, pattern in (self.tags or {}).items())


@dataclass(slots=True)
class _Listing:
    """One listing of an organization.

    Args:
        session, organization_id, management: as the arguments.
        selection: which accounts are returned.
    """

    session: AccountSession
    selection: _Selection
    organization_id: str | None
    management: ManagementMode
    _seen_units: set[str] = field(default_factory=set)

    async def iterate(self) -> AsyncGenerator[Account, None]:
        """Return the accounts, a page of them at a time."""
        if self.selection.by_unit and not await self._knows_paths():
            async with aclosing(self._walk()) as accounts:
                async for account in accounts:
                    yield account
            return
        walks = False
        async for page in self._pages("list_accounts", "Accounts"):
            if page and self.selection.by_unit and "Paths" not in page[0]:
                # Before any account of the page was returned. The tree has the same accounts.
                self._check_organization(page[0])
                walks = True
                break
            for account in await self._accounts([each for each in page if self._is_selected(each)]):
                yield account
        if walks:
            async with aclosing(self._walk()) as accounts:
                async for account in accounts:
                    yield account
        elif self.selection.parents is not None:
            self._warn_of_empty()

    async def _knows_paths(self) -> bool:
        """Return whether the installed botocore parses the paths of accounts; it drops what its model does not have."""
        async with self._client() as client:
            members: Mapping[str, Any] = client.meta.service_model.shape_for("Account").members
        return "Paths" in members

    def _client(self) -> AbstractAsyncContextManager[Any]:
        # Imported at first use: it reads botocore's data.
        from asyncauth._aws.global_services import home_region

        client: AbstractAsyncContextManager[Any] = self.session.client(
            "organizations", region_name=home_region(self.session.account.partition)
        )
        return client

    def _is_selected(self, record: Mapping[str, Any]) -> bool:
        paths = record.get("Paths", ())
        self._seen_units.update(unit for path in paths for unit in path.split("/"))
        return not self.selection.by_unit or self.selection.includes(paths)

    def _warn_of_empty(self) -> None:
        empty = [unit for unit in self.selection.parents or () if unit not in self._seen_units]
        if empty:
            logger.warning("no account is in or below %s; does it exist?", ", ".join(empty))

    async def _walk(self) -> AsyncGenerator[Account, None]:
        """Return the accounts below the parents: those of a unit, then those of the units below it."""
        parents = self.selection.parents
        if parents is None:
            parents = tuple([root["Id"] async for page in self._pages("list_roots", "Roots") for root in page])
        waiting = list(reversed(parents))
        # A parent can be below an excluded unit. Without parents, the walk reaches units from above only.
        visited = set(self.selection.excluded_units)
        for excluded in self.selection.excluded_units if self.selection.parents is not None else ():
            visited.update(await self._units_below(excluded))
        while waiting:
            unit = waiting.pop()
            if unit in visited:
                continue
            visited.add(unit)
            async for page in self._pages("list_accounts_for_parent", "Accounts", ParentId=unit):
                for account in await self._accounts(page, unit):
                    yield account
            waiting += reversed(await self._children(unit))

    async def _children(self, unit: str) -> list[str]:
        pages = self._pages("list_organizational_units_for_parent", "OrganizationalUnits", ParentId=unit)
        return [each["Id"] async for page in pages for each in page]

    async def _units_below(self, unit: str) -> list[str]:
        found = await self._children(unit)
        for each in found:  # grows while it is read
            found += await self._children(each)
        return found

    async def _accounts(self, records: list[Mapping[str, Any]], parent: str | None = None) -> list[Account]:
        """Return the accounts of a page."""
        accounts = []
        for record in records:
            owner, organization_id = self._check_organization(record)
            if record["Id"] not in self.selection.excluded:
                accounts.append(self._account(record, owner, organization_id, parent))
        return accounts if self.selection.tags is None else await self._with_tags(accounts)

    def _check_organization(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Return the management account and the organization of a record; both are in its ARN."""
        match = _ARN.fullmatch(record["Arn"])
        if match is None:
            raise ConfigurationError(f"{record['Arn']!r} is no ARN of an account in an organization")
        if self.organization_id is not None and match[2] != self.organization_id:
            raise ConfigurationError(
                f"account {self.session.account.id} is in the organization {match[2]}, not in {self.organization_id}",
                account=self.session.account.id,
            )
        return match[1], match[2]

    def _account(self, record: Mapping[str, Any], owner: str, organization_id: str, parent: str | None) -> Account:
        state = record.get("State") or record.get("Status") or ""
        facts = {
            "email": record.get("Email"),
            "state": state,
            "joined": _iso(record.get("JoinedTimestamp")),
            "joined_method": record.get("JoinedMethod"),
            "organization_id": organization_id,
            **_location(record, parent),
        }
        fields: dict[str, Any] = {"facts": {key: value for key, value in facts.items() if value}}
        if record["Id"] == owner:
            fields |= self._management_fields(owner)
        if state not in self.selection.states:
            fields["unavailable"] = f"the account's state is {state or 'unknown'}"
        partition = self.session.account.partition
        return Account(record["Id"], partition=partition, name=record.get("Name") or None, **fields)

    def _management_fields(self, owner: str) -> dict[str, Any]:
        if self.management == "role":
            return {}
        if self.management == "skip":
            return {"unavailable": "it is the organization's management account"}
        if self.session.account.id != owner:
            return {"unavailable": _WITHOUT_ROLE}
        # The account is used as the session itself: by the same role, or as the source.
        role = self.session.role_arn
        return {"role": SELF if role is None else Account.from_role_arn(role).role}

    async def _with_tags(self, accounts: list[Account]) -> list[Account]:
        """Return those accounts of a page that have the tags, with their tags; the page's calls are made at once."""
        found: dict[str, dict[str, str]] = {}

        async def read(account_id: str) -> None:
            pages = self._pages("list_tags_for_resource", "Tags", page_size=None, ResourceId=account_id)
            found[account_id] = {tag["Key"]: tag["Value"] async for page in pages for tag in page}

        try:
            async with anyio.create_task_group() as group:
                for account in accounts:
                    group.start_soon(read, account.id)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [
            replace(account, tags=found[account.id])
            for account in accounts
            if self.selection.has_tags(found[account.id])
        ]

    def _pages(self, operation: str, name: str, *, page_size: int | None = PAGE_SIZE, **arguments: Any) -> _Pages:
        if page_size is not None:
            arguments["MaxResults"] = page_size
        return _Pages(self._call, operation, name, arguments)

    async def _call(self, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to a call, which is repeated while AWS throttles it or answers ServiceException."""
        # Imported at first use: botocore takes a third of a second to import.
        from botocore.exceptions import ClientError

        from asyncauth._aws.error_codes import error_code

        for attempt in range(_ATTEMPTS):
            try:
                # A client for each call, because an async generator must not hold one open while it is suspended.
                async with self._client() as client:
                    answer: Mapping[str, Any] = await getattr(client, operation)(**arguments)
                    return answer
            except (ClientError, RateLimited) as error:
                code = error_code(error)
                if attempt == _ATTEMPTS - 1 or not _passes(error, code):
                    self._explain(error, code, arguments)
                    raise
            # Full jitter, as in AWS's article on exponential back-off; it is no secret.
            await anyio.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt)))  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    def _explain(self, error: Exception, code: str | None, arguments: Mapping[str, Any]) -> None:
        """Raise a ConfigurationError in place of an answer that another argument or session would not get."""
        account = self.session.account.id
        if code == "AccessDeniedException":
            problem = (
                f"account {account} may not list its organization: only the management account and delegated "
                "administrators may, with a policy that allows it"
            )
        elif code == "AWSOrganizationsNotInUseException":
            problem = f"account {account} is in no organization"
        elif code == "ParentNotFoundException":
            problem = f"{arguments['ParentId']} is no organizational unit or root of the organization of {account}"
        else:
            return
        raise ConfigurationError(problem, account=account, code=code) from error


class _Pages:
    """Pages of a listing; an empty page is not the end, only a page without a token is."""

    def __init__(
        self,
        call: Callable[[str, Mapping[str, Any]], Awaitable[Mapping[str, Any]]],
        operation: str,
        name: str,
        arguments: Mapping[str, Any],
    ) -> None:
        self._call = call
        self._operation = operation
        self._name = name
        self._arguments: dict[str, Any] | None = dict(arguments)

    def __aiter__(self) -> AsyncIterator[list[Mapping[str, Any]]]:
        return self

    async def __anext__(self) -> list[Mapping[str, Any]]:
        if self._arguments is None:
            raise StopAsyncIteration
        answer = await self._call(self._operation, self._arguments)
        token = answer.get("NextToken")
        self._arguments = {**self._arguments, "NextToken": token} if token else None
        page: list[Mapping[str, Any]] = answer[self._name]
        return page


#: An account that Organizations creates gets this role; the management account does not.
_WITHOUT_ROLE: Final = (
    "it is the organization's management account, in which OrganizationAccountAccessRole does not exist; list with a "
    "session of it, or pass management='role' if it has the role"
)


def _passes(error: Exception, code: str | None) -> bool:
    return isinstance(error, RateLimited) or code in _BUSY


def _location(record: Mapping[str, Any], parent: str | None) -> dict[str, str | None]:
    """Return the unit that an account is in, and its path from the organization down where AWS returns it."""
    paths = record.get("Paths")
    if not paths:
        return {"parent": parent}
    path = paths[0].strip("/").removesuffix(f"/{record['Id']}")
    return {"parent": path.rpartition("/")[2], "path": path}


def _iso(timestamp: object) -> str | None:
    return timestamp.isoformat() if isinstance(timestamp, datetime) else None


def _check_parent(parent: object) -> str:
    if isinstance(parent, str) and _PARENT.fullmatch(parent):
        return parent
    raise ConfigurationError(
        f"parents= has {parent!r}; it takes ids of organizational units, ou-ab12-34567890, or of a root, r-ab12"
    )


def _items(name: str, given: object) -> Iterable[object]:
    if isinstance(given, str | Account) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name}= must be a list, got {given!r}")
    return given
