"""The options by which a user says whose bundles are taken."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


def _digest(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch("[0-9a-f]{64}", value):
        raise click.BadParameter(f"{value!r} is not a sha256: 64 of 0-9 and a-f, as pack printed them")
    return value


digest_option = click.option(
    "--sha256",
    metavar="DIGEST",
    callback=_digest,
    help="The sha256 that SHA256SUMS must have, as pack printed it.",
)
signers_option = click.option(
    "--allowed-signers",
    metavar="FILE",
    envvar="BUNDLER_ALLOWED_SIGNERS",
    type=click.Path(path_type=Path),
    help="Whose signature a bundle must have.  "
    "[default: $BUNDLER_ALLOWED_SIGNERS, or /etc/bundler/allowed_signers where it is there]",
)


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--allowed-signers``, ``--sha256``, ``--insecure-unsigned``: given to the command as ``trust``."""

    @functools.wraps(command)
    def with_trust(
        *, allowed_signers: Path | None, sha256: str | None, insecure_unsigned: bool, **words: Any
    ) -> Any:
        from bundler.archive.trust import host_trust

        trust = host_trust(
            allowed_signers=allowed_signers, sha256=sha256, insecure_unsigned=insecure_unsigned
        )
        return command(trust=trust, **words)

    unsigned = click.option(
        "--insecure-unsigned", is_flag=True, help="Ask for no signature, though allowed signers are named."
    )
    return signers_option(digest_option(unsigned(with_trust)))
