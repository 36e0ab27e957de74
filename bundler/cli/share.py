"""``bundler share``: a bundle for the other hosts of a rack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.cli.command import command
from bundler.cli.output import answer, say, show_document
from bundler.cli.trust import trust_options

if TYPE_CHECKING:
    from bundler.archive.trust import Trust


@command("share")
@click.argument("places", metavar="[BUNDLE…]", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--bind", default="0.0.0.0", show_default=True, help="The address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@trust_options
def share_command(places: tuple[Path, ...], bind: str, port: int, trust: Trust) -> None:
    """Share a bundle with other hosts by HTTP, until ^C: read-only, and nothing but the bundle's files.

    The line to type on the others is printed. They check each frame as from a disk, and take the bundle with
    a digest or a signature only.
    """
    from bundler.archive.bundle import Bundle, find_bundle
    from bundler.archive.share import open_server, shared_files
    from bundler.host.facts import interfaces

    folders = [find_bundle(place) for place in places] or [find_bundle()]
    with Bundle.open(folders, trust) as bundle:
        files, digest = shared_files(bundle), bundle.provenance.sums_sha256
        name = bundle.name
        if bundle.missing:
            say(f"warning: not here, and not shared: {', '.join(bundle.missing)}")
    with open_server(files, bind, port, say) as server:
        say(f"sharing {name} from {', '.join(map(str, folders))}; ^C ends it")
        hosts = [bind] if bind not in ("0.0.0.0", "::") else _addresses(interfaces())
        addresses = [f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/" for host in hosts]
        answer(
            {"bundle": name, "addresses": addresses, "sums_sha256": digest},
            *(f"on the others: bundler unpack {one} DEST --sha256 {digest}" for one in addresses),
        )
        # Before it is ended: whoever reads it must know where to ask.
        show_document()
        sys.stdout.flush()
        server.serve_forever()


def _addresses(found: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the addresses by which others may reach this host, IPv4 ones first."""
    every = [address for name, addresses in found.items() if name != "lo" for address in addresses]
    return sorted((one for one in every if not one.startswith("fe80")), key=lambda one: ":" in one)[:3] or [
        "127.0.0.1"
    ]
