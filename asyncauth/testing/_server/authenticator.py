"""Who may pass: keys that are known in their own partition, signatures that are true and recent, tokens that live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncauth.testing._server import sigv4 as _sigv4
from asyncauth.testing._server.aws_errors import AwsError, Kind, refusal
from asyncauth.testing._server.calls import S3

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncauth.testing._server.calls import Call
    from asyncauth.testing._server.http import Request
    from asyncauth.testing._server.sts import Principal, SecurityTokenService


class Authenticator:
    """Refuses what AWS would refuse before it looks at what is asked.

    Args:
        sts: knows the keys and the accounts.
        partition_of: the partition of a region, None for a region in none.
        wall: the fleet's clock.
        max_clock_skew: seconds that a signature's date may differ from that clock; None: any.
    """

    def __init__(
        self,
        sts: SecurityTokenService,
        partition_of: Callable[[str], str | None],
        wall: Callable[[], float],
        max_clock_skew: float | None,
    ) -> None:
        self._sts = sts
        self._partition_of = partition_of
        self._wall = wall
        self._max_clock_skew = max_clock_skew

    def admit(self, call: Call, request: Request) -> None:
        """Let a call pass.

        Raises:
            AwsError: it is refused, as the service says it.
        """
        if call.problem is not None:
            raise AwsError("IncompleteSignature", 400, call.problem)
        if call.signed is None:
            if call.service == "sts" and call.action == "AssumeRoleWithWebIdentity":
                return
            raise _no("missing-signature", call)
        if call.principal is None:
            raise _no("unknown-key", call)
        self._check_signature(call, request, call.signed, call.principal)
        self._check_date(call, call.signed)
        self._check_account(call, call.principal)

    def _check_signature(self, call: Call, request: Request, signed: _sigv4.Signed, principal: Principal) -> None:
        if not signed.legacy and self._partition_of(call.region) != principal.partition:
            # A key is known in its own partition only.
            raise _no("unknown-key", call)
        if principal.token != signed.token:
            raise _no("bad-token", call)
        if not _sigv4.verify(request, signed, principal.secret):
            raise _no("bad-signature", call)
        if principal.expired(call.arrived_at):
            raise _no("expired", call)

    def _check_account(self, call: Call, principal: Principal) -> None:
        account = self._sts.accounts[principal.account]
        if account.suspended:
            raise _no("unknown-key", call)
        if call.region in account.disabled_regions:
            if call.service == "sts":
                self._sts.check_region(account, call.region)
            raise _no("region-disabled", call)

    def _check_date(self, call: Call, signed: _sigv4.Signed) -> None:
        now = self._wall()
        if signed.ends is not None:
            if now > signed.ends:
                if call.service in S3:
                    raise AwsError("AccessDenied", 403, "Request has expired")
                raise _no("bad-signature", call, "Signature expired")
        elif self._max_clock_skew is not None and abs(now - signed.made) > self._max_clock_skew:
            raise _skewed(call, signed, early=signed.made > now)


def _skewed(call: Call, signed: _sigv4.Signed, *, early: bool) -> AwsError:
    if call.service in S3:
        said = "The difference between the request time and the current time is too large."
        return AwsError("RequestTimeTooSkewed", 403, said)
    if call.protocol == "ec2":
        return _no("expired", call)
    return _no("bad-signature", call, f"Signature {'not yet current' if early else 'expired'}: {signed.date}")


def _no(kind: Kind, call: Call, message: str | None = None) -> AwsError:
    return refusal(kind, call.protocol, call.service, message)
