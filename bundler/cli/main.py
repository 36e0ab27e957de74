"""The command ``bundler``: its commands, loaded when they are called, and the one place where errors end."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.ending import fail, problem_of
from bundler.cli.help import HelpContext, help_width
from bundler.cli.output import MANNER
from bundler.cli.usage import no_such_command
from bundler.cli.version import version_option
from bundler.errors import BundlerError, exit_codes

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

ONLINE = "Online host"
COMMANDS: dict[str, dict[str, str]] = {
    ONLINE: {
        "plan": "bundler.cli.plan",
        "fetch": "bundler.cli.fetch",
        "pack": "bundler.cli.pack",
        "rehearse": "bundler.cli.rehearse",
        "models": "bundler.cli.models",
        "env": "bundler.cli.env",
        "clean": "bundler.cli.clean",
    },
    "Bundle": {
        "sign": "bundler.cli.sign",
        "copy": "bundler.cli.copy",
        "share": "bundler.cli.share",
        "verify": "bundler.cli.verify",
        "repair": "bundler.cli.repair",
        "inspect": "bundler.cli.inspect",
        "report": "bundler.cli.report",
        "licenses": "bundler.cli.licenses",
        "diff": "bundler.cli.diff",
    },
    "Air-gapped host": {
        "unpack": "bundler.cli.unpack",
        "install": "bundler.cli.install",
        "history": "bundler.cli.history",
        "rollback": "bundler.cli.history",
        "remove": "bundler.cli.remove",
        "uninstall": "bundler.cli.remove",
        "du": "bundler.cli.remove",
        "doctor": "bundler.cli.doctor",
        "check": "bundler.cli.check",
        "serve": "bundler.cli.serve",
        "status": "bundler.cli.server",
        "logs": "bundler.cli.server",
        "stop": "bundler.cli.server",
        "smoke": "bundler.cli.smoke",
        "systemd": "bundler.cli.systemd",
    },
    "Any host": {"completion": "bundler.cli.completion"},
}
"""Each command's module, by the place where it is used. A module holds a command of the same name."""

MODULES = {name: module for group in COMMANDS.values() for name, module in group.items()}


class LazyGroup(click.Group):
    """Imports a command's module when the command is called, so that ``--help`` is quick."""

    context_class = HelpContext

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands that can be used here, in the order of their use."""
        return [name for names in _groups().values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in MODULES:
            return None
        module = importlib.import_module(MODULES[cmd_name])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a word names.

        :raises UsageError: there is none, with those of a near name.
        """
        if args[0] not in MODULES and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise no_such_command(args[0], MODULES)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Offer the commands without importing them; options as any command does."""
        from click.shell_completion import CompletionItem

        from bundler.cli.summaries import SUMMARIES

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=SUMMARIES[name]) for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the host they run on."""
        from bundler.cli.summaries import SUMMARIES

        groups = _groups()
        for title, names in groups.items():
            with formatter.section(title):
                formatter.write_dl([(name, SUMMARIES[name]) for name in names])
        if ONLINE not in groups:
            with formatter.section(f"{ONLINE} only, not here"):
                formatter.write_text(", ".join(COMMANDS[ONLINE]))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in exit_codes().items()])


def _groups() -> dict[str, dict[str, str]]:
    """Return the commands by place; of an installation's bundler those that can be used there."""
    from bundler.installation import own_installation

    here = own_installation() is not None
    return {title: names for title, names in COMMANDS.items() if not (here and title == ONLINE)}


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "terminal_width": help_width()}
)
@version_option
def bundler_command() -> None:
    """Carry an SGLang and GLM-4.7 serving environment onto GPU hosts that have no network.

    Each command takes --help, --json, -q and -v.
    """


def run(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit: every error is one message and a stable exit code."""
    # Installers and libraries make files by the umask: a hardened host's would close the installation to the
    # user that serves, and one of 000 open it to all. What is secret is made with a mode of its own.
    os.umask(0o022)
    # Told to end, a command ends as by ^C: what is durable stays, and the same command goes on.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = sys.argv[1:] if arguments is None else arguments
    MANNER.begin(None, words)
    output = sys.stdout
    try:
        outcome = bundler_command.main(args=list(words), prog_name="bundler", standalone_mode=False)
        # A command that ends by click's Exit gives its code here; all others give nothing.
        sys.exit(outcome if isinstance(outcome, int) else 0)
    except SystemExit:
        if sys.stdout is output:
            raise
        # click puts another stream in its place, and ends, where an answer's reader went away.
        # Nothing is wrong with that: the work never waits for who hears of it.
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(0)
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (BundlerError, click.ClickException, click.Abort, KeyboardInterrupt) as problem:
        fail(problem_of(problem, words))
    except Exception as problem:
        if os.environ.get("BUNDLER_DEBUG"):
            raise
        fail(problem_of(problem, words))
