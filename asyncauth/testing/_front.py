"""The fleet's front door: finds out who asks for what, lets go wrong what shall, refuses what AWS would, and passes on.

STS is answered here; everything else goes to moto, under the account whose key signed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from asyncauth.testing import _sigv4
from asyncauth.testing._errors_aws import THROTTLING_CODES, AwsError, Protocol, refusal, render
from asyncauth.testing._http import Request, Response
from asyncauth.testing._regions_server import ACCOUNT_ACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth.testing._faults import Fault, Weather
    from asyncauth.testing._moto import Moto
    from asyncauth.testing._regions_server import RegionsServer
    from asyncauth.testing._seen import Seen
    from asyncauth.testing._sts_server import Principal, SecurityTokenService

_REST_XML: Final = frozenset({"route53", "cloudfront"})
_S3: Final = frozenset({"s3", "s3express"})
_CODE: Final = re.compile(rb'<Code>([^<]+)</Code>|"__type":\s*"(?:[^"#]*#)?([^"]+)"')
_ASSUME: Final = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity"})


@dataclass(slots=True)
class Call:
    """What a request turned out to be.

    `account` is whose resources are meant: the signer's, except for AssumeRole, where it is the role's. `caller` is
    the signer's.
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

    @property
    def caller(self) -> str:
        return self.principal.account if self.principal else ""


