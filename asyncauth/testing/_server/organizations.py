"""Simulated AWS Organizations: one organization for each partition, in pages of at most 20.

moto answers in pages of 100, does not page children, and lists for every caller.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncauth.testing._server.aws_errors import AwsError, not_implemented
from asyncauth.testing._server.http import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncauth.testing._server.sts import Principal, SecurityTokenService

#: "MaxResults" of every listing in the Organizations API reference: 1 to 20.
MAX_PAGE_SIZE: Final = 20
_JOINED_AT: Final = 1_704_067_200.0  # 2024-01-01
_DENIED: Final = "You don't have permissions to access this resource."
_NOT_IN_USE: Final = "Your account is not a member of an organization."


class OrganizationsServer:
    """Answers to the actions of AWS Organizations.

    Args:
        organizations: entries of the fleet's specification by partition; a partition without one has no organization.
        accounts: entries of the fleet's specification, by account id.
        sts: holds the current state of the accounts.
    """

    def __init__(
        self,
        organizations: Mapping[str, Mapping[str, Any]],
        accounts: Mapping[str, Mapping[str, Any]],
        sts: SecurityTokenService,
    ) -> None:
        self._organizations = {
            partition: _Organization(entry, partition, accounts, sts) for partition, entry in organizations.items()
        }

    def answer(self, action: str, caller: Principal, body: bytes) -> Response:
        """Answer an action.

        Raises:
            AwsError: the caller is a member, the partition has no organization, or a parameter is not valid.
        """
        organization = self._organizations.get(caller.partition)
        if organization is None:
            raise AwsError("AWSOrganizationsNotInUseException", 400, _NOT_IN_USE)
        if action != "DescribeOrganization" and caller.account not in organization.listers:
            raise AwsError("AccessDeniedException", 400, _DENIED)
        handler = organization.actions.get(action)
        if handler is None:
            raise not_implemented("organizations", action, "the fleet's organization cannot be changed by calls")
        try:
            arguments: dict[str, Any] = json.loads(body or b"{}")
        except ValueError:
            raise AwsError("SerializationException", 400, "The request body is not JSON") from None
        headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", secrets.token_hex(16))]
        return Response(200, json.dumps(handler(arguments)).encode(), headers)


class _Items(Protocol):
    def __call__(self, arguments: Mapping[str, Any]) -> Sequence[Any]: ...


class _Organization:
    """Organization of one partition, indexed by parent."""

    def __init__(
        self,
        entry: Mapping[str, Any],
        partition: str,
        accounts: Mapping[str, Mapping[str, Any]],
        sts: SecurityTokenService,
    ) -> None:
        self._entry = entry
        self._sts = sts
        self._members = {one_id: one for one_id, one in accounts.items() if one["partition"] == partition}
        self._master = next(one_id for one_id, one in self._members.items() if one["management"])
        self._arn = f"arn:{partition}:organizations::{self._master}:"
        self._root: str = entry["root"]
        self._units: dict[str, Mapping[str, Any]] = {unit["id"]: unit for unit in entry["units"]}
        self._parent_of: dict[str, str] = dict.fromkeys(self._members, self._root)
        self._parent_of.update(entry["parents"])
        self._accounts_below: dict[str, list[str]] = defaultdict(list)
        for one_id, parent in self._parent_of.items():
            self._accounts_below[parent].append(one_id)
        self._units_below: dict[str, list[str]] = defaultdict(list)
        for unit in entry["units"]:
            self._units_below[unit["parent"]].append(unit["id"])
        self.listers = {self._master, *entry["delegated_administrators"]}
        self.actions: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
            "DescribeOrganization": self._describe_organization,
            "DescribeAccount": self._describe_account,
            "DescribeOrganizationalUnit": self._describe_unit,
            "ListAccounts": self._paged("ListAccounts", "Accounts", self._all_accounts),
            "ListAccountsForParent": self._paged("ListAccountsForParent", "Accounts", self._accounts_for_parent),
            "ListOrganizationalUnitsForParent": self._paged(
                "ListOrganizationalUnitsForParent", "OrganizationalUnits", self._units_for_parent
            ),
            "ListChildren": self._paged("ListChildren", "Children", self._children),
            "ListParents": self._paged("ListParents", "Parents", self._parents),
            "ListRoots": self._paged("ListRoots", "Roots", self._roots),
            "ListTagsForResource": self._paged("ListTagsForResource", "Tags", self._tags),
            "ListDelegatedAdministrators": self._paged(
                "ListDelegatedAdministrators", "DelegatedAdministrators", self._delegated
            ),
        }

    # Paging

    def _paged(self, action: str, name: str, items: _Items) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        def answer(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            size = _page_size(arguments)
            start, number = _read_token(action, arguments)
            found = items(arguments)
            every = self._entry["empty_page_every"]
            is_empty = every is not None and number % every == 0 and start < len(found)
            end = start if is_empty else start + size
            page: dict[str, Any] = {name: [self._record(action, item) for item in found[start:end]]}
            if end < len(found):
                page["NextToken"] = _token(action, arguments, end, number + 1)
            return page

        return answer

    def _record(self, action: str, item: Any) -> Any:
        # Records of accounts are built for the page only: a listing of 10,000 accounts has 500 pages.
        return self._account(item) if action in {"ListAccounts", "ListAccountsForParent"} else item

    # Actions

    def _describe_organization(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "Organization": {
                "Id": self._entry["id"],
                "Arn": f"{self._arn}organization/{self._entry['id']}",
                "FeatureSet": "ALL",
                "MasterAccountArn": self._account_arn(self._master),
                "MasterAccountId": self._master,
                "MasterAccountEmail": _email(self._master),
                "AvailablePolicyTypes": [],
            }
        }

    def _describe_account(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if arguments.get("AccountId") not in self._members:
            raise AwsError("AccountNotFoundException", 400, "You specified an account that doesn't exist.")
        return {"Account": self._account(arguments["AccountId"])}

    def _describe_unit(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        unit = arguments.get("OrganizationalUnitId", "")
        if unit not in self._units:
            message = "You specified an organizational unit that doesn't exist."
            raise AwsError("OrganizationalUnitNotFoundException", 400, message)
        return {"OrganizationalUnit": self._unit(unit)}

    def _all_accounts(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        return list(self._members)

    def _accounts_for_parent(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        return self._accounts_below.get(self._parent(arguments), [])

    def _units_for_parent(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        return [self._unit(one) for one in self._units_below.get(self._parent(arguments), [])]

    def _children(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        kind, parent = arguments.get("ChildType"), self._parent(arguments)
        below = {"ACCOUNT": self._accounts_below, "ORGANIZATIONAL_UNIT": self._units_below}.get(str(kind))
        if below is None:
            raise _invalid("INVALID_ENUM", "You specified an invalid value for ChildType.")
        return [{"Id": one, "Type": kind} for one in below.get(parent, [])]

    def _parents(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        child = arguments.get("ChildId", "")
        parent = self._units[child]["parent"] if child in self._units else self._parent_of.get(child)
        if parent is None:
            raise AwsError("ChildNotFoundException", 400, "You specified a child that doesn't exist.")
        return [{"Id": parent, "Type": "ROOT" if parent == self._root else "ORGANIZATIONAL_UNIT"}]

    def _roots(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        arn = f"{self._arn}root/{self._entry['id']}/{self._root}"
        return [{"Id": self._root, "Arn": arn, "Name": "Root", "PolicyTypes": []}]

    def _tags(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        target = arguments.get("ResourceId", "")
        tagged = self._units.get(target) or self._members.get(target)
        if tagged is None and target != self._root:
            raise AwsError("TargetNotFoundException", 400, "You specified a target that doesn't exist.")
        return [{"Key": key, "Value": value} for key, value in (tagged or {}).get("tags", {}).items()]

    def _delegated(self, arguments: Mapping[str, Any]) -> Sequence[Any]:
        return [
            {**self._account(one), "DelegationEnabledDate": _JOINED_AT}
            for one in self._entry["delegated_administrators"]
        ]

    # Records

    def _parent(self, arguments: Mapping[str, Any]) -> str:
        parent: str = arguments.get("ParentId", "")
        if parent != self._root and parent not in self._units:
            raise AwsError("ParentNotFoundException", 400, "You specified parent that doesn't exist.")
        return parent

    def _account_arn(self, one_id: str) -> str:
        return f"{self._arn}account/{self._entry['id']}/{one_id}"

    def _account(self, one_id: str) -> dict[str, Any]:
        state = self._entry["states"].get(one_id, "ACTIVE")
        if state == "ACTIVE" and self._sts.accounts[one_id].suspended:
            state = "SUSPENDED"
        record = {
            "Id": one_id,
            "Arn": self._account_arn(one_id),
            "Email": _email(one_id),
            "Name": self._members[one_id]["name"],
            "State": state,
            "JoinedMethod": "INVITED" if one_id == self._master else "CREATED",
            "JoinedTimestamp": _JOINED_AT,
        }
        if self._entry["with_status"]:
            record["Status"] = state if state in {"ACTIVE", "PENDING_CLOSURE"} else "SUSPENDED"
        if self._entry["with_paths"]:
            record["Paths"] = [self._path(self._parent_of[one_id]) + f"{one_id}/"]
        return record

    def _unit(self, unit_id: str) -> dict[str, Any]:
        arn = f"{self._arn}ou/{self._entry['id']}/{unit_id}"
        record = {"Id": unit_id, "Arn": arn, "Name": self._units[unit_id]["name"]}
        if self._entry["with_paths"]:
            record["Path"] = self._path(unit_id)
        return record

    def _path(self, node: str) -> str:
        """Return the path of a root or unit, in the form of the condition key aws:PrincipalOrgPath."""
        if node == self._root:
            return f"{self._entry['id']}/{node}/"
        return f"{self._path(self._units[node]['parent'])}{node}/"


def _page_size(arguments: Mapping[str, Any]) -> int:
    size = arguments.get("MaxResults")
    if size is None:
        return MAX_PAGE_SIZE
    if size > MAX_PAGE_SIZE:
        raise _invalid("MAX_VALUE_EXCEEDED", "You specified a value for MaxResults that is larger than 20.")
    if size < 1:
        raise _invalid("MIN_VALUE_EXCEEDED", "You specified a value for MaxResults that is smaller than 1.")
    return int(size)


def _scope(action: str, arguments: Mapping[str, Any]) -> list[str]:
    names = ("ParentId", "ChildType", "ChildId", "ResourceId", "ServicePrincipal")
    return [action, *(str(arguments.get(name, "")) for name in names)]


def _token(action: str, arguments: Mapping[str, Any], start: int, number: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([_scope(action, arguments), start, number]).encode()).decode()


def _read_token(action: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    token = arguments.get("NextToken")
    if token is None:
        return 0, 1
    try:
        scope, start, number = json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        scope, start, number = None, 0, 1
    if scope != _scope(action, arguments):
        raise _invalid("INVALID_PAGINATION_TOKEN", "You specified an invalid value for nextToken.")
    return int(start), int(number)


def _invalid(reason: str, message: str) -> AwsError:
    return AwsError("InvalidInputException", 400, f"{message} ({reason})")


def _email(account: str) -> str:
    return f"{account}@simulated.example"
