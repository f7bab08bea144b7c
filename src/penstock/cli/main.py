"""Entry point of ``penstock``: the table of commands, and the messages and exit codes of errors.

Commands are imported when they are used, so that ``penstock --help`` is there at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import CompletionItem, shell_complete

from penstock import __version__
from penstock.cli.completion import COMPLETION_VARIABLE
from penstock.kernel.cores import SINGLE_THREADED_ENV
from penstock.kernel.errors import Broken, PenstockError
from penstock.kernel.files import set_private_umask

#: Name → (module, and attribute where it is not `command`; what ``penstock --help`` says about it).
COMMANDS: Final = {
    "serve": ("serve", "Run the server."),
    "worker": ("worker", "Do the work of some pools for servers elsewhere."),
    "index": ("index", "Index files and directories."),
    "search": ("search", "Search a collection."),
    "sources": ("sources:sources", "Show the trees that are indexed, and how fresh they are."),
    "watch": ("watch", "Keep sources up to date while their files change."),
    "forget": ("sources:forget", "Remove a source and its documents."),
    "collections": ("collections", "List or delete collections."),
    "status": ("status", "Show collections and what the server is doing."),
    "tasks": ("tasks:tasks", "List, show, follow or cancel operations that the server goes on with alone."),
    "renew": ("renew", "Make collections of older releases searchable by words in every script."),
    "snapshot": ("snapshots:snapshot", "Save every collection in one file."),
    "snapshots": ("snapshots:snapshots", "List or delete the snapshots in the data directory."),
    "restore": ("snapshots:restore", "Restore the collections of a snapshot."),
    "migrate": ("migrate", "Move a collection between the data directory and a Qdrant server."),
    "dlq": ("dlq", "List, retry or drop messages that no handler could process."),
    "keys": ("keys:keys", "Make, list, revoke and rotate the keys of a server."),
    "mcp": ("mcp", "Serve MCP on standard input and output, for agents."),
    "agents": ("agents:agents", "Let agents search: write the configuration of their clients."),
    "top": ("top", "Watch a running server, live."),
    "config": ("config", "Show every setting, its value and where it comes from."),
    "eval": ("evaluate", "Measure the quality of retrieval on a BEIR-layout directory."),
    "prepare-model": ("prepare_model", "Fetch the model's weights where they are missing, and prepare it."),
    "check-model": ("check_model", "Compare the prepared model with its own float32 form."),
    "completion": ("completion", "Print the script by which a shell completes commands."),
}

#: Exit codes beside 0; 1 is a command's own "no" (nothing found, some files failed).
FAILED: Final = 2
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

_HINTS: Final = {
    "collection_not_found": "`penstock status` lists collections; `penstock index PATH --collection NAME` makes one",
    "path_not_found": "`penstock sources` lists what is indexed, and `penstock forget NAME` removes a gone tree",
    "source_not_found": "`penstock sources` lists sources",
    "task_not_found": "`penstock tasks list` lists tasks; ended ones are kept for a while only",
    "overloaded": "the server has more work than it can do; try again a little later",
    "timeout": "ask for less, or raise the limit (`penstock config` names it)",
    "server_lost": "what was acknowledged is safe; start the server again and repeat the command to go on",
}

#: The variable that makes Python read and write UTF-8 whatever the locale.
UTF8: Final = "PYTHONUTF8"


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"penstock.cli.{module}"), attribute or "command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so, without importing them, and the options."""
        commands = [
            CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with `penstock index .`, then `penstock search 'your words'`.",
)
@click.version_option(__version__, prog_name="penstock", message="%(prog)s %(version)s")
def penstock() -> None:
    """Hybrid search over code and documents, on your own machine."""


def main() -> None:
    """Run the command line and exit."""
    for name, value in SINGLE_THREADED_ENV.items():
        os.environ.setdefault(name, value)
    set_private_umask()
    _speak_utf8()
    sys.exit(run(sys.argv[1:]))


def _speak_utf8() -> None:
    """Start once more where the locale is not UTF-8: names of files, arguments and texts are UTF-8 all through.

    Processes that are started from here are told the same.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get(UTF8) != "1":
        os.environ[UTF8] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 the command's own "no", 2 an error, 130 interrupted.
    """
    # Undecodable file names and lone surrogates are shown, never a reason to fail.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if asked := os.environ.get(COMPLETION_VARIABLE):
        return shell_complete(penstock, {}, "penstock", COMPLETION_VARIABLE, asked)
    if fault := _fault(arguments):
        print_error(fault)
        return FAILED
    try:
        code = penstock.main(args=list(arguments), prog_name="penstock", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Click and rich both turn a broken pipe into an exit of their own; nothing else here exits that way.
        return _pipe_broken()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the root of the command
        return _failed(error)
    return code if isinstance(code, int) else 0


def _fault(arguments: Sequence[str]) -> str:
    """Return what is wrong with an argument whatever it means, empty where nothing is.

    An empty one comes of a variable that is not set. As a path it would mean the current directory, as a filter
    everything.
    """
    for before, argument in zip(("penstock", *arguments), arguments, strict=False):
        option, given, value = argument.partition("=")
        if not argument.strip() or (option.startswith("--") and given and not value.strip()):
            after = f"the argument after {before!r}" if before.strip() else "an argument"
            return f"{option if option.strip() else after} is empty; is a variable not set?"
        try:
            argument.encode()
        except UnicodeEncodeError:
            return f"the argument {str(os.fsencode(argument))[1:]} is not UTF-8"
    return ""


def print_error(message: str, hint: str = "") -> None:
    """Write an error and what to do about it to standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=_colour())
    if hint:
        click.echo(f"{click.style('hint:', bold=True)} {hint}", err=True, color=_colour())


def hint_for(error: PenstockError) -> str:
    """Return what to do about the error in one line, empty where its message says it already."""
    if isinstance(error, Broken):
        return "this is a bug in Penstock; the server's log has more, under the same request id"
    return _HINTS.get(error.code, "")


def _failed(error: Exception) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    elif isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx is not None else "penstock"
        print_error(error.format_message(), f"`{path} --help` shows what it accepts")
    elif isinstance(error, click.ClickException):
        print_error(error.format_message())
    elif isinstance(error, PenstockError):
        print_error(error.detail, hint_for(error))
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        print_error(f"{where}{error.strerror or error}")
        try:
            sys.stdout.flush()
        except OSError:
            _forget_output()
    else:
        traceback.print_exception(error)
        print_error(f"unexpected {type(error).__name__}", "this is a bug in Penstock; please report the lines above")
    return FAILED


def _colour() -> bool | None:
    """Return what click is to do about colour: its own rule (terminals only), but never against ``NO_COLOR``."""
    return False if os.environ.get("NO_COLOR") else None


def _pipe_broken() -> int:
    _forget_output()
    return BROKEN_PIPE


def _forget_output() -> None:
    """Let what Python would still flush at exit go nowhere, instead of raising once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
