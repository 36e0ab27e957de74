"""``unpack``, step by step: preflight, unpack, receipt, install, check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from bundler import __version__
from bundler.errors import InputError
from bundler.installation import Installation, Receipt, UnpackedBundle, now, write_receipt
from bundler.launch_names import exceptions

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.archive.bundle import Bundle
    from bundler.archive.unpack import Unpacked
    from bundler.common.progress import Reporter
    from bundler.host.facts import HostFacts
    from bundler.host.space import Need
    from bundler.install.installer import InstallerWord
    from bundler.manifest import Manifest
    from bundler.work.update import Place


@dataclass(frozen=True, kw_only=True)
class UnpackOptions:
    """What the user chose besides bundle and destination."""

    threads: int | None = None
    partial: bool = False
    verify_first: bool = False
    preflight: bool = True
    install: bool = True
    installer: InstallerWord = "auto"
    prune_store: bool = False
    allow_launch: tuple[str, ...] = ()
    """Names that the models' launches may set though they aren't on the lists."""
    source: Path | None = None
    """An installation or a bundle whose files are taken over where they are the bundle's."""
    keep: int = 1
    """Older generations that stay after an update."""
    restart: bool = False
    """Whether systemd's units are restarted that serve from an older generation."""
    reporter: Reporter


def check(bundle: Bundle, place: Place, options: UnpackOptions) -> None:
    """Refuse what can't be unpacked, before anything is written.

    :raises BundlerError: bundle, destination or host aren't fit.
    """
    from bundler.archive import survey
    from bundler.archive.volume_check import check_volumes
    from bundler.work.running import require_systemd
    from bundler.work.update import check_base

    if options.restart:
        require_systemd()
    # What is wrong with bundle and place comes first: the preflight tries the destination by writing to it.
    survey.check_place(bundle, place.root)
    check_base(bundle, place)
    _allowed(bundle, options)
    check_volumes(bundle, partial=options.partial)
    if options.preflight:
        _preflight(bundle, place, options)


def unpack(bundle: Bundle, destination: Path, options: UnpackOptions) -> Installation:
    """Check, unpack and install a bundle.

    An installation whose files it would replace gets a new generation, which counts when it is whole.

    :raises BundlerError: any step's; run again, each goes on where it stopped.
    """
    from bundler.work import update

    with update.place_for(bundle, destination, options.source) as place:
        check(bundle, place, options)
        update.begin(place, options.reporter)
        installation = _bring(bundle, place, options)
        if options.install and (bundle.manifest.environments or place.old):
            return _install(installation, bundle, place, options)
    if place.old:
        options.reporter.say(
            "the new generation is unpacked and not installed: what counted before counts still; "
            "the same command without --no-install goes on"
        )
        return place.old
    return installation


def _bring(bundle: Bundle, place: Place, options: UnpackOptions) -> Installation:
    """Unpack the files, carry on what the bundle doesn't name, and write the receipt."""
    from bundler.archive.unpack import unpack_bundle
    from bundler.work.carry import carry_on

    unpacked = unpack_bundle(
        bundle,
        place.root,
        threads=options.threads,
        partial=options.partial,
        verify_first=options.verify_first,
        donor=place.donor,
        reporter=options.reporter,
    )
    if place.old:
        carry_on(place.old, place.root, bundle.manifest)
    _keep_receipt(bundle, place.root, unpacked, options)
    installation = Installation(place.root, follow=False)
    if place.old and (left := sorted({*place.old.environments} - {*installation.environments})):
        options.reporter.say(
            f"not in the new generation: {', '.join(left)}; the bundle's lock replaces the one it was of"
        )
    return installation


def _install(
    installation: Installation, bundle: Bundle, place: Place, options: UnpackOptions
) -> Installation:
    """Install what the bundle brought; in a new generation all that it has, and then let it count."""
    from bundler.work import update
    from bundler.work.install import install_environments, remove_store

    brought = [environment.name for environment in bundle.manifest.environments]
    names = list(installation.environments) if place.old else brought
    if names:
        installation = install_environments(installation, names, options.installer, options.reporter)
    if options.prune_store:
        installation = remove_store(installation, options.reporter)
    update.finish(place, bundle, options.keep, options.reporter, restarts=options.restart)
    return installation


def _allowed(bundle: Bundle, options: UnpackOptions) -> tuple[str, ...]:
    specs = [model.spec for model in bundle.manifest.models]
    return exceptions(specs, options.allow_launch, ", ".join(map(str, bundle.folders)))


def _preflight(bundle: Bundle, place: Place, options: UnpackOptions) -> None:
    from bundler.host.facts import describe
    from bundler.host.preflight import preflight, require
    from bundler.work.carried import other_platforms

    host, wanted = describe(), None if options.install else ()
    manifest = bundle.manifest
    if place.donor is not None:
        manifest = msgspec.structs.replace(manifest, tree=place.donor.lacks(manifest))
    found = preflight([manifest], place.root, host, environments=wanted, more=_kept(bundle, manifest))
    for finding in require(found, place.root):
        options.reporter.say(f"warning: {finding.line}")
    for other in other_platforms(bundle, host):
        options.reporter.say(f"warning: {other}")
    if line := serving_line(bundle.manifest, host):
        options.reporter.say(f"warning: {line}")


def _kept(bundle: Bundle, lacking: Manifest) -> list[Need]:
    """Return what the volumes take that are kept for other hosts.

    :param lacking: the manifest with those files alone that will be unpacked.
    """
    from bundler.archive.http_bundle import SharedBundle
    from bundler.host.space import Need

    if not isinstance(bundle, SharedBundle) or bundle.kept is None:
        return []
    size = min(bundle.kept.bytes_missing(), sum(entry.size for entry in lacking.tree))
    return [Need("volumes for other hosts", bundle.kept.folder, size, len(bundle.manifest.volumes))]


def serving_line(manifest: Manifest, host: HostFacts) -> str | None:
    """Say on one line what would keep the server from running here; unpacking doesn't depend on it.

    :returns: ``None`` where nothing would, or none of the bundle's environments is for GPUs.
    """
    from bundler.host.doctor import examine_all

    environments = manifest.environments
    if not any(one.cuda or one.sglang for one in environments) and (environments or not manifest.models):
        return None
    found = examine_all(host, manifest.environments, manifest.models)
    names = list(dict.fromkeys(finding.name for finding in found if finding.level == "fail"))
    if not names:
        return None
    things = "1 thing" if len(names) == 1 else f"{len(names)} things"
    return (
        f"serving here will need {things}: {', '.join(names)}; bundler doctor, after the unpack, says how to "
        "mend each"
    )


def _keep_receipt(bundle: Bundle, destination: Path, unpacked: Unpacked, options: UnpackOptions) -> None:
    """Write what was checked, beside what earlier bundles' receipts say."""
    try:
        old = Installation(destination, follow=False).receipt
    except InputError:
        old = Receipt()
    entry = UnpackedBundle(
        name=bundle.name,
        manifest_sha256=bundle.manifest_sha256,
        bundler=__version__,
        finished=now(),
        checked=f"{bundle.provenance.text}; {unpacked.checked}",
        provenance=bundle.provenance,
        allowed_launch=_allowed(bundle, options),
    )
    files = {file.path: file for file in old.files} | {file.path: file for file in unpacked.files}
    others = (one for one in old.bundles if one.manifest_sha256 != entry.manifest_sha256)
    receipt = Receipt(
        bundles=(*others, entry),
        environments=old.environments,
        files=tuple(files[path] for path in sorted(files)),
    )
    write_receipt(destination, receipt)
