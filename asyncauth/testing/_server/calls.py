"""Identification of a request: its service, action, protocol, region, and the principal that it claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from asyncauth.testing._server import sigv4
from asyncauth.testing._server.regions import ACCOUNT_ACTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.testing._server.aws_errors import Protocol
    from asyncauth.testing._server.http import Request
    from asyncauth.testing._server.sts import Principal

S3: Final = frozenset({"s3", "s3express"})
_REST_XML: Final = frozenset({"route53", "cloudfront"})
_ASSUME: Final = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity"})


@dataclass(slots=True)
class Call:
    """Identified call.

    `account` is the account of the signer, for AssumeRole that of the role. `principal` is the owner of the key in the
    signature, which is not verified yet. `problem` is the reason why a signature cannot be read. `action` is empty for
    a REST service, whose operation depends on the path. `arrived_at` is on the fleet's monotonic clock: the answer and
    the count of expired tokens must use the same time.
    """

    service: str
    action: str
    region: str
    protocol: Protocol
    signed: sigv4.Signed | None
    principal: Principal | None
    account: str | None
    form: Mapping[str, str]
    problem: str | None
    arrived_at: float

    @property
    def caller(self) -> str:
        """Account of the signing key; "" if unknown."""
        return self.principal.account if self.principal else ""


def identify(
    request: Request, principals: Mapping[str, Principal], default_regions: Mapping[str, str], arrived_at: float
) -> Call:
    """Return the call that a request makes.

    Args:
        request: the received request.
        principals: the issued keys, by access key id.
        default_regions: the region by partition for unsigned calls, which do not name one.
        arrived_at: the fleet's monotonic clock now.
    """
    problem: str | None = None
    signed: sigv4.Signed | None = None
    try:
        signed = sigv4.read(request)
    except sigv4.Malformed as error:
        problem = str(error)
    form = _form(request)
    action = form.get("Action", "")
    target = request.headers.get("x-amz-target", "")
    service = signed.service.lower() if signed else _unsigned_service(action, target)
    region = signed.region if signed else ""
    if not region:
        # The only hint to the region of an unsigned call is the partition of its role.
        region = default_regions.get(_partition_in(form.get("RoleArn", "")), "us-east-1")
    protocol = _protocol(request, service, action, target)
    if protocol == "json":
        action = target.rpartition(".")[2]
    elif protocol == "cbor":
        action = request.path.rpartition("/")[2]
    elif service == "account":
        action = ACCOUNT_ACTIONS.get(request.path, "")
    principal = principals.get(signed.access_key_id) if signed else None
    account = principal.account if principal else None
    if service == "sts" and action in _ASSUME:
        account = _account_in(form.get("RoleArn", "")) or account
    return Call(service, action, region, protocol, signed, principal, account, form, problem, arrived_at)


def _form(request: Request) -> dict[str, str]:
    """Return the parameters of the query and ec2 protocols, from the body or, if presigned, from the URL."""
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded") and request.body:
        return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    if "Action=" in request.query:
        return dict(parse_qsl(request.query, keep_blank_values=True))
    return {}


def _protocol(request: Request, service: str, action: str, target: str) -> Protocol:
    if request.headers.get("smithy-protocol", "").startswith("rpc-v2-cbor"):
        return "cbor"
    if target:
        return "json"
    if action:
        return "ec2" if service == "ec2" else "query"
    if service in S3:
        return "rest-xml" if request.path.startswith("/v20180820/") else "s3"
    return "rest-xml" if service in _REST_XML else "rest-json"


def _unsigned_service(action: str, target: str) -> str:
    if action.startswith("AssumeRoleWith"):
        return "sts"
    if target.startswith("AWSCognitoIdentity"):
        return "cognito-identity" if target.startswith("AWSCognitoIdentityService") else "cognito-idp"
    return "unknown" if action or target else "s3"


def _account_in(arn: str) -> str | None:
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 and len(parts[4]) == 12 else None


def _partition_in(arn: str) -> str:
    return arn.split(":")[1] if arn.startswith("arn:") else "aws"
