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
    async with aclosing(_items(login, "list_accounts", "accountList")) as records:
        async for record in records:
            for name in [role] if role != "*" else await _roles(login, record["accountId"]):
                yield Account(
                    record["accountId"],
                    partition=partition,
                    name=record.get("accountName") or None,
                    role=SELF,
                    source=SsoRole(sso_session, record["accountId"], name),
                    facts={"email": record["emailAddress"]} if record.get("emailAddress") else {},
                )


async def _roles(login: SsoLogin, account_id: str) -> list[str]:
    async with aclosing(_items(login, "list_account_roles", "roleList", accountId=account_id)) as roles:
        return [role["roleName"] async for role in roles]


async def _items(
    login: SsoLogin, operation: str, name: str, **arguments: Any
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Return the items of a listing, a page of them at a time."""
    token: str | None = None
    while True:
        page = await _page(login, operation, arguments | ({"nextToken": token} if token else {}))
        for item in page[name]:
            yield item
        token = page.get("nextToken")
        if not token:
            return


async def _page(login: SsoLogin, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    from botocore.exceptions import ClientError

    access_token = await login.access_token()
    try:
        async with login.client("sso") as portal:
            answer: Mapping[str, Any] = await getattr(portal, operation)(
                accessToken=access_token, maxResults=_PAGE_SIZE, **arguments
            )
            return answer
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "UnauthorizedException":
            raise login.expired() from None
        raise
