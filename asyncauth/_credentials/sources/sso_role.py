"""Roles of IAM Identity Center: credentials from the portal, at its rate, through one login for all of them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._aws.clock_offset import response_date
from asyncauth._aws.error_codes import THROTTLED, error_code
from asyncauth._credentials.sources.errors import ErrorContext, explain
from asyncauth._credentials.sources.explicit import ExplicitOrigin
from asyncauth._credentials.sources.sso_login import SsoLogin, open_login
from asyncauth._errors import AsyncAuthError, RateLimited, SourceError
from asyncauth._models import Credentials, SsoRole
from asyncauth._runtime.exceptions import strip_frame_locals

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from types import TracebackType
    from typing import Self

    from aiobotocore.session import AioSession

    from asyncauth._credentials.sources.configuration import SourceRequest
    from asyncauth._credentials.sources.source import Loaded
    from asyncauth._runtime.clock import Clock


class PortalPermit(Protocol):
    """Turn of one request at the portal; entering waits for it."""

    async def __aenter__(self) -> Self:
        """Wait for the turn."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        """End the turn."""
        ...

    def answered(self, *, throttled: bool) -> None:
        """Report what came back."""
        ...

    def unused(self) -> None:
        """Give the turn back, because no request was sent."""
        ...


class PortalLimits(Protocol):
    """Rate limits of the portal: it accepts 20 requests a second."""

    def admit(self, *, service: str, action: str, account: str, region: str, source: Hashable) -> PortalPermit:
        """Return the turn of one request."""
        ...


class SsoPortal:
    """The portal of one login: one client, requests at its rate, and a login that was refused once is not sent again.

    Args:
        name: the `[sso-session]` of the login.
        clock: where all time comes from.
        limits: the rate limits that requests pass.
    """

    def __init__(self, name: str, clock: Clock, limits: PortalLimits) -> None:
        self._name = name
        self._clock = clock
        self._limits = limits
        self._opening = anyio.Lock()
        self._login: SsoLogin | None = None
        self._client: Any = None
        self._clients = AsyncExitStack()
        self._first = anyio.Lock()
        self._tried_token: str | None = None
        self._refused_token: str | None = None

    async def role_credentials(self, role: SsoRole) -> Mapping[str, Any] | AsyncAuthError:
        """Return the `roleCredentials` of a role, or the error, which the caller raises outside of this frame.

        Raises:
            SourceExpired: there is no login, or it has ended.
            ConfigurationError: there is no such session in boto's configuration.
        """
        login = await self._open()
        token = await login.access_token()
        if token != self._tried_token:
            # The first request goes alone: if the login has ended, the other roles send none.
            async with self._first:
                if token != self._tried_token:
                    try:
                        return await self._within_limits(login, role, token)
                    finally:
                        self._tried_token = token
        return await self._within_limits(login, role, token)

    async def _within_limits(self, login: SsoLogin, role: SsoRole, token: str) -> Mapping[str, Any] | AsyncAuthError:
        if token == self._refused_token:
            return login.expired()
        permit = self._limits.admit(
            service="sso",
            action="GetRoleCredentials",
            account=role.account_id,
            region=login.region_name,
            source=("sso-session", self._name),
        )
        try:
            async with permit:
                if token == self._refused_token:  # by the answer to another role, while this one waited
                    permit.unused()
                    return login.expired()
                return await self._request(permit, login, role, token)
        except RateLimited as error:  # the portal throttles everything
            return error

    async def _request(
        self, permit: PortalPermit, login: SsoLogin, role: SsoRole, token: str
    ) -> Mapping[str, Any] | AsyncAuthError:
        try:
            answer = await self._client.get_role_credentials(
                roleName=role.role_name, accountId=role.account_id, accessToken=token
            )
        except ClientError as error:
            permit.answered(throttled=error_code(error) in THROTTLED)
            return self._refused(error, login, role, token)
        except BotoCoreError as error:
            return explain(error, ErrorContext(_label(role), None))
        credentials: dict[str, Any] = answer["roleCredentials"]
        return credentials | {"date": response_date(answer)}

    async def aclose(self) -> None:
        """Close the connections."""
        await self._clients.aclose()
        self._client = self._login = None

    async def _open(self) -> SsoLogin:
        async with self._opening:
            if self._login is None:
                login = await open_login(self._name, self._clock)
                self._client = await self._clients.enter_async_context(login.client("sso"))
                self._login = login
            return self._login

    def _refused(self, error: ClientError, login: SsoLogin, role: SsoRole, token: str) -> SourceError:
        code = str(error.response.get("Error", {}).get("Code", "Unknown"))
        if code == "UnauthorizedException":  # the login, for all roles
            self._refused_token = token
            return login.expired()
        hint = ""
        if code == "ForbiddenException":  # this role alone
            hint = f"; check that the login's user is assigned {role.role_name} in account {role.account_id}"
        refusal = SourceError(
            f"{_label(role)}: the portal refused it ({code}){hint}",
            code=code,
            account=role.account_id,
        )
        refusal.__cause__ = strip_frame_locals(error)
        return refusal


class SsoPortals:
    """The portals that a pool uses, one for each login.

    Args:
        clock: where all time comes from.
        limits: the rate limits that requests pass.
    """

    def __init__(self, clock: Clock, limits: PortalLimits) -> None:
        self._clock = clock
        self._limits = limits
        self._portals: dict[str, SsoPortal] = {}

    def portal(self, name: str) -> SsoPortal:
        """Return the portal of a `[sso-session]`; nothing is read or sent yet."""
        if name not in self._portals:
            self._portals[name] = SsoPortal(name, self._clock, self._limits)
        return self._portals[name]

    async def aclose(self) -> None:
        """Close the connections of all portals."""
        for portal in self._portals.values():
            await portal.aclose()


class SsoRoleOrigin(ExplicitOrigin):
    """One role of the portal, requested at its first use and again before its credentials end."""

    def __init__(
        self, role: SsoRole, portal: SsoPortal, request: SourceRequest, *, clock: Clock, session: AioSession | None
    ) -> None:
        super().__init__(
            _label(role), request, clock, ("sso-role", role.session, role.account_id, role.role_name), session
        )
        self._role = role
        self._portal = portal

    async def load(self) -> Loaded:
        """Return the role's credentials."""
        configuration = await self._configured()
        now = self._clock.monotonic()
        answer = await self._portal.role_credentials(self._role)
        if isinstance(answer, AsyncAuthError):
            raise answer
        credentials = Credentials(
            answer["accessKeyId"], answer["secretAccessKey"], answer["sessionToken"], self._role.account_id
        )
        # In milliseconds, unlike every other date of AWS.
        date = answer["date"]  # of the portal: this machine's clock may be off
        lifetime = answer["expiration"] / 1000 - (self._clock.time() if date is None else date.timestamp())
        return self._loaded(credentials, lifetime, now, configuration, "sso-role")


def _label(role: SsoRole) -> str:
    return f"the role {role.role_name} of the sso-session {role.session!r} in account {role.account_id}"
