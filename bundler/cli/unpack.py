"""``bundler unpack``."""

from __future__ import annotations

import shlex
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.install import environment_records
from bundler.cli.options import installer_option, launch_option, restart_option, threads_option
from bundler.cli.output import answer, say, show_document
from bundler.cli.share import listen_options, sharing
from bundler.cli.trust import trust_options
from bundler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundler.archive.bundle import Bundle
    from bundler.archive.share import Shelf
    from bundler.archive.trust import Trust
    from bundler.installation import Installation


@command("unpack")
@click.argument("places", metavar="[BUNDLE…] [DEST]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Unpack the volumes that are here; the next disk's come later.")
@click.option("--verify-first", is_flag=True, help="Read every volume once before the first write.")
@click.option("--no-install", "install", flag_value=False, default=True, help="Unpack only.")
@installer_option
@click.option("--prune-store", is_flag=True, help="Remove .pkg-cache/mirror once it is installed.")
@click.option(
    "--skip-preflight", "preflight", flag_value=False, default=True, help="Don't check the host first."
)
@click.option("--dry-run", is_flag=True, help="Check bundle, host and destination, and stop there.")
@click.option(
    "--from",
    "source",
    metavar="OLD",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Take files of the same sha256 from an installation, cloned, else linked, else copied, or from a "
    "bundle.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Older generations that stay after an update, for bundler rollback.",
)
@restart_option
@click.option("--share", is_flag=True, help="Let other hosts have what is unpacked, until ^C.")
@listen_options
@launch_option
@trust_options
@threads_option
def unpack_command(
    places: tuple[Path, ...],
    dry_run: bool,
    share: bool,
    bind: str,
    port: int,
    trust: Trust,
    **words: Any,
) -> None:
    """Check, unpack and install a bundle.

    BUNDLE is the folder with manifest.json, or a disk with such a folder; several disks hold one bundle
    together; or an address that bundler share printed, or several, of which the first that has a part gives
    it. DEST is where it goes, and comes last. Without BUNDLE, the one that is here or in ./bundles; without
    DEST, $BUNDLER_HOME, else NAME-installed, but not on the disk that the bundle came on. Interrupted, the
    same command goes on where it stopped.

    Where DEST is an installation with other files of these names, it is updated: the new generation is made
    beside the one that counts, takes over what is equal, and counts once it is whole.
    """
    from bundler.cli.progress import reporter
    from bundler.work.places import default_destination
    from bundler.work.unpack import UnpackOptions, check, unpack
    from bundler.work.update import place_for

    with _opened(places, trust) as (bundle, destination):
        destination = destination or default_destination(bundle)
        options = UnpackOptions(reporter=reporter(), **words)
        sources = _addresses(places)
        way = f"{bundle.name} from {', '.join(sources or map(str, bundle.folders))} to {destination}"
        if dry_run:
            check(bundle, place_for(bundle, destination, options.source), options)
            facts = {"dry_run": True, "bundle": bundle.name, "destination": destination}
            answer(facts, f"nothing stands in the way of {way}; nothing was written")
            return
        options.reporter.say(f"unpacking {way}")
        with _shared(bundle, destination, sources, bind, port) if share else nullcontext():
            _report(unpack(bundle, destination, options))


@contextmanager
def _shared(
    bundle: Bundle, destination: Path, sources: Sequence[str], bind: str, port: int
) -> Iterator[None]:
    """Share what is unpacked in the block, and after it until ^C: the disk's files, or what is kept."""
    from bundler.archive.http_bundle import SharedBundle
    from bundler.archive.kept_volumes import KeptVolumes
    from bundler.archive.share import SharedFiles
    from bundler.installation import VOLUMES

    where = end = ""
    shelf: Shelf = SharedFiles(bundle)
    if isinstance(bundle, SharedBundle):
        shelf = bundle.kept = KeptVolumes(bundle, destination.absolute() / VOLUMES)
        where, end = f" from {shelf.folder}", ", and the folder may be deleted then"
    with sharing(bundle, shelf, bind, port, sources) as thread:
        yield
        say(f"sharing {bundle.name}{where}; ^C ends it{end}")
        show_document()
        thread.join()


def _addresses(places: tuple[Path, ...]) -> list[str]:
    from bundler.archive.http_bundle import address_of

    return [address for place in places if (address := address_of(place))]


@contextmanager
def _opened(places: tuple[Path, ...], trust: Trust) -> Iterator[tuple[Bundle, Path | None]]:
    """Open the bundle that the words mean, on disks or shared by another host.

    :raises UsageError: a shared one, and not one destination.
    """
    from bundler.archive.bundle import Bundle
    from bundler.archive.http_bundle import open_shared
    from bundler.work.places import sort_places

    addresses = _addresses(places)
    if not addresses:
        folders, destination = sort_places(places)
        with Bundle.open(folders, trust) as bundle:
            yield bundle, destination
        return
    if len(places) != len(addresses) + 1 or _addresses(places[-1:]):
        words = " ".join(addresses)
        raise UsageError("say where it goes", hint=f"bundler unpack {words} DEST --sha256 DIGEST")
    with open_shared(addresses, trust) as bundle:
        yield bundle, places[-1]


def _report(installation: Installation) -> None:
    """Say what is where, and what comes next."""
    root, done = installation.root, environment_records(installation)
    models = [{"name": one.spec.name, "folder": root / one.path} for one in installation.models.values()]
    waiting = sorted(set(installation.environments) - {one["name"] for one in done})
    facts = {
        "installation": installation.home,
        "root": root,
        "environments": done,
        "models": models,
        "not_installed": waiting,
        "next": _next(installation, waiting),
    }
    answer(
        facts,
        *(f"environment {one['name']}: installed by {one['installer']} in {one['prefix']}" for one in done),
        *(f"model {one['name']}: {one['folder']}" for one in models),
        *_next_lines(installation, waiting),
    )


def _next(installation: Installation, waiting: Sequence[str]) -> str | None:
    """Return the line to type next, if it is known."""
    home = installation.home
    folder = shlex.quote(str(home))
    if waiting:
        return f"bundler install {folder}"
    if not (installation.environments and installation.models):
        return None
    program = "bin/bundler" if (home / "bin" / "bundler").is_file() else "bundler"
    words = [program, "serve"]
    # Where there are several, one must be named; the last one that came is as good as any.
    if len(installation.environments) > 1:
        words += ["--env", list(installation.environments)[-1]]
    if len(installation.models) > 1:
        words += ["--model", list(installation.models)[-1]]
    return f"cd {folder} && {shlex.join(words)}"


def _next_lines(installation: Installation, waiting: Sequence[str]) -> Iterator[str]:
    if waiting:
        names = ", ".join(waiting)
        yield f"not installed yet: {names}; install with: {_next(installation, waiting)}"
    elif not installation.environments:
        yield "no environment is here: before `bundler serve`, unpack a bundle that holds one here, too"
    elif line := _next(installation, waiting):
        yield f"next: {line}"
