"""Simulated IAM Identity Center: its portal and its OIDC service, whose calls carry a token and no signature."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from asyncauth.testing._server.aws_errors import AwsError, not_implemented
from asyncauth.testing._server.http import Response
from asyncauth.testing._server.sts import Principal, role_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncauth.testing._server.calls import Call
    from asyncauth.testing._server.clock import FleetClock
    from asyncauth.testing._server.http import Request
    from asyncauth.testing._server.sts import SecurityTokenService

PORTAL: Final = "awsssoportal"
OIDC: Final = "sso-oauth"
_PORTAL_ACTIONS: Final[Mapping[str, str]] = {
    "/assignment/accounts": "ListAccounts",
    "/assignment/roles": "ListAccountRoles",
    "/federation/credentials": "GetRoleCredentials",
    "/logout": "Logout",
}
_TOKEN_HEADER: Final = "x-amz-sso_bearer_token"  # noqa: S105 - a header's name
_MAX_PAGE_SIZE: Final = 100
_REGISTRATION_SECONDS: Final = 90 * 86_400.0
_USER: Final = "fleet-operator"


@dataclass(slots=True)
class _Login:
    """Login of the user; times are on the fleet's monotonic clock, and a refresh token is accepted once."""

    partition: str
    client_id: str
    client_secret: str = field(repr=False)
    ends_at: float
    access: dict[str, float] = field(default_factory=dict, repr=False)
    refresh_token: str = field(default="", repr=False)


