"""What ``bundler --version`` says: which bundler this is, and what its archives' bytes depend on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

import bundler
from bundler.cli.output import show
from bundler.common.ask import ask

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(bundler.__file__).resolve().parents[1]
"""The checkout that bundler runs from, where it isn't installed."""
GIT_SECONDS = 5


def version_option(group: Callable[..., object]) -> Callable[..., object]:
    """``-V``, ``--version``: of bundler, its commit, Python and libzstd."""
    return click.option(
        "-V",
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show,
        help="Show bundler's version, its commit where it is known, Python's and libzstd's.",
    )(group)


def _show(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    show(*version_lines())
    context.exit()


def version_lines() -> list[str]:
    """Return a line for each version; the first is bundler's."""
    import platform

    import zstandard

    known = commit()
    return [
        f"bundler, version {bundler.__version__}",
        *([f"commit {known}"] if known else []),
        f"Python {platform.python_version()}",
        f"libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}",
    ]


def commit() -> str | None:
    """Return the commit that bundler was installed from, or that its checkout is at, where one is known."""
    return _checkout_commit() if (CHECKOUT / ".git").exists() else _installed_commit()


def _checkout_commit() -> str | None:
    words = ["git", "-C", str(CHECKOUT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = ask(words, seconds=GIT_SECONDS)
    except OSError:
        return None
    return done.out.strip() or None if done.code == 0 else None


def _installed_commit() -> str | None:
    """Read what pip and uv note of an install from a repository (PEP 610)."""
    from importlib import metadata

    try:
        noted = metadata.distribution("bundler").read_text("direct_url.json")
        known: object = json.loads(noted or "{}").get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
    return known if isinstance(known, str) else None
