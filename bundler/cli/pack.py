"""``bundler pack``."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.options import (
    Size,
    choice_options,
    installer_option,
    launch_option,
    threads_option,
    workspace_option,
)
from bundler.cli.output import answer, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from bundler.manifest import Manifest


def _choices(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what is rarely asked for."""
    options = [
        click.option("--name", help="The bundle's name.  [default: MODEL-ENV]"),
        click.option(
            "--level",
            default=1,
            show_default=True,
            type=click.IntRange(-7, 22),
            help="zstd's level; 0 stores.",
        ),
        click.option(
            "--volume-size",
            type=Size(),
            default="8GiB",
            show_default=True,
            help="The most bytes of a volume; 3900MiB suits FAT32.",
        ),
        click.option(
            "--parity",
            default=0,
            show_default=True,
            type=click.IntRange(0, 32),
            help="Parity volumes for each 100 files: so many may be lost and mended by `bundler repair`.",
        ),
        click.option(
            "--jobs", default=8, show_default=True, type=click.IntRange(1, 64), help="Downloads at once."
        ),
        click.option(
            "--no-rehearse", "rehearse", flag_value=False, default=True, help="Don't install it once here."
        ),
        click.option(
            "--rehearse-again", is_flag=True, help="Rehearse, whatever is remembered of an earlier rehearsal."
        ),
        installer_option,
        click.option(
            "--stream", is_flag=True, help="Write weights as they arrive, without a copy on this disk."
        ),
        click.option("--rehash", is_flag=True, help="Read weights that were checked before once more."),
        click.option(
            "--allow-pickle", is_flag=True, help="Carry weights that are pickles, which can run code."
        ),
        launch_option,
        click.option(
            "--sign",
            "key",
            metavar="KEY",
            type=click.Path(path_type=Path),
            help="Sign it with an OpenSSH key: a private one, or an agent's or a token's public key.",
        ),
        click.option(
            "--replace",
            is_flag=True,
            help="Replace a finished bundle of the same name; it stays until then, where there is room.",
        ),
        click.option(
            "--pixi",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="A pixi to carry where the workspace's environment 'bundler' has none.",
        ),
        click.option(
            "--since",
            metavar="BASE",
            type=click.Path(path_type=Path, exists=True),
            help="A delta: carry what this bundle, manifest.json or installation lacks.",
        ),
        click.option("--dry-run", is_flag=True, help="Plan, and stop there."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@command("pack")
@choice_options
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the bundle's folder is made; several disks are filled in turn.  [default: bundles]",
)
@workspace_option
@_choices
@threads_option
def pack_command(workspace: Path, target: Path | None, key: Path | None, dry_run: bool, **words: Any) -> None:
    """Write a bundle: plan, fetch, rehearse, write.

    Interrupted, the same command goes on where it stopped.
    """
    from bundler.archive.parity import least_bytes
    from bundler.archive.ssh_keygen import check_key
    from bundler.cli.plan import show_plan
    from bundler.cli.progress import reporter
    from bundler.work.pack import PackOptions, bundle_folders, check_choices, pack
    from bundler.work.plan import check_space, check_target, check_volume_size, make_plan
    from bundler.work.selection import select
    from bundler.work.sign import sign_packed, sums_seen

    say(f"workspace: {workspace.absolute()}")
    if key is not None:
        check_key(key)
    names, models = words.pop("environments"), words.pop("models")
    allowed = {word: words.pop(word) for word in ("allow_unhashed", "allow_pickle", "all_files", "platform")}
    selection = select(workspace, names, models, target=target, **allowed)
    options = PackOptions(reporter=reporter(), **words)
    folders = bundle_folders(selection, options)
    check_choices(selection, options, folders)
    parity = partial(least_bytes, options.parity, options.volume_size)
    plan = make_plan(selection, folders, stream=options.stream, parity=parity, rehearsed=options.rehearse)
    show_plan(plan, dry_run=dry_run)
    if target is not None:
        check_target(selection, target)
    if dry_run:
        return
    check_space(plan)
    check_volume_size(plan, folders, options.volume_size)
    before = sums_seen(folders)
    manifest, folders = pack(selection, options)
    signer = sign_packed(folders, key, before, options.reporter.say) if key is not None else None
    _report(manifest, folders, signer)


def _report(manifest: Manifest, folders: tuple[Path, ...], signer: str | None) -> None:
    """Say what was written, and what comes next.

    :param signer: the fingerprint of the key that signed it.
    """
    from bundler.archive.sums import digest_in
    from bundler.common.units import size_text

    written, digest = sum(volume.size for volume in manifest.volumes), digest_in(folders)
    facts = {
        "name": manifest.name,
        "folders": folders,
        "size": written,
        "volumes": manifest.volumes,
        "sums_sha256": digest,
        "signed_with": signer,
        "rehearsal": manifest.rehearsal,
        "parity": manifest.parity,
    }
    noun = "volume" if len(manifest.volumes) == 1 else "volumes"
    lines = [f"{', '.join(map(str, folders))}: {len(manifest.volumes)} {noun}, {size_text(written)}"]
    lines.append(f"rehearsal: {manifest.rehearsal.status}{_rehearsed(manifest)}")
    if manifest.parity is not None:
        lines.append(f"parity: of each {manifest.parity.data} files, {manifest.parity.parity} can be mended")
    lines.append(f"sha256 of SHA256SUMS: {digest}")
    lines += [f"signed with {signer}"] if signer else []
    first, *others = _disks(folders)
    if manifest.runtime is not None:
        lines.append(f"on the air-gapped host: {' '.join(['sh', f'{first}/install.sh', 'DEST', *others])}")
    lines.append(f"where bundler is already: {' '.join(['bundler', 'unpack', first, *others, 'DEST'])}")
    answer(facts, *lines)


def _disks(folders: tuple[Path, ...]) -> list[str]:
    """Name the folders that hold volumes; where several disks will be mounted isn't known here."""
    filled = [folder for folder in folders if any(folder.glob("data-*"))]
    if len(filled) < 2:
        return [shlex.quote(folders[0].name)]
    return [shlex.quote(f"DISK{number}/{folder.name}") for number, folder in enumerate(filled, 1)]


def _rehearsed(manifest: Manifest) -> str:
    seen = manifest.rehearsal
    if seen.status != "passed":
        return f" ({seen.reason})"
    imports = f", imported {', '.join(seen.imports)}" if seen.imports else ""
    return f" (by {seen.installer}, network cut by {seen.isolation}{imports})"
