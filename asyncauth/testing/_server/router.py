"""Router of the fleet's requests: counts each call, applies faults and limits, authenticates, and passes it on.

Calls to STS, to Organizations and about regions are answered in this process's event loop; all others go to moto,
under the account whose key signed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from asyncauth.testing._server import listings
from asyncauth.testing._server.aws_errors import THROTTLING_CODES, AwsError, refusal, render
from asyncauth.testing._server.calls import Call, identify
from asyncauth.testing._server.cloudwatch import ACTIONS as CLOUDWATCH_ACTIONS
from asyncauth.testing._server.http import Request, Response
from asyncauth.testing._server.identity_center import OIDC, PORTAL
from asyncauth.testing._server.regions import ACCOUNT_ACTIONS
from asyncauth.testing._server.signin import FEDERATION_PATH, answer_sign_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncauth.testing._server.authenticator import Authenticator
    from asyncauth.testing._server.call_recorder import CallRecorder
    from asyncauth.testing._server.clock import FleetClock
    from asyncauth.testing._server.cloudwatch import CloudWatchServer
    from asyncauth.testing._server.faults import Fault, FaultInjector
    from asyncauth.testing._server.identity_center import IdentityCenterServer
    from asyncauth.testing._server.moto_backend import Moto
    from asyncauth.testing._server.organizations import OrganizationsServer
    from asyncauth.testing._server.regions import RegionsServer
    from asyncauth.testing._server.sts import Principal, SecurityTokenService

_CODE: Final = re.compile(rb'<Code>([^<]+)</Code>|"__type":\s*"(?:[^"#]*#)?([^"]+)"')


class Router:
    """Entry point of every request to the fleet, except those to its control path.

    Args:
        sts: the fleet's STS.
        authenticator: checks signatures, tokens and regions.
        moto: the backend of all other services.
        cloudwatch: answers what moto's CloudWatch lacks.
        faults: the active faults and limits.
        recorder: counts the calls.
        regions: answers the actions about regions.
        organizations: answers AWS Organizations.
        identity_centers: answers the portal and OIDC service of IAM Identity Center.
        default_regions: the region by partition for unsigned calls.
        clock: the fleet's clock.
    """

    def __init__(
        self,
        *,
        sts: SecurityTokenService,
        authenticator: Authenticator,
        moto: Moto,
        cloudwatch: CloudWatchServer,
        faults: FaultInjector,
        recorder: CallRecorder,
        regions: RegionsServer,
        organizations: OrganizationsServer,
        identity_centers: IdentityCenterServer,
        default_regions: Mapping[str, str],
        clock: FleetClock,
    ) -> None:
        self._sts = sts
        self._authenticator = authenticator
        self._moto = moto
        self._cloudwatch = cloudwatch
        self._faults = faults
        self._recorder = recorder
        self._regions = regions
        self._organizations = organizations
        self._identity_centers = identity_centers
        self._default_regions = default_regions
        self._clock = clock

    async def answer(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == FEDERATION_PATH:
            return answer_sign_in(request, self._sts.principals, self._clock, self._recorder)
        call = identify(request, self._sts.principals, self._default_regions, self._clock.monotonic())
        self._identity_centers.identify(call, request)
        if not call.action:
            call.action = await asyncio.wrap_future(
                self._moto.run(lambda: self._moto.action(request, call.service, request.path))
            )
        number = self._recorder.begin(call.service, call.action, call.account, call.region)
        code = "Aborted"
        try:
            response = await self._answer_with_faults(call, request)
            code = response.code
            return response
        finally:
            self._recorder.end(number, code, throttled=code in THROTTLING_CODES)

    async def _answer_with_faults(self, call: Call, request: Request) -> Response:
        if call.principal is not None:
            self._recorder.owner(call.principal.account, call.principal.arn)
            self._recorder.expired += call.principal.is_expired(call.arrived_at)
            self._recorder.expired_early += call.principal.is_expired_early(call.arrived_at)
            signed_at = self._clock.monotonic_at(call.signed.signed_at) if call.signed else None
            self._recorder.expired_in_transit += call.principal.ended_in_transit(signed_at, call.arrived_at)
        fault = self._faults.match(call.service, call.action, call.account, call.region)
        if fault is not None and fault.kind == "reset":
            return Response(code="Reset", reset=True)
        try:
            if fault is not None:
                await _apply_fault(fault, call, self._clock)
            response = await self._answer_without_faults(call, request)
        except AwsError as error:
            target = request.headers.get("x-amz-target", "")
            response = render(error, call.protocol, secrets.token_hex(16), method=request.method, target=target)
        if fault is not None and fault.kind == "drip":
            response.drip_seconds = fault.seconds
        response.truncate = fault is not None and fault.kind == "truncate"
        return response

    async def _answer_without_faults(self, call: Call, request: Request) -> Response:
        if self._faults.throttles(call.service, call.action, call.caller, call.account, call.region):
            raise refusal("throttled", call.protocol, call.service)
        if call.signed is None and call.service in {PORTAL, OIDC}:
            return self._identity_centers.answer(call, request)
        self._authenticator.authenticate(call, request)
        if call.service == "sts":
            return self._sts.answer(call.action, call.principal, call.form, call.region)
        assert call.principal is not None
        self._check_control_policy(call, call.principal)
        if call.service == "ec2" and call.action == "DescribeRegions":
            return self._regions.describe_regions(call.principal, call.form)
        if call.service == "account" and call.action in ACCOUNT_ACTIONS.values():
            return self._regions.account_management(call.action, call.principal, request.body)
        if call.service == "organizations":
            return self._organizations.answer(call.action, call.principal, request.body)
        # CBOR is moto's: no botocore uses it with CloudWatch.
        if call.service == "monitoring" and call.action in CLOUDWATCH_ACTIONS and call.protocol != "cbor":
            return await self._call_cloudwatch(call, request, call.principal)
        return await self._call_moto(call, request, call.principal)

    def _check_control_policy(self, call: Call, caller: Principal) -> None:
        action = f"{call.service}:{call.action}"
        if any(fnmatchcase(action, pattern) for pattern in self._sts.accounts[caller.account].scp_denied):
            message = (
                f"User: {caller.arn} is not authorized to perform: {action} "
                "with an explicit deny in a service control policy"
            )
            raise refusal("denied", call.protocol, call.service, message)

    async def _call_cloudwatch(self, call: Call, request: Request, caller: Principal) -> Response:
        def answer() -> Response:
            return self._cloudwatch.answer(call.action, caller.account, call.region, request, call.form)

        response: Response = await asyncio.wrap_future(self._moto.run_prepared(answer))
        return response

    async def _call_moto(self, call: Call, request: Request, caller: Principal) -> Response:
        key = call.signed.access_key_id if call.signed else ""
        response: Response = await asyncio.wrap_future(
            self._moto.run(
                lambda: self._moto.call(
                    listings.whole_request(call.service, call.action, request),
                    service=call.service,
                    action=call.action,
                    account=caller.account,
                    region=call.region,
                    key=key,
                    protocol=call.protocol,
                )
            )
        )
        if response.status >= 400:
            response.code = _code_in(response)
        return listings.page(call.service, call.action, request, response)


async def _apply_fault(fault: Fault, call: Call, clock: FleetClock) -> None:
    """Delay, hold or fail a call, depending on the fault's kind.

    Raises:
        AwsError: the error of an `error` or `throttle` fault.
    """
    if fault.kind == "hang":
        await fault.released.wait()
    elif fault.kind == "delay":
        await clock.sleep(fault.seconds)
    elif fault.kind in {"error", "throttle"}:
        usual = refusal("throttled" if fault.kind == "throttle" else "denied", call.protocol, call.service)
        has_own_code = fault.code not in {None, usual.code}
        raise AwsError(
            fault.code or usual.code,
            fault.status or (400 if has_own_code else usual.status),
            fault.message or ("simulated" if has_own_code else usual.message),
            fault.headers,
        )


def _code_in(response: Response) -> str:
    """Return the error code in an answer of moto; without one, the HTTP status."""
    found = _CODE.search(response.body)
    if found is not None:
        return (found.group(1) or found.group(2)).decode("utf-8", "replace")
    named = [value for name, value in response.headers if name.lower() == "x-amzn-errortype"]
    return named[0].partition(":")[0] if named else str(response.status)
