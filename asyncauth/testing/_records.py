"""Records of the calls that a fleet received: frozen values for assertions of a test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth._models import Account

#: Signing names of the services that tests use most; all others are read from botocore's models, which is slow.
_SIGNING_NAMES: Final = {
    "cloudwatch": "monitoring",
    **{
        name: name
        for name in (
            "account",
            "dynamodb",
            "ec2",
            "iam",
            "lambda",
            "organizations",
            "s3",
            "secretsmanager",
            "sqs",
            "sts",
        )
    },
}


@lru_cache(maxsize=256)
def signing_name(service: str) -> str:
    """Return the name with which a service's requests are signed: `monitoring` for `cloudwatch`.

    A name that botocore does not know, such as a shell pattern, is returned unchanged.
    """
    if service in _SIGNING_NAMES:
        return _SIGNING_NAMES[service]
    from botocore.exceptions import DataNotFoundError, UnknownServiceError
    from botocore.loaders import create_loader

    try:
        metadata = create_loader().load_service_model(service, "service-2")["metadata"]
    except (DataNotFoundError, UnknownServiceError):
        return service
    name: str = metadata.get("signingName") or metadata["endpointPrefix"]
    return name


@dataclass(frozen=True, slots=True)
class CallCount:
    """Number of answered calls of one kind.

    Args:
        service: the signing name, `monitoring` for CloudWatch.
        account: the account of the role for AssumeRole, else the account of the signer; "" if unknown.
        code: the error code of the answer; "" for success; `Aborted` if the caller closed the connection first.
    """

    service: str
    action: str
    account: str
    region: str
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of the calls that a fleet received since it started, or since `reset_counts`.

    Args:
        records: every kind of call with its count.
        in_flight: calls received and not answered yet.
        peak: the highest number of calls in flight at once.
        throttled: calls answered with a throttling code.
        expired: calls signed with an expired token, whatever ended it.
        expired_early: those of them whose token `expire_tokens` had ended before its own lifetime was over.
        expired_in_transit: those of them whose token ended between the signature and the arrival: the process that
            signed, or the network, stood still meanwhile.
        peak_by_account: `peak` for each account.
        peak_by_action: `peak` for each `(service, action)`.
        owners: for each account, the ARNs that signed for it (the first 1,000).
        billed_metrics: metrics that GetMetricData calls requested, as AWS charges them: one for each metric of a call
            and five of its statistics.
        data_points: values that GetMetricData returned.
    """

    records: tuple[CallCount, ...] = field(repr=False)
    in_flight: int
    peak: int
    throttled: int
    expired: int
    expired_early: int
    expired_in_transit: int
    peak_by_account: Mapping[str, int] = field(repr=False)
    peak_by_action: Mapping[tuple[str, str], int] = field(repr=False)
    owners: Mapping[str, frozenset[str]] = field(repr=False)
    billed_metrics: int
    data_points: int

    def calls(
        self,
        service: str | None = None,
        action: str | None = None,
        *,
        account: Account | str | None = None,
        region: str | None = None,
        code: str | None = None,
    ) -> int:
        """Return the number of answered calls that match all given values; None matches any.

        Args:
            service: botocore's service name or the signing name.
            action: the operation name of AWS, such as `DescribeInstances`.
            account: an account or its id.
            region: the region of the endpoint.
            code: the error code of the answer; "" counts successes only.
        """
        return sum(record.count for record in self._matching(service, action, account, region, code))

    def accounts(self, service: str | None = None, action: str | None = None, *, code: str | None = None) -> set[str]:
        """Return the ids of the accounts in which such calls were answered."""
        return {record.account for record in self._matching(service, action, None, None, code)} - {""}

    @property
    def codes(self) -> Mapping[str, int]:
        """Number of answers with each error code."""
        codes: Counter[str] = Counter()
        for record in self.records:
            if record.code:
                codes[record.code] += record.count
        return MappingProxyType(dict(codes))

    def _matching(
        self,
        service: str | None,
        action: str | None,
        account: Account | str | None,
        region: str | None,
        code: str | None,
    ) -> list[CallCount]:
        name = None if service is None else signing_name(service)
        wanted = account_id(account)
        return [
            record
            for record in self.records
            if name in {None, record.service}
            and action in {None, record.action}
            and wanted in {None, record.account}
            and region in {None, record.region}
            and code in {None, record.code}
        ]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Counts:
        """Return the counts that the child sent."""
        peaks = [(tuple(key), peak) for key, peak in data["peaks"]]
        return cls(
            records=tuple(CallCount(*record) for record in data["calls"]),
            in_flight=data["in_flight"],
            peak=data["peak"],
            throttled=data["throttled"],
            expired=data["expired"],
            expired_early=data["expired_early"],
            expired_in_transit=data["expired_in_transit"],
            peak_by_account=MappingProxyType({key[1]: peak for key, peak in peaks if key[0] == "account"}),
            peak_by_action=MappingProxyType({(key[1], key[2]): peak for key, peak in peaks if key[0] == "action"}),
            owners=MappingProxyType({account: frozenset(arns) for account, arns in data["owners"].items()}),
            billed_metrics=data["billed_metrics"],
            data_points=data["data_points"],
        )


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """AssumeRole or AssumeRoleWithWebIdentity call that the fleet received, granted or refused.

    Args:
        role_arn: the requested role.
        caller: the ARN of the caller.
        region: the region of the STS endpoint.
        code: the error code of the refusal; None if granted.
        access_key_id: the key id of the issued credentials; None if refused.
        parameters: the request's parameters as received (`Policy`, `Tags.member.1.Key`, ...) without the secret ones,
            `TokenCode` and `WebIdentityToken`.
    """

    role_arn: str
    caller: str
    region: str
    code: str | None
    access_key_id: str | None
    parameters: Mapping[str, str]

    @property
    def account(self) -> str:
        """12-digit id of the role's account; "" for an ARN without an account."""
        parts = self.role_arn.split(":")
        return parts[4] if len(parts) > 4 else ""

    @property
    def role_session_name(self) -> str | None:
        """`RoleSessionName`."""
        return self.parameters.get("RoleSessionName")

    @property
    def external_id(self) -> str | None:
        """`ExternalId`."""
        return self.parameters.get("ExternalId")

    @property
    def duration_seconds(self) -> int | None:
        """`DurationSeconds`; None if it was not sent."""
        text = self.parameters.get("DurationSeconds")
        return None if text is None else int(text)

    @property
    def source_identity(self) -> str | None:
        """`SourceIdentity`."""
        return self.parameters.get("SourceIdentity")

    @property
    def policy(self) -> str | None:
        """`Policy`."""
        return self.parameters.get("Policy")

    @property
    def policy_arns(self) -> tuple[str, ...]:
        """`PolicyArns`, in the order sent."""
        return self._members("PolicyArns", ".arn")

    @property
    def tags(self) -> Mapping[str, str]:
        """`Tags`."""
        return dict(zip(self._members("Tags", ".Key"), self._members("Tags", ".Value"), strict=False))

    @property
    def transitive_tag_keys(self) -> tuple[str, ...]:
        """`TransitiveTagKeys`, in the order sent."""
        return self._members("TransitiveTagKeys", "")

    def _members(self, name: str, suffix: str) -> tuple[str, ...]:
        values: list[str] = []
        while (value := self.parameters.get(f"{name}.member.{len(values) + 1}{suffix}")) is not None:
            values.append(value)
        return tuple(values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AssumedRole:
        """Return the record that the child sent."""
        form = {name: value for name, value in data["form"].items() if name not in {"TokenCode", "WebIdentityToken"}}
        return cls(
            role_arn=form.get("RoleArn", ""),
            caller=data["caller"],
            region=data["region"],
            code=data["code"],
            access_key_id=data["access_key_id"],
            parameters=MappingProxyType(form),
        )


def account_id(account: Account | str | None) -> str | None:
    """Return the id of an account; a string (an id or a pattern) and None are returned unchanged."""
    return account if account is None or isinstance(account, str) else account.id
