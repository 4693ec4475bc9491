"""Authentication of calls: keys known in the partition, correct and recent signatures, tokens not expired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncauth.testing._server import sigv4
from asyncauth.testing._server.aws_errors import AwsError, Kind, refusal
from asyncauth.testing._server.calls import S3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncauth.testing._server.calls import Call
    from asyncauth.testing._server.clock import FleetClock
    from asyncauth.testing._server.http import Request
    from asyncauth.testing._server.sts import Principal, SecurityTokenService


#: Services with one endpoint in a partition, which accepts signatures for its own region alone.
_IN_THE_HOME_REGION: Final = frozenset({"organizations", "account"})
#: AWS's message, and what a client of the fleet needs: only AWS's own endpoints have the region in botocore's rules.
_WRONG_REGION: Final = (
    "Credential should be scoped to a valid region, not '{region}'. (A client with an endpoint_url needs "
    "region_name='{home}'.)"
)


class Authenticator:
    """Check of every call's signature, before its action is looked at.

    Args:
        sts: the STS, which holds the keys and the accounts.
        partition_of: returns the partition of a region, None for an unknown region.
        clock: the fleet's clock.
        max_clock_skew: seconds by which a signature's date may differ from that time; None: not checked.
        home_regions: the region of Organizations and Account Management, by partition.
    """

    def __init__(
        self,
        sts: SecurityTokenService,
        partition_of: Callable[[str], str | None],
        clock: FleetClock,
        max_clock_skew: float | None,
        home_regions: Mapping[str, str],
    ) -> None:
        self._sts = sts
        self._partition_of = partition_of
        self._clock = clock
        self._max_clock_skew = max_clock_skew
        self._home_regions = home_regions

    def authenticate(self, call: Call, request: Request) -> None:
        """Check that a call is signed by a principal that may call this region.

        Raises:
            AwsError: the call is refused; code and message are those of its service.
        """
        if call.problem is not None:
            raise AwsError("IncompleteSignature", 400, call.problem)
        if call.signed is None:
            if call.service == "sts" and call.action == "AssumeRoleWithWebIdentity":
                return
            raise _refusal("missing-signature", call)
        if call.principal is None:
            raise _refusal("unknown-key", call)
        self._check_signature(call, request, call.signed, call.principal)
        self._check_date(call, call.signed)
        self._check_account(call, call.principal)

    def _check_signature(self, call: Call, request: Request, signed: sigv4.Signed, principal: Principal) -> None:
        if not signed.is_version_2 and self._partition_of(call.region) != principal.partition:
            # AWS keeps access keys by partition: a key of another one is unknown here.
            raise _refusal("unknown-key", call)
        home = self._home_regions[principal.partition]
        if call.service in _IN_THE_HOME_REGION and call.region != home:
            raise _refusal("bad-signature", call, _WRONG_REGION.format(region=call.region, home=home))
        if principal.token != signed.token:
            raise _refusal("bad-token", call)
        if not sigv4.verify(request, signed, principal.secret):
            raise _refusal("bad-signature", call)
        if principal.is_expired(call.arrived_at):
            raise _refusal("expired", call)

    def _check_account(self, call: Call, principal: Principal) -> None:
        account = self._sts.accounts[principal.account]
        if account.suspended:
            raise _refusal("unknown-key", call)
        if call.region in account.disabled_regions:
            if call.service == "sts":
                self._sts.check_region(account, call.region)
            raise _refusal("region-disabled", call)

    def _check_date(self, call: Call, signed: sigv4.Signed) -> None:
        now = self._clock.time()
        if signed.expires_at is not None:
            if now > signed.expires_at:
                if call.service in S3:
                    raise AwsError("AccessDenied", 403, "Request has expired")
                raise _refusal("bad-signature", call, "Signature expired")
        elif self._max_clock_skew is not None and abs(now - signed.signed_at) > self._max_clock_skew:
            raise _skewed(call, signed, early=signed.signed_at > now)


def _skewed(call: Call, signed: sigv4.Signed, *, early: bool) -> AwsError:
    if call.service in S3:
        message = "The difference between the request time and the current time is too large."
        return AwsError("RequestTimeTooSkewed", 403, message)
    if call.protocol == "ec2":
        return _refusal("expired", call)
    return _refusal("bad-signature", call, f"Signature {'not yet current' if early else 'expired'}: {signed.date}")


def _refusal(kind: Kind, call: Call, message: str | None = None) -> AwsError:
    return refusal(kind, call.protocol, call.service, message)
