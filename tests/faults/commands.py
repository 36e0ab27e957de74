"""Commands that pack a tree and fetch a folder: the real work, and bundler's own way to end."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from bundler.archive.writer import write_bundle
from bundler.artifact import Artifact
from bundler.collect.fetch import fetch
from bundler.collect.transfer import Patience
from bundler.store import Store
from tests.archive.make import recipe_of


@click.command()
@click.argument("tree", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
def pack_command(tree: Path, bundle: Path) -> None:
    """Pack a tree."""
    write_bundle(recipe_of(tree), [bundle], threads=2)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("address")
@click.argument("store", type=click.Path(path_type=Path))
def fetch_command(source: Path, address: str, store: Path) -> None:
    """Fetch what a server has of a folder."""
    artifacts = [
        Artifact("wheel", path.stem, "1", address + path.name, hashlib.sha256(data).hexdigest(), len(data))
        for path in sorted(source.iterdir())
        for data in [path.read_bytes()]
    ]
    fetch(artifacts, Store(store), jobs=2, patience=Patience(attempts=4, first_wait=0.01, longest_wait=0.05))
