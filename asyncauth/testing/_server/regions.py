"""Regions of an account: EC2's DescribeRegions and Account Management's actions, answered by the fleet.

moto lists the regions of all partitions together, and has no regions that are not enabled.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Final

from asyncauth.testing._server.aws_errors import AwsError
from asyncauth.testing._server.http import Response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncauth.testing._server.sts import AccountState, Principal, SecurityTokenService

_EC2_NAMESPACE: Final = "http://ec2.amazonaws.com/doc/2016-11-15/"
#: EC2's `OptInStatus` for each `RegionOptStatus`; EC2 has no state for a change that is under way.
_OPT_IN_STATUS: Final[Mapping[str, str]] = {
    "ENABLED": "opted-in",
    "ENABLED_BY_DEFAULT": "opt-in-not-required",
    "ENABLING": "not-opted-in",
    "DISABLING": "not-opted-in",
    "DISABLED": "not-opted-in",
}
_MAX_PAGE_SIZE: Final = 50
#: Account Management's operations by path ("Account Management API reference").
ACCOUNT_ACTIONS: Final[Mapping[str, str]] = {
    "/listRegions": "ListRegions",
    "/getRegionOptStatus": "GetRegionOptStatus",
    "/enableRegion": "EnableRegion",
    "/disableRegion": "DisableRegion",
}


@dataclass(slots=True)
class Regions:
    """Regions of all partitions.

    Args:
        by_partition: all region names, by partition.
        suffixes: the DNS suffix of each partition.
        opt_in: the opt-in regions, which an account must enable.
    """

    by_partition: Mapping[str, Sequence[str]]
    suffixes: Mapping[str, str]
    opt_in: frozenset[str]
    _partitions: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self._partitions = {region: name for name, regions in self.by_partition.items() for region in regions}

    def partition_of(self, region: str) -> str | None:
        """Return the partition of a region; None for an unknown region."""
        return self._partitions.get(region)

    def status(self, account: AccountState, region: str) -> str:
        """Return the `RegionOptStatus` of a region in an account."""
        if region in account.region_states:
            return account.region_states[region]
        if region in account.disabled_regions:
            return "DISABLED"
        return "ENABLED" if region in self.opt_in else "ENABLED_BY_DEFAULT"


class RegionsServer:
    """Answers to the actions about regions."""

    def __init__(self, regions: Regions, sts: SecurityTokenService) -> None:
        self._regions = regions
        self._sts = sts

    def describe_regions(self, caller: Principal, form: Mapping[str, str]) -> Response:
        """Answer EC2's DescribeRegions.

        Raises:
            AwsError: a named region does not exist in the caller's partition.
        """
        account = self._sts.accounts[caller.account]
        names = _numbered(form, "RegionName")
        known = self._regions.by_partition[caller.partition]
        if unknown := [name for name in names if name not in known]:
            raise AwsError("InvalidParameterValue", 400, f"Invalid region id(s): [{', '.join(unknown)}]")
        all_regions = form.get("AllRegions", "false").lower() == "true"
        items = []
        for region in known:
            status = _OPT_IN_STATUS[self._regions.status(account, region)]
            endpoint = f"ec2.{region}.{self._regions.suffixes[caller.partition]}"
            facts = {"region-name": region, "opt-in-status": status, "endpoint": endpoint}
            listed = all_regions or bool(names) or status != "not-opted-in"
            if listed and (not names or region in names) and _passes_filters(form, facts):
                items.append(
                    f"<item><regionName>{region}</regionName><regionEndpoint>{escape(endpoint)}</regionEndpoint>"
                    f"<optInStatus>{status}</optInStatus></item>"
                )
        body = (
            f'<DescribeRegionsResponse xmlns="{_EC2_NAMESPACE}"><requestId>{secrets.token_hex(16)}</requestId>'
            f"<regionInfo>{''.join(items)}</regionInfo></DescribeRegionsResponse>"
        )
        return Response(200, body.encode(), [("Content-Type", "text/xml")])

    def account_management(self, action: str, caller: Principal, body: bytes) -> Response:
        """Answer Account Management; the management account may name another account of its partition.

        Raises:
            AwsError: another account named by a member account, an unknown region, or a body that is not JSON.
        """
        try:
            arguments: dict[str, Any] = json.loads(body or b"{}")
        except ValueError:
            raise AwsError("ValidationException", 400, "The request body is not JSON") from None
        account = self._account(action, caller, arguments.get("AccountId"))
        if action == "ListRegions":
            return _json(self._list_regions(account, arguments))
        region = arguments.get("RegionName", "")
        if self._regions.partition_of(region) != account.partition:
            raise AwsError("ValidationException", 400, f"{region} is not a region of this partition")
        if action == "GetRegionOptStatus":
            return _json({"RegionName": region, "RegionOptStatus": self._regions.status(account, region)})
        disabled = account.disabled_regions
        account.region_states.pop(region, None)
        account.disabled_regions = disabled - {region} if action == "EnableRegion" else disabled | {region}
        return _json({})

    def _account(self, action: str, caller: Principal, wanted: str | None) -> AccountState:
        if wanted == caller.account and caller.account in self._sts.management_accounts:
            # "The management account can't specify its own AccountId" (Account Management API reference).
            raise AwsError("AccessDeniedException", 403, "The management account cannot specify its own AccountId")
        if wanted is None or wanted == caller.account:
            return self._sts.accounts[caller.account]
        account = self._sts.accounts.get(wanted)
        if (
            account is None
            or account.partition != caller.partition
            or caller.account not in self._sts.management_accounts
        ):
            raise AwsError(
                "AccessDeniedException", 403, f"User: {caller.arn} is not authorized to perform: account:{action}"
            )
        return account

    def _list_regions(self, account: AccountState, arguments: Mapping[str, Any]) -> dict[str, Any]:
        contains = arguments.get("RegionOptStatusContains") or ()
        states = {
            region: self._regions.status(account, region) for region in self._regions.by_partition[account.partition]
        }
        entries = [
            {"RegionName": region, "RegionOptStatus": status}
            for region, status in states.items()
            if not contains or status in contains
        ]
        start = int(arguments.get("NextToken") or 0)
        size = int(arguments.get("MaxResults", _MAX_PAGE_SIZE))
        if not 1 <= size <= _MAX_PAGE_SIZE:
            raise AwsError("ValidationException", 400, f"MaxResults must be from 1 to {_MAX_PAGE_SIZE}, got {size}")
        page: dict[str, Any] = {"Regions": entries[start : start + size]}
        if start + size < len(entries):
            page["NextToken"] = str(start + size)
        return page


def _json(content: Mapping[str, Any]) -> Response:
    headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", secrets.token_hex(16))]
    return Response(200, json.dumps(content).encode(), headers)


def _numbered(form: Mapping[str, str], name: str) -> list[str]:
    values: list[str] = []
    while (value := form.get(f"{name}.{len(values) + 1}")) is not None:
        values.append(value)
    return values


def _passes_filters(form: Mapping[str, str], facts: Mapping[str, str]) -> bool:
    number = 1
    while (name := form.get(f"Filter.{number}.Name")) is not None:
        if facts.get(name) not in _numbered(form, f"Filter.{number}.Value"):
            return False
        number += 1
    return True
