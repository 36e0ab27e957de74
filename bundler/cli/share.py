"""``bundler share``: a bundle for the other hosts of a rack; and what ``unpack --share`` says as well."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.output import answer, say, show_document
from bundler.cli.trust import trust_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.archive.bundle import Bundle
    from bundler.archive.share import Shelf
    from bundler.archive.trust import Trust


def listen_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--bind`` and ``--port``."""
    bind = click.option("--bind", default="0.0.0.0", show_default=True, help="The address to listen at.")
    port = click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
    return bind(port(command))


@command("share")
@click.argument("places", metavar="[BUNDLE…]", nargs=-1, type=click.Path(path_type=Path, exists=True))
@listen_options
@trust_options
def share_command(places: tuple[Path, ...], bind: str, port: int, trust: Trust) -> None:
    """Share a bundle with other hosts by HTTP, until ^C: read-only, and nothing but the bundle's files.

    The line to type on the others is printed. They check each frame as from a disk, and take the bundle with
    a digest or a signature only.
    """
    from bundler.archive.bundle import Bundle, find_bundle
    from bundler.archive.share import SharedFiles

    folders = [find_bundle(place) for place in places] or [find_bundle()]
    with Bundle.open(folders, trust) as bundle:
        if bundle.missing:
            say(f"warning: not here, and not shared: {', '.join(bundle.missing)}")
        with sharing(bundle, SharedFiles(bundle), bind, port) as thread:
            say(f"sharing {bundle.name} from {', '.join(map(str, folders))}; ^C ends it")
            # Before it is ended: whoever reads it must know where to ask.
            show_document()
            thread.join()


@contextmanager
def sharing(
    bundle: Bundle, shelf: Shelf, bind: str, port: int, sources: Sequence[str] = ()
) -> Iterator[Thread]:
    """Share until the end of the block, and say what to type on the others.

    :param sources: addresses that have the bundle, too.
    """
    from bundler.archive.share import open_server
    from bundler.host.facts import interfaces

    with open_server(shelf, bind, port, say) as server:
        hosts = [bind] if bind not in ("0.0.0.0", "::") else _addresses(interfaces())
        addresses = [f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/" for host in hosts]
        # Of a long chain the neighbour and the first one will do.
        others = dict.fromkeys([*sources[:1], *sources[-1:]])
        digest = bundle.provenance.sums_sha256
        who = "on the next host" if sources else "on the others"
        last = ["DEST --sha256", digest, *(["--share"] if sources else [])]
        answer(
            {"bundle": bundle.name, "addresses": addresses, "sums_sha256": digest},
            *(f"{who}: {' '.join(['bundler unpack', one, *others, *last])}" for one in addresses),
        )
        thread = Thread(target=server.serve_forever, name="share", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            server.shutdown()


def _addresses(found: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the addresses by which others may reach this host, IPv4 ones first."""
    every = [address for name, addresses in found.items() if name != "lo" for address in addresses]
    return sorted((one for one in every if not one.startswith("fe80")), key=lambda one: ":" in one)[:3] or [
        "127.0.0.1"
    ]