class Front:
    """Answers every request to the fleet that is not for its own control.

    Args:
        partition_of: the partition of a region, None for a region in none.
        wall: the fleet's clock.
        max_clock_skew: seconds that a signature's date may differ from that clock; None: any.
    """

    def __init__(
        self,
        *,
        sts: SecurityTokenService,
        moto: Moto,
        weather: Weather,
        seen: Seen,
        regions: RegionsServer,
        partition_of: Callable[[str], str | None],
        default_regions: Mapping[str, str],
        wall: Callable[[], float],
        max_clock_skew: float | None,
    ) -> None:
        self._sts = sts
        self._moto = moto
        self._weather = weather
        self._seen = seen
        self._regions = regions
        self._partition_of = partition_of
        self._default_regions = default_regions
        self._wall = wall
        self._max_clock_skew = max_clock_skew
        self._actions: dict[tuple[str, str, str], str] = {}

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        call = self._identify(request)
        if not call.action:
            call.action = await asyncio.wrap_future(
                self._moto.run(lambda: self._moto.action(request, call.service, request.path))
            )
        number = self._seen.begin(call.service, call.action, call.account, call.region)
        code = "Aborted"
        try:
            try:
                response = await self._through_the_weather(call, request)
            except AwsError as error:
                response = self._say_no(error, call, request)
            code = response.code
            return response
        finally:
            self._seen.end(number, code, throttled=code in THROTTLING_CODES)

    async def _through_the_weather(self, call: Call, request: Request) -> Response:
        if call.principal is not None:
            self._seen.owner(call.principal.account, call.principal.arn)
            if call.principal.expired(time.monotonic()):
                self._seen.expired += 1
        fault = self._weather.strikes(call.service, call.action, call.account, call.region)
        if fault is not None:
            spoiled = await self._spoil(fault, call)
            if spoiled is not None:
                return spoiled
        if self._weather.throttles(call.service, call.action, call.caller, call.account, call.region):
            raise refusal("throttled", call.protocol, call.service)
        self._authenticate(call, request)
        try:
            response = await self._dispatch(call, request)
        except AwsError as error:
            response = self._say_no(error, call, request)
        if fault is not None and fault.kind == "drip":
            response.drip_seconds = fault.seconds
        elif fault is not None and fault.kind == "truncate":
            response.truncate = True
        return response

    async def _spoil(self, fault: Fault, call: Call) -> Response | None:
        """Do to a call what the fault says; None lets it go on."""
        if fault.kind == "hang":
            await fault.released.wait()
        elif fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "reset":
            return Response(code="Reset", reset=True)
        elif fault.kind in {"error", "throttle"}:
            usual = refusal("throttled" if fault.kind == "throttle" else "denied", call.protocol, call.service)
            raise AwsError(
                fault.code or usual.code,
                fault.status or (usual.status if fault.code in {None, usual.code} else 400),
                fault.message or (usual.message if fault.code in {None, usual.code} else "simulated"),
                fault.headers,
            )
        return None

    def _say_no(self, error: AwsError, call: Call, request: Request) -> Response:
        target = request.headers.get("x-amz-target", "")
        return render(error, call.protocol, secrets.token_hex(16), method=request.method, target=target)

    def _identify(self, request: Request) -> Call:
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
            region = self._default_regions.get(_partition_in(form.get("RoleArn", "")), "us-east-1")
        protocol = _protocol(request, service, action, target)
        if protocol == "json":
            action = target.rpartition(".")[2]
        elif protocol == "cbor":
            action = request.path.rpartition("/")[2]
        elif service == "account":
            action = ACCOUNT_ACTIONS.get(request.path, "")
        principal = self._sts.principals.get(signed.access_key_id) if signed else None
        account = principal.account if principal else None
        if service == "sts" and action in _ASSUME:
            account = _account_in(form.get("RoleArn", "")) or account
        return Call(service, action, region, protocol, signed, principal, account, form, problem)

    def _authenticate(self, call: Call, request: Request) -> None:
        """Let pass who can prove to be who they say, in their own partition, in time.

        Raises:
            AwsError: as the service says it.
        """

        def no(kind: Any, message: str | None = None) -> AwsError:
            return refusal(kind, call.protocol, call.service, message)

        signed, principal = call.signed, call.principal
        if call.problem is not None:
            raise AwsError("IncompleteSignature", 400, call.problem)
        if signed is None:
            if call.service == "sts" and call.action == "AssumeRoleWithWebIdentity":
                return
            raise no("missing-signature")
        if principal is None:
            raise no("unknown-key")
        if not signed.legacy and self._partition_of(call.region) != principal.partition:
            # A key is known in its own partition only.
            raise no("unknown-key")
        if principal.token != signed.token:
            raise no("bad-token")
        if not _sigv4.verify(request, signed, principal.secret):
            raise no("bad-signature")
        if principal.expired(time.monotonic()):
            raise no("expired")
        self._check_date(call, signed)
        state = self._sts.accounts.get(principal.account)
        if state is None:
            return
        if state.suspended:
            raise no("unknown-key")
        if call.region in state.disabled_regions:
            if call.service == "sts":
                self._sts.check_region(state, call.region)
            raise no("region-disabled")

    def _check_date(self, call: Call, signed: _sigv4.Signed) -> None:
        if signed.legacy:
            if signed.expires is not None and self._wall() > signed.expires:
                raise AwsError("AccessDenied", 403, "Request has expired")
            return
        try:
            made = _read_date(signed.date)
        except ValueError:
            raise AwsError("IncompleteSignature", 400, "Date must be in ISO-8601 'basic format'") from None
        now = self._wall()
        if signed.presigned and signed.expires is not None and now > made + signed.expires:
            if call.service in _S3:
                raise AwsError("AccessDenied", 403, "Request has expired")
            raise refusal("bad-signature", call.protocol, call.service, "Signature expired")
        if self._max_clock_skew is not None and not signed.presigned and abs(now - made) > self._max_clock_skew:
            if call.service in _S3:
                raise AwsError(
                    "RequestTimeTooSkewed",
                    403,
                    "The difference between the request time and the current time is too large.",
                )
            if call.protocol == "ec2":
                raise refusal("expired", call.protocol, call.service)
            early = "not yet current" if made > now else "expired"
            raise refusal("bad-signature", call.protocol, call.service, f"Signature {early}: {signed.date}")

    async def _dispatch(self, call: Call, request: Request) -> Response:
        if call.service == "sts":
            return self._sts.answer(call.action, call.principal, call.form, call.region)
        principal, signed = call.principal, call.signed
        assert principal is not None
        assert signed is not None
        if call.service == "ec2" and call.action == "DescribeRegions":
            return self._regions.describe_regions(principal, call.form)
        if call.service == "account" and call.action in ACCOUNT_ACTIONS.values():
            return self._regions.account_management(call.action, principal, request.body)
        member = principal.account not in self._sts.management_accounts
        if call.service == "organizations" and call.action != "DescribeOrganization" and member:
            # moto answers members too; AWS answers the management account (delegated administrators aside).
            message = "You don't have permissions to access this resource."
            raise refusal("denied", call.protocol, call.service, message)
        region = call.region
        response: Response = await asyncio.wrap_future(
            self._moto.run(
                lambda: self._moto.call(
                    request,
                    service=call.service,
                    action=call.action,
                    account=principal.account,
                    region=region,
                    key=signed.access_key_id,
                    protocol=call.protocol,
                )
            )
        )
        if response.status >= 400:
            response.code = _code_in(response)
        return response


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
    if service in _S3:
        return "rest-xml" if request.path.startswith("/v20180820/") else "s3"
    return "rest-xml" if service in _REST_XML else "rest-json"


def _unsigned_service(action: str, target: str) -> str:
    if action.startswith("AssumeRoleWith"):
        return "sts"
    if target.startswith("AWSCognitoIdentity"):
        return "cognito-identity" if target.startswith("AWSCognitoIdentityService") else "cognito-idp"
    return "unknown" if action or target else "s3"


def _code_in(response: Response) -> str:
    """Return the error code that an answer of moto's carries, or its status where there is none."""
    found = _CODE.search(response.body)
    if found is not None:
        return (found.group(1) or found.group(2)).decode("utf-8", "replace")
    named = [value for name, value in response.headers if name.lower() == "x-amzn-errortype"]
    return named[0].partition(":")[0] if named else str(response.status)


def _account_in(arn: str) -> str | None:
    parts = arn.split(":")
    return parts[4] if len(parts) > 5 and len(parts[4]) == 12 else None


def _partition_in(arn: str) -> str:
    return arn.split(":")[1] if arn.startswith("arn:") else "aws"


def _read_date(text: str) -> float:
    return float(time.mktime(time.strptime(text, "%Y%m%dT%H%M%SZ"))) - time.timezone
