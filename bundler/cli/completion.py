"""``bundler completion``: a shell's own completion of bundler's words, and of what they may name here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.output import answer
from bundler.errors import BundlerError
from bundler.installation import UNNAMED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from click.shell_completion import CompletionItem

    from bundler.installation import Installation
    from bundler.manifest import Environment

    Candidates = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

VARIABLE = "_BUNDLER_COMPLETE"
"""By this variable click knows that it is asked by a shell's completion."""


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print what makes a shell complete bundler's words: commands, options, environments, models.

    For this shell: eval "$(bundler completion bash)", or zsh; bundler completion fish | source. For each new
    one, put that line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    root = click.get_current_context().find_root()
    script = kind(root.command, {}, "bundler", VARIABLE).source() if kind else ""
    answer({"shell": shell, "script": script}, *script.split("\n"))


def _candidates(names: Callable[[click.Context], Iterable[str]]) -> Candidates:
    """Return a function for click that offers names, and paths where one is being typed."""

    def complete(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        from click.shell_completion import CompletionItem

        if "/" in begun or begun.startswith("."):
            return [CompletionItem(begun, type="file")]
        found: list[str] = []
        # In the midst of a line nobody wants to read what is wrong.
        with suppress(BundlerError, OSError):
            found = [name for name in dict.fromkeys(names(context)) if name.startswith(begun)]
        return [CompletionItem(name) for name in found]

    return complete


def _workspace(context: click.Context) -> Path:
    return context.params.get("workspace") or Path()


def _locked_environments(context: click.Context) -> Iterator[str]:
    """Yield the environments of pixi's manifest: the lock is long, and a key press short."""
    from bundler.pixi_manifest import aliases_of, find_manifest, read_manifest

    path = find_manifest(_workspace(context))
    for name, aliases in aliases_of(read_manifest(path)).items() if path else ():
        yield from (name, *aliases)


def _known_models(context: click.Context) -> Iterator[str]:
    from bundler.collect.models.specs import known_specs, manifest_folders

    known, _ = known_specs(manifest_folders(_workspace(context)))
    for one in known:
        yield from (one.spec.name, *one.spec.aliases)


def _installation(context: click.Context) -> Installation:
    from bundler.installation import Installation, find_installation

    if named := context.params.get("destination"):
        return Installation(named)
    return find_installation(context.params.get("start") or context.params.get("begin") or UNNAMED)


def _installed_environments(context: click.Context) -> Iterator[str]:
    found: Iterable[Environment] = _installation(context).environments.values()
    for one in found:
        yield from (one.name, *one.aliases)


def _installed_models(context: click.Context) -> Iterator[str]:
    for one in _installation(context).models.values():
        yield from (one.spec.name, *one.spec.aliases)


def _installed(context: click.Context) -> Iterator[str]:
    yield from _installed_models(context)
    yield from _installed_environments(context)


locked_environments = _candidates(_locked_environments)
"""Of the workspace, for ``--env``."""
known_models = _candidates(_known_models)
"""That have a manifest, for ``--model``."""
installed_environments = _candidates(_installed_environments)
"""Of the installation, for ``--env``."""
installed_models = _candidates(_installed_models)
"""Of the installation, for ``--model``."""
installed_parts = _candidates(_installed)
"""Models and environments of the installation."""
