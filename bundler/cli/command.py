"""What every command of bundler is: one of click, with the options that all have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bundler.cli.output import MANNER, show_document
from bundler.errors import BundlerError

if TYPE_CHECKING:
    from collections.abc import Callable


class BundlerCommand(click.Command):
    """A command that answers programs, too."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Parse the command's words."""
        MANNER.begin(self.name, args)
        return super().make_context(info_name, args, *rest, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and print its answer for programs, also where it fails."""
        try:
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
        return click.command(name, cls=BundlerCommand)(_json_option(function))

    return decorate


def _set_json(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    MANNER.json = value


_json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_set_json,
    help="Print the answer, or what went wrong, as one object of JSON (docs/JSON.md).",
)
