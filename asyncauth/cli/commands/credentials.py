"""Command `credentials`: the keys of a role in an account, for credential_process and for shells."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.options import source_options, verbosity_options
from asyncauth.cli.selection import parse_account
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions
from asyncauth.cli.text import to_json

if TYPE_CHECKING:
    from asyncauth._models import Account, Keys
    from asyncauth.caches import CachedToken, FileTokenCache

_FORMATS: Final = ("process", "env", "fish", "powershell")


@click.command("credentials")
@click.argument("account")
@click.option("--partition", default="aws", show_default=True, metavar="NAME", help="Partition of a bare account id.")
@click.option("--format", "format_name", type=click.Choice(_FORMATS), default="process", show_default=True)
@click.option("--role-session-name", metavar="TEXT", help="Name of the session in CloudTrail.  [default: asyncauth]")
@click.option("--duration-seconds", type=int, metavar="N", help="Requested lifetime of the token.  [default: 3600]")
@source_options
@verbosity_options
def command(account: str, partition: str, format_name: str, **options: Any) -> None:
    """Print credentials of an account: an id, or a role ARN.

    The format `process` is what credential_process in ~/.aws/config expects. With --cache a token is kept in a file of
    this user, and the next call answers from it.

    \b
    asyncauth credentials 123456789012 --cache
    eval "$(asyncauth credentials 123456789012 --format env)"
    """
    try:
        found = parse_account(account, partition)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    source = SourceOptions.of(options)
    cache = source.token_cache()
    keys = None if cache is None else _cached(source, found, cache)
    if keys is None:
        keys = run_async(_assume(source, found, cache))
    click.echo(_render(keys, format_name), nl=False)


def _cached(source: SourceOptions, account: Account, cache: FileTokenCache) -> Keys | None:
    """Return the keys of a cached token that a pool would serve, too; botocore is not imported for it."""
    endpoint_url = source.endpoint_url or (None if source.fleet is None else source.fleet.content.pool.endpoint_url)
    role = account.effective_role(source.default_role)
    token = None if role is None else cache.peek(account, role, endpoint_url=endpoint_url)
    return None if token is None or not _is_fresh(token) else _as_keys(token)


def _is_fresh(token: CachedToken) -> bool:
    from asyncauth._refresh import RefreshPolicy

    age = datetime.now(UTC).timestamp() - token.obtained_at
    return age < RefreshPolicy().served_at_once_for(token.expires_at - token.obtained_at)


def _as_keys(token: CachedToken) -> Keys:
    from asyncauth._models import Keys

    one = token.credentials
    ends = datetime.fromtimestamp(int(token.expires_at), UTC)
    return Keys(one.access_key_id, one.secret_access_key, one.session_token, ends)


async def _assume(source: SourceOptions, account: Account, cache: FileTokenCache | None) -> Keys:
    async with source.pool(token_cache=cache) as pool:
        session = await pool.session(account)
        return await session.credentials()


def _render(keys: Keys, format_name: str) -> str:
    ends = None if keys.expiration is None else f"{keys.expiration:%Y-%m-%dT%H:%M:%SZ}"
    if format_name == "process":
        fields = {
            "Version": 1,
            "AccessKeyId": keys.access_key_id,
            "SecretAccessKey": keys.secret_access_key,
            "SessionToken": keys.session_token,
            "Expiration": ends,
        }
        return to_json({name: value for name, value in fields.items() if value is not None}) + "\n"
    variables = {
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
        "AWS_SESSION_TOKEN": keys.session_token,
        "AWS_CREDENTIAL_EXPIRATION": ends,
    }
    return "".join(_assign(name, value, format_name) for name, value in variables.items() if value is not None)


def _assign(name: str, value: str, format_name: str) -> str:
    if format_name == "env":
        return f"export {name}={shlex.quote(value)}\n"
    if format_name == "fish":
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{escaped}'\n"
    escaped = value.replace("'", "''")
    return f"$Env:{name} = '{escaped}'\n"
