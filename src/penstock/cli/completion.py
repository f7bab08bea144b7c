"""``penstock completion``: the script by which a shell completes what is typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

#: The variable by which the script asks for completions (click's form of it).
COMPLETION_VARIABLE: Final = "_PENSTOCK_COMPLETE"

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> int:
    """Print the script by which a shell completes commands, options, and names of collections and sources.

    Without a name it is the script of the shell in $SHELL.

    \b
    bash  penstock completion bash > ~/.local/share/bash-completion/completions/penstock
    zsh   penstock completion zsh > _penstock, in a directory of $fpath
    fish  penstock completion fish > ~/.config/fish/completions/penstock.fish
    """  # noqa: D301 - the mark by which click leaves lines as they are
    made = get_completion_class(shell or Path(os.environ.get("SHELL", "")).name)
    if made is None:
        raise click.UsageError(f"say which shell: {', '.join(SHELLS)}")
    program = click.get_current_context().find_root().command
    # The base's: that for bash starts one, to ask for a version of which all are by now.
    click.echo(ShellComplete.source(made(program, {}, "penstock", COMPLETION_VARIABLE)))
    return 0
