"""What a request turns out to be: which service, action and protocol, where, and who says to be asking."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from asyncauth.testing._server import sigv4 as _sigv4
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
    """One call.

    `account` is whose resources are meant: the signer's, except for AssumeRole, where it is the role's. `principal` is
    whose key signed, which is not proven yet. `problem` says why a signature cannot be read. `action` is empty for a
    REST service, whose operation is known by its path.
    """

    service: str
    action: str
    region: str
    protocol: Protocol
    signed: _sigv4.Signed | None
    principal: Principal | None
    account: str | None
    form: Mapping[str, str]
    problem: str | None = None
    #: On the monotonic clock: by when a token is judged, for the answer and for the count alike.
    arrived_at: float = field(default_factory=time.monotonic)

    @property
    def caller(self) -> str:
        """The account whose key signed; "" where that is unknown."""
        return self.principal.account if self.principal else ""


def identify(request: Request, principals: Mapping[str, Principal], default_regions: Mapping[str, str]) -> Call:
    """Read what a request is.

    Args:
        request: as it came.
        principals: the keys handed out, by access key id.
        default_regions: by partition, for calls that name no region because nothing signed them.
    """
    problem: str | None = None
    signed: _sigv4.Signed | None = None
    try:
        signed = _sigv4.read(request)
    except _sigv4.Malformed as error:
        problem = str(error)
    form = _form(request)
    action = form.get("Action", "")
    target = request.headers.get("x-amz-target", "")
    service = signed.service.lower() if signed else _unsigned_service(action, target)
    region = signed.region if signed else ""
    if not region:
        # Nothing but the role's partition says where an unsigned call was sent.
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
    return Call(service, action, region, protocol, signed, principal, account, form, problem)


def _form(request: Request) -> dict[str, str]:
    """Return the parameters of the query and ec2 protocols, from the body or, when presigned, from the URL."""
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
