"""Answers for programs."""

from __future__ import annotations

import json

import click
import msgspec


def show_json(facts: object, *, one_line: bool = False) -> None:
    """Print facts as JSON in plain ASCII: in a terminal, too, no letter of it commands or hides anything.

    :param one_line: as the last line of what a command prints.
    """
    text = json.dumps(msgspec.to_builtins(facts), indent=None if one_line else 1)
    # DEL is the one control that JSON leaves as it is.
    click.echo(text.replace("\x7f", "\\u007f"))
