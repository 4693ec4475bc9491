"""Command `profiles`: profiles of every account, for the AWS CLI and all SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import click

from asyncauth._errors import ConfigurationError
from asyncauth.cli.options import selection_options, source_options, verbosity_options
from asyncauth.cli.profile_files import config_path, executable, fragment, is_name, profile_names, write_into
from asyncauth.cli.selection import Selection, role_arn
from asyncauth.cli.signals import run_async
from asyncauth.cli.source import SourceOptions
from asyncauth.cli.text import note

if TYPE_CHECKING:
    from asyncauth._models import Account, Role


#: Arguments of a role for which `credentials` has an option of the same name.
_CARRIED: Final = ("external_id", "role_session_name", "duration_seconds")


@click.command("profiles")
@selection_options
@source_options
@click.option("--prefix", default="", metavar="TEXT", help="Begin of every profile's name.")
@click.option("--write", is_flag=True, help="Put them into ~/.aws/config (AWS_CONFIG_FILE), after a copy of it.")
@verbosity_options
def command(prefix: str, write: bool, **options: Any) -> None:
    """Print a fragment of ~/.aws/config with a credential_process profile for every account.

    The AWS CLI starts the process for each call, so each profile uses the cache of tokens unless --no-cache is given.

    \b
    asyncauth profiles --accounts @accounts.txt
    asyncauth profiles --accounts @accounts.txt --prefix fleet- --write
    """
    from asyncauth._aws.partitions import get_partition, is_pattern
    from asyncauth._models import Profile, Role

    if not is_name(prefix):
        raise click.UsageError(f"--prefix {prefix!r} may hold ASCII letters, digits and any of _.+@- only")
    cache = options["cache"] is not False
    selection, source = Selection.of(options), SourceOptions.of(options)
    found, default = run_async(_find(source, selection))
    roles = {
        account: role
        for account in found
        if (role := account.effective_role(default)) is not None and isinstance(account.source, Profile | None)
    }
    if len(roles) < len(found):
        note(
            f"{len(found) - len(roles):,} accounts get no profile: they are entered without a role, or through a login "
            "of IAM Identity Center"
        )
    printed = Role() if source.fleet is None else source.fleet.default_role()
    roles = _without_lost_arguments(roles, printed)
    names = profile_names(roles, prefix)

    def process(account: Account) -> list[str]:
        role = roles[account]
        arguments = [*executable(), "credentials", role.arn(account)]
        # An account of a fleet file can have a source of its own.
        own = account.source.name if isinstance(account.source, Profile) else None
        profile = own or source.profiles.get(account.partition) or source.profiles.get(None)
        if profile is not None:
            arguments += ["--profile", profile]
        if source.fleet is not None:
            arguments += ["--fleet", str(source.fleet.path.resolve())]
        for name in _CARRIED:
            if getattr(role, name) != getattr(printed, name):
                arguments += [f"--{name.replace('_', '-')}", str(getattr(role, name))]
        for hop in () if role.via == printed.via else role.via:
            arguments += ["--via", hop if isinstance(hop, str) else str(role_arn(hop, role))]
        if source.endpoint_url is not None:
            arguments += ["--endpoint-url", source.endpoint_url]
        return [*arguments, "--cache" if cache else "--no-cache"]

    def region(account: Account) -> str:
        own = (name for name in (*account.regions, *selection.regions) if not is_pattern(name))
        return next(own, get_partition(account.partition).default_region)

    text = fragment((names[account], region(account), process(account)) for account in roles)
    if not write:
        click.echo(text, nl=False)
        return
    try:
        copy = write_into(config_path(), names.values(), text)
    except OSError as error:
        raise ConfigurationError(f"{config_path()} cannot be written: {error.strerror}") from None
    kept = f"; the former file is {copy}" if copy else ""
    note(f"{len(names):,} profiles are in {config_path()}{kept}")


def _without_lost_arguments(roles: Mapping[Account, Role], printed: Role) -> dict[Account, Role]:
    """Return the roles that a profile can carry; a note names the arguments of the others."""
    lost = {account: _lost(role, printed) for account, role in roles.items()}
    refused = [account for account, names in lost.items() if names]
    if refused:
        names = sorted({name for account in refused for name in lost[account]})
        note(
            f"{len(refused):,} accounts get no profile, the first is {refused[0].id}: asyncauth credentials has no "
            f"option for what their roles have, {', '.join(names)}"
        )
    return {account: role for account, role in roles.items() if not lost[account]}


def _lost(role: Role, printed: Role) -> list[str]:
    """Return the arguments of a role that neither an option nor the fleet file gives to its profile's command."""
    options = {*_CARRIED, "via", "name", "path"}
    return [
        each.name
        for each in fields(role)
        if (value := getattr(role, each.name)) != getattr(printed, each.name)
        and (each.name not in options or not value)
    ]


async def _find(source: SourceOptions, selection: Selection) -> tuple[list[Account], Role]:
    async with source.pool(**selection.pool_options) as pool:
        return await selection.find(pool), pool.role