class IdentityCenterServer:
    """Answers to the portal's and the OIDC service's actions.

    Args:
        centers: entries of the fleet's specification by partition.
        accounts: entries of the fleet's specification, by account id.
        sts: receives the issued credentials.
        clock: the fleet's clock.
    """

    def __init__(
        self,
        centers: Mapping[str, Mapping[str, Any]],
        accounts: Mapping[str, Mapping[str, Any]],
        sts: SecurityTokenService,
        clock: FleetClock,
    ) -> None:
        self._centers = centers
        self._accounts = accounts
        self._sts = sts
        self._clock = clock
        self._logins: dict[str, _Login] = {}

    def login(self, partition: str) -> dict[str, Any]:
        """Log the user in; return the fields of the login.

        Raises:
            ValueError: the partition has no Identity Center.
        """
        center = self._centers.get(partition)
        if center is None:
            raise ValueError(f"the fleet has no Identity Center in {partition}; start it with identity_center=")
        login = _Login(
            partition, secrets.token_urlsafe(16), secrets.token_urlsafe(32),
            self._clock.monotonic() + center["session_lifetime"],
        )  # fmt: skip
        self._logins[login.client_id] = login
        access_token = self._issue(login)
        return {
            "start_url": center["start_url"],
            "region": center["region"],
            "access_token": access_token,
            "expires_at": self._clock.time() + center["token_lifetime"],
            "client_id": login.client_id,
            "client_secret": login.client_secret,
            "registration_expires_at": self._clock.time() + _REGISTRATION_SECONDS,
            "refresh_token": login.refresh_token,
        }

    def end_logins(self) -> int:
        """End all logins, as when the user logs out or the session is revoked; return their number."""
        count = len(self._logins)
        self._logins.clear()
        return count

    def identify(self, call: Call, request: Request) -> None:
        """Fill in the service, action, account and region of an unsigned call to the portal or the OIDC service."""
        if call.signed is not None:
            return
        if _TOKEN_HEADER in request.headers and request.path in _PORTAL_ACTIONS:
            call.service, call.action = PORTAL, _PORTAL_ACTIONS[request.path]
            call.account = dict(parse_qsl(request.query)).get("account_id")
            login = self._login_with(request.headers[_TOKEN_HEADER])
        elif request.path == "/token" and request.method == "POST":
            call.service, call.action = OIDC, "CreateToken"
            login = self._logins.get(str(_json(request).get("clientId")))
        else:
            return
        call.protocol = "rest-json"
        if login is not None:
            call.region = self._centers[login.partition]["region"]

    def answer(self, call: Call, request: Request) -> Response:
        """Answer a call that `identify` has recognized.

        Raises:
            AwsError: the token is not valid, the role is not the user's, or a parameter is not valid.
        """
        if call.service == OIDC:
            return _answer(self._create_token(_json(request)))
        token = request.headers[_TOKEN_HEADER]
        login = self._login_with(token)
        if login is None or self._clock.monotonic() >= login.access[token]:
            raise AwsError("UnauthorizedException", 401, "Session token not found or invalid")
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        center = self._centers[login.partition]
        if call.action == "ListAccounts":
            listed = [self._account(one) for one, roles in center["roles"].items() if roles]
            return _answer(_page("accountList", listed, query))
        if call.action == "Logout":
            del self._logins[login.client_id]
            return Response(200)
        account = query.get("account_id", "")
        roles = center["roles"].get(account, ())
        if not roles:
            raise AwsError("ForbiddenException", 403, "No access")
        if call.action == "ListAccountRoles":
            return _answer(_page("roleList", [{"roleName": one, "accountId": account} for one in roles], query))
        if query.get("role_name") not in roles or account in center["no_access"]:
            raise AwsError("ForbiddenException", 403, "No access")
        return _answer({"roleCredentials": self._credentials(login.partition, account, query["role_name"])})

    def _login_with(self, access_token: str) -> _Login | None:
        return next((login for login in self._logins.values() if access_token in login.access), None)

    def _issue(self, login: _Login) -> str:
        token = "SimulatedAccessToken//" + secrets.token_urlsafe(48)
        login.access[token] = self._clock.monotonic() + self._centers[login.partition]["token_lifetime"]
        login.refresh_token = "SimulatedRefreshToken//" + secrets.token_urlsafe(48)
        return token

    def _create_token(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        login = self._logins.get(str(arguments.get("clientId")))
        if login is None or arguments.get("clientSecret") != login.client_secret:
            raise AwsError("InvalidClientException", 401, "Invalid client")
        if arguments.get("grantType") != "refresh_token":
            raise not_implemented("sso-oidc", "CreateToken", "only the grant refresh_token is simulated")
        if arguments.get("refreshToken") != login.refresh_token or self._clock.monotonic() >= login.ends_at:
            raise AwsError("InvalidGrantException", 400, "Invalid refresh token provided")
        token = self._issue(login)
        return {
            "accessToken": token,
            "tokenType": "Bearer",
            "expiresIn": int(self._centers[login.partition]["token_lifetime"]),
            "refreshToken": login.refresh_token,
        }

    def _account(self, account: str) -> dict[str, str]:
        name = self._accounts[account]["name"]
        return {"accountId": account, "accountName": name, "emailAddress": f"{account}@simulated.example"}

    def _credentials(self, partition: str, account: str, role: str) -> dict[str, Any]:
        lifetime = self._centers[partition]["role_lifetime"]
        name = f"AWSReservedSSO_{role}_{role_id(account + role)[4:].lower()}"
        principal = Principal(
            account=account,
            partition=partition,
            arn=f"arn:{partition}:sts::{account}:assumed-role/{name}/{_USER}",
            user_id=f"{role_id(name)}:{_USER}",
            secret="SimulatedSecret//" + secrets.token_urlsafe(17),
            token="SimulatedSessionToken//" + secrets.token_urlsafe(150),
            expires_at=self._clock.monotonic() + lifetime,
            chained=True,
            role_arn=f"arn:{partition}:iam::{account}:role/aws-reserved/sso.amazonaws.com/{name}",
        )
        key = "ASIA" + role_id(secrets.token_hex(8))[4:]
        self._sts.principals[key] = principal
        return {
            "accessKeyId": key,
            "secretAccessKey": principal.secret,
            "sessionToken": principal.token,
            # In milliseconds, unlike every other expiration of AWS ("RoleCredentials" in the portal's API reference).
            "expiration": int((self._clock.time() + lifetime) * 1000),
        }


def _json(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(request.body or b"{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _answer(content: Mapping[str, Any]) -> Response:
    headers = [("Content-Type", "application/json"), ("x-amzn-RequestId", secrets.token_hex(16))]
    return Response(200, json.dumps(content).encode(), headers)


def _page(name: str, items: Sequence[Any], query: Mapping[str, str]) -> dict[str, Any]:
    size, start = query.get("max_result", str(_MAX_PAGE_SIZE)), query.get("next_token", "0")
    if not size.isascii() or not size.isdigit() or not 1 <= int(size) <= _MAX_PAGE_SIZE:
        raise AwsError("InvalidRequestException", 400, f"max_result must be from 1 to {_MAX_PAGE_SIZE}")
    if not start.isascii() or not start.isdigit():
        raise AwsError("InvalidRequestException", 400, "Invalid next_token")
    end = int(start) + int(size)
    page: dict[str, Any] = {name: list(items[int(start) : end])}
    if end < len(items):
        page["nextToken"] = str(end)
    return page
