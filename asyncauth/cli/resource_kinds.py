"""Kinds of resources on the command line: their names without an import of botocore, and patterns of them."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncauth._models.kinds import Kind

#: The names in `asyncauth.jobs.KINDS`, in its order: that package imports botocore, and help and Tab must not.
KIND_NAMES: Final = (
    "ec2:instance",
    "ec2:volume",
    "ec2:snapshot",
    "ec2:network-interface",
    "ec2:address",
    "ec2:security-group",
    "ec2:instance-image",
    "ec2:vpc",
    "ec2:subnet",
    "rds:instance",
    "lambda:function",
    "elbv2:load-balancer",
    "eks:cluster",
    "ecs:cluster",
    "s3:bucket",
    "iam:user",
    "iam:role",
)


class KindType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 only
    """Name of a kind, or a pattern such as `ec2:*`; the views of a store, `ec2_instance`, name kinds as well."""

    name = "kind"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the kinds that begin with a word."""
        return [CompletionItem(name) for name in KIND_NAMES if name.startswith(incomplete)]


def find_kinds(names: Iterable[str]) -> list[Kind]:
    """Return the kinds of names and patterns, each once; all kinds for none.

    Raises:
        click.UsageError: a name or pattern matches no kind.
    """
    from asyncauth.jobs import KINDS

    found: dict[str, Kind] = {}
    for name in names or ("*",):
        matching = [kind for kind in KINDS.values() if fnmatchcase(kind.name, name) or kind.view == name]
        if not matching:
            near = difflib.get_close_matches(name, KINDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" The kinds are {', '.join(KINDS)}."
            raise click.UsageError(f"there is no kind {name!r}.{hint}")
        found |= {kind.name: kind for kind in matching}
    return list(found.values())
