"""Accounts of a portal: those that a login of IAM Identity Center may enter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from asyncauth._aws.partitions import partition_of_region
from asyncauth._errors import ConfigurationError
from asyncauth._models import SELF, Account, SsoRole
from asyncauth.discovery.composition import unique

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from asyncauth._credentials.sources.sso_login import SsoLogin

#: The largest page of the portal's listings, from its API reference.
_PAGE_SIZE: Final = 100


def sso_accounts(sso_session: str, role: str) -> AsyncIterator[Account]:
    """Return the accounts that a login of IAM Identity Center may enter, each as the role of that name.

    One ListAccounts call lists 100 accounts. The credentials of a role are requested when the account is first used:
    the portal accepts 20 requests a second, so 1,000 accounts take 50 seconds. For more than some hundreds, enter one
    hub account through the portal, and assume a role from there.

    Args:
        sso_session: the name of an `sso-session` section of boto's configuration; `aws sso login --sso-session NAME`
            logs in.
        role: the name of the role (permission set). The portal does not list who may use it in which account: an
            account in which this login may not is a failed outcome of a run. "*": every role of every account, which
            costs one call more for each account.

    Raises:
        ConfigurationError: a name is empty. Raised when the accounts are read: boto's configuration has no such
            section.
        SourceExpired: raised when the accounts are read: there is no login, or it has expired; the message has the
            command that renews it. No browser is opened.

    Example:
        report = await pool.map(job, sso_accounts("corp", "ReadOnly"))
    """
    for name, value in (("sso_session", sso_session), ("role", role)):
        if not isinstance(value, str) or not value:
            raise ConfigurationError(f"{name}={value!r} must be a name")
    return unique(_iterate(sso_session, role))


async def _iterate(sso_session: str, role: str) -> AsyncGenerator[Account, None]:
    # Imported at first use: it imports aiobotocore.
    from asyncauth._credentials.sources.sso_login import open_login

    login = await open_login(sso_session)
    partition = partition_of_region(login.region_name).name
    portal = _Portal(login)
    async with aclosing(portal.items("ListAccounts", "accountList")) as records:
        async for record in records:
            for name in [role] if role != "*" else await portal.roles(record["accountId"]):
                yield Account(
                    record["accountId"],
                    partition=partition,
                    name=record.get("accountName") or None,
                    role=SELF,
                    source=SsoRole(sso_session, record["accountId"], name),
                    facts={"email": record["emailAddress"]} if record.get("emailAddress") else {},
                )


class _Portal:
    """Listings of the portal, within the rate that it accepts."""

    def __init__(self, login: SsoLogin) -> None:
        # Imported at first use: it imports aiobotocore.
        from asyncauth._resilience import RateLimiters

        self._login = login
        self._limits = RateLimiters()

    async def roles(self, account_id: str) -> list[str]:
        """Return the names of the roles that the login has in an account."""
        async with aclosing(self.items("ListAccountRoles", "roleList", accountId=account_id)) as roles:
            return [role["roleName"] async for role in roles]

    async def items(self, action: str, name: str, **arguments: Any) -> AsyncGenerator[Mapping[str, Any], None]:
        """Return the items of a listing, a page of them at a time."""
        token: str | None = None
        while True:
            page = await self._page(action, arguments | ({"nextToken": token} if token else {}))
            for item in page[name]:
                yield item
            token = page.get("nextToken")
            if not token:
                return

    async def _page(self, action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        from botocore import xform_name
        from botocore.exceptions import ClientError

        from asyncauth._aws.error_codes import THROTTLED, error_code

        access_token = await self._login.access_token()
        permit = self._limits.admit(service="sso", action=action, region=self._login.region_name)
        try:
            # A client for each call, because an async generator must not hold one open while it is suspended.
            async with permit, self._login.client("sso") as portal:
                try:
                    answer: Mapping[str, Any] = await getattr(portal, xform_name(action))(
                        accessToken=access_token, maxResults=_PAGE_SIZE, **arguments
                    )
                except ClientError as error:
                    permit.answered(throttled=error_code(error) in THROTTLED)
                    raise
                return answer
        except ClientError as error:
            if error_code(error) == "UnauthorizedException":
                raise self._login.expired() from None
            raise
