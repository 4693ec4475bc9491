"""What a fleet tells of itself: frozen values that a test asserts on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth._models import Account

#: By which name a service signs, as far as tests of fleets meet them daily; the rest is looked up.
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
    """Return the name by which a service's requests are signed: `cloudwatch` signs as `monitoring`.

    A name that botocore does not know, a pattern too, is returned as it is.
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
    """How often one kind of call was answered.

    Args:
        service: the name that signed, `monitoring` for CloudWatch.
        account: whose resources were asked for: the signer's, with AssumeRole the role's; "" when nobody knew.
        code: the error code it was answered with, "" for success; `Aborted` where the caller left before the answer.
    """

    service: str
    action: str
    account: str
    region: str
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What a fleet saw since it started, or since `reset_counts`.

    Args:
        records: every kind of call with its count.
        in_flight: calls that are being answered now.
        peak: the most calls that were being answered at once.
        throttled: calls that were answered with a throttling code.
        expired: calls that were signed with an expired token.
        peak_by_account: the same as `peak`, for each account.
        peak_by_action: and for each `(service, action)`.
        owners: for each account, the ARNs that signed for it (the first thousand).
    """

    records: tuple[CallCount, ...] = field(repr=False)
    in_flight: int
    peak: int
    throttled: int
    expired: int
    peak_by_account: Mapping[str, int] = field(repr=False)
    peak_by_action: Mapping[tuple[str, str], int] = field(repr=False)
    owners: Mapping[str, frozenset[str]] = field(repr=False)

    def calls(
        self,
        service: str | None = None,
        action: str | None = None,
        *,
        account: Account | str | None = None,
        region: str | None = None,
        code: str | None = None,
    ) -> int:
        """Return how many calls were answered; what is not named counts whatever it was.

        Args:
            service: boto's name or the signing name.
            action: as AWS writes it, `DescribeInstances`.
            account: an account or its id.
            region: of the endpoint.
            code: the error code it was answered with; "" counts successes only.
        """
        return sum(record.count for record in self._matching(service, action, account, region, code))

    def accounts(self, service: str | None = None, action: str | None = None, *, code: str | None = None) -> set[str]:
        """Return the ids of the accounts in which such calls were answered."""
        return {record.account for record in self._matching(service, action, None, None, code)} - {""}

    @property
    def codes(self) -> Mapping[str, int]:
        """How often each error code was answered."""
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
        number = account_id(account)
        return [
            record
            for record in self.records
            if name in {None, record.service}
            and action in {None, record.action}
            and number in {None, record.account}
            and region in {None, record.region}
            and code in {None, record.code}
        ]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Counts:
        """Read what the child counted."""
        peaks = [(tuple(key), peak) for key, peak in data["peaks"]]
        return cls(
            records=tuple(CallCount(*record) for record in data["calls"]),
            in_flight=data["in_flight"],
            peak=data["peak"],
            throttled=data["throttled"],
            expired=data["expired"],
            peak_by_account=MappingProxyType({key[1]: peak for key, peak in peaks if key[0] == "account"}),
            peak_by_action=MappingProxyType({(key[1], key[2]): peak for key, peak in peaks if key[0] == "action"}),
            owners=MappingProxyType({account: frozenset(arns) for account, arns in data["owners"].items()}),
        )


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """One AssumeRole (or AssumeRoleWithWebIdentity) as the fleet got it, answered or refused.

    Args:
        role_arn: the role asked for.
        caller: the ARN that asked.
        region: of the STS endpoint.
        code: the error code it was refused with; None when it was granted.
        access_key_id: of the credentials handed out; None when refused.
        parameters: all of the request's parameters as they came (`Policy`, `Tags.member.1.Key`, ...), without secrets:
            `TokenCode` and `WebIdentityToken` are left out.
    """

    role_arn: str
    caller: str
    region: str
    code: str | None
    access_key_id: str | None
    parameters: Mapping[str, str]

    @property
    def account(self) -> str:
        """The 12-digit id of the role's account; "" for an ARN that has none."""
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
        """`DurationSeconds`; None when it was not sent."""
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
        """`PolicyArns`, in their order."""
        return self._members("PolicyArns", ".arn")

    @property
    def tags(self) -> Mapping[str, str]:
        """`Tags`."""
        return dict(zip(self._members("Tags", ".Key"), self._members("Tags", ".Value"), strict=False))

    @property
    def transitive_tag_keys(self) -> tuple[str, ...]:
        """`TransitiveTagKeys`, in their order."""
        return self._members("TransitiveTagKeys", "")

    def _members(self, name: str, suffix: str) -> tuple[str, ...]:
        values: list[str] = []
        while (value := self.parameters.get(f"{name}.member.{len(values) + 1}{suffix}")) is not None:
            values.append(value)
        return tuple(values)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AssumedRole:
        """Read what the child recorded."""
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
    """Return the id of an account, or what stands for one."""
    return account if account is None or isinstance(account, str) else account.id
