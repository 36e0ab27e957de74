"""Answers for programs."""

from __future__ import annotations

import json

import click
import msgspec


def show_json(facts: object) -> None:
    """Print facts as JSON in plain ASCII: in a terminal, too, no letter of it commands or hides anything."""
    # DEL is the one control that JSON leaves as it is.
    click.echo(json.dumps(msgspec.to_builtins(facts), indent=1).replace("\x7f", "\\u007f"))
