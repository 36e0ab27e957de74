"""What every command of bundler is: one of click, with the options that all have."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.help import HelpContext
from bundler.cli.output import MANNER, show_document
from bundler.cli.typed import folders_of
from bundler.errors import BundlerError

if TYPE_CHECKING:
    from collections.abc import Callable


class BundlerCommand(click.Command):
    """A command that answers programs, too, and is as loud as it is asked to be."""

    context_class = HelpContext

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Parse the command's words."""
        MANNER.begin(self.name, args)
        return super().make_context(info_name, args, *rest, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """End the help with examples, as they are typed: none is wrapped."""
        from bundler.cli.examples import EXAMPLES

        with formatter.section("Examples"):
            for line in EXAMPLES.get(self.name or "", ()):
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and print its answer for programs, also where it fails."""
        from bundler.cli.verbose import timed

        MANNER.folders = folders_of(ctx.params)
        try:
            with timed(ctx.command_path):
                outcome = super().invoke(ctx)
        except click.exceptions.Exit as ending:
            show_document(ending.exit_code)
            raise
        except BundlerError as problem:
            show_document(problem.exit_code, problem)
            raise
        show_document()
        return outcome


def command(name: str) -> Callable[[Callable[..., Any]], BundlerCommand]:
    """Return a decorator that makes a function a command with the options that all commands have."""

    def decorate(function: Callable[..., Any]) -> BundlerCommand:
        made = click.command(name, cls=BundlerCommand)(function)
        made.params += _SHARED
        return made

    return decorate


def _set(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    """Note it for the whole process.

    :raises click.UsageError: news are neither wanted nor all wanted.
    """
    setattr(MANNER, str(parameter.name), value)
    if MANNER.quiet and MANNER.verbose:
        raise click.UsageError("--quiet and --verbose contradict each other", context)


# Before all other options: those that fail are told as programs and the quiet want it.
_flag = partial(click.Option, is_flag=True, is_eager=True, expose_value=False, callback=_set)
_SHARED = (
    _flag(["--json"], help="Print the answer, or what went wrong, as one object of JSON (docs/JSON.md)."),
    _flag(["-q", "--quiet"], help="Print the answer and errors only."),
    _flag(["-v", "--verbose"], help="Print times, and the programs that are run with what they say."),
)
SHARED_WORDS = tuple(word for option in _SHARED for word in option.opts)
