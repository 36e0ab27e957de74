"""``bundler sign``."""

from __future__ import annotations

from pathlib import Path

import click

from bundler.cli.command import command
from bundler.cli.output import answer, say
from bundler.cli.trust import digest_option


@command("sign")
@click.argument("places", metavar="BUNDLE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="OpenSSH's private key, or the public key (.pub) of one that ssh-agent or a token holds.",
)
@digest_option
def sign_command(places: tuple[Path, ...], key: Path, sha256: str | None) -> None:
    """Sign a finished bundle, also on another machine than it was packed on.

    BUNDLE is the bundle's folder; with several disks, each of its folders. What is signed is SHA256SUMS as it
    lies there: compare it with what pack printed (--sha256), and run `bundler verify` first.
    """
    from bundler.archive.bundle import find_bundle
    from bundler.archive.trust import Trust
    from bundler.cli.progress import reporter
    from bundler.work.sign import sign_bundle

    folders = [find_bundle(place) for place in places]
    say(f"bundle: {', '.join(str(folder.absolute()) for folder in folders)}")
    digest, fingerprint = sign_bundle(folders, key, Trust(sha256=sha256), reporter().say)
    answer(
        {"folders": folders, "signed_with": fingerprint, "sums_sha256": digest},
        f"signed with {fingerprint}: {', '.join(map(str, folders))}",
        f"sha256 of SHA256SUMS: {digest}",
    )
