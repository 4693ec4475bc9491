"""Command `completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

import click

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    eval "$(asyncauth completion bash)"                                  # ~/.bashrc
    eval "$(asyncauth completion zsh)"                                   # ~/.zshrc
    asyncauth completion fish > ~/.config/fish/completions/asyncauth.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "asyncauth", "_ASYNCAUTH_COMPLETE").source())
