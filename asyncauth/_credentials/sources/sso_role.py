"""Roles of IAM Identity Center: credentials from the portal, at its rate, through one login for all of them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import anyio
from botocore.exceptions import BotoCoreError, ClientError

from asyncauth._aws.clock_offset import response_date
from asyncauth._credentials.sources.errors import ErrorContext, explain
from asyncauth._credentials.sources.explicit import ExplicitOrigin
from asyncauth._credentials.sources.sso_login import SsoLogin, open_login
from asyncauth._errors import AsyncAuthError, SourceError
from asyncauth._models import Credentials, SsoRole
from asyncauth._runtime.exceptions import strip_frame_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiobotocore.session import AioSession

    from asyncauth._credentials.sources.configuration import SourceRequest
    from asyncauth._credentials.sources.source import Loaded
    from asyncauth._runtime.clock import Clock

#: The portal accepts 20 requests a second (the quota of IAM Identity Center's API).
_SECONDS_BETWEEN_REQUESTS: Final = 1 / 20


class SsoPortal:
    """The portal of one login: one client, requests at its rate, and a login that was refused once is not sent again.

    Args:
        name: the `[sso-session]` of the login.
        clock: where all time comes from.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._opening = anyio.Lock()
        self._login: SsoLogin | None = None
        self._client: Any = None
        self._clients = AsyncExitStack()
        self._first = anyio.Lock()
        self._tried_token: str | None = None
        self._refused_token: str | None = None
        self._next_at = 0.0

    async def role_credentials(self, role: SsoRole) -> Mapping[str, Any] | AsyncAuthError:
        """Return the `roleCredentials` of a role, or the error, which the caller raises outside of this frame.

        Raises:
            SourceExpired: there is no login, or it has ended.
            ConfigurationError: there is no such session in boto's configuration.
        """
        login = await self._open()
        token = await login.access_token()
        if token == self._refused_token:
            return login.expired()
        if token != self._tried_token:
            # The first request goes alone: if the login has ended, the other roles send none.
            async with self._first:
                if token != self._tried_token:
                    try:
                        return await self._request(role, login, token)
                    finally:
                        self._tried_token = token
        return await self._request(role, login, token)

    async def _request(self, role: SsoRole, login: SsoLogin, token: str) -> Mapping[str, Any] | AsyncAuthError:
        await self._wait_for_turn()
        if token == self._refused_token:  # by the answer to another role, while this one waited
            return login.expired()
        try:
            answer = await self._client.get_role_credentials(
                roleName=role.role_name, accountId=role.account_id, accessToken=token
            )
        except ClientError as error:
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

    async def _wait_for_turn(self) -> None:
        now = self._clock.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + _SECONDS_BETWEEN_REQUESTS
        if at > now:
            await self._clock.sleep(at - now)

    def _refused(self, error: ClientError, login: SsoLogin, role: SsoRole, token: str) -> SourceError:
        code = str(error.response.get("Error", {}).get("Code", "Unknown"))
        if code == "UnauthorizedException":  # the login, for all roles
            self._refused_token = token
            return login.expired()
        refusal = SourceError(
            f"{_label(role)}: the portal refused it ({code}); check that the login's user is assigned "
            f"{role.role_name} in account {role.account_id}",
            code=code,
            account=role.account_id,
        )
        refusal.__cause__ = strip_frame_locals(error)
        return refusal


class SsoPortals:
    """The portals that a pool uses, one for each login."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._portals: dict[str, SsoPortal] = {}

    def portal(self, name: str) -> SsoPortal:
        """Return the portal of a `[sso-session]`; nothing is read or sent yet."""
        if name not in self._portals:
            self._portals[name] = SsoPortal(name, self._clock)
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
