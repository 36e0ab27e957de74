"""``bundler inspect``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bundler.cli.command import command
from bundler.cli.output import MANNER, answer, named, show
from bundler.cli.trust import signers_option
from bundler.common.units import size_text
from bundler.errors import BundlerError
from bundler.installation import waiting_of
from bundler.launch_names import unlisted
from bundler.report.launch_text import UNLISTED, launch_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.archive.bundle import Bundle
    from bundler.archive.trust import Trust
    from bundler.installation import Installation
    from bundler.manifest import Environment, Manifest, Model
    from bundler.provenance import Provenance


@command("inspect")
@click.argument("places", metavar="[PATH…]", nargs=-1, type=click.Path(path_type=Path, exists=True))
@signers_option
def inspect_command(places: tuple[Path, ...], allowed_signers: Path | None) -> None:
    """Say what a bundle or an installation holds, and what the target needs.

    PATH is a bundle's folder, or several disks' that hold one bundle together, or an installation; without
    it, the ones that are here. Only the manifest is read; `bundler verify` checks the bytes.
    """
    from bundler.archive.trust import host_trust
    from bundler.work.subjects import find_subjects

    trust = host_trust(allowed_signers=allowed_signers)
    bundles, installations = find_subjects(places)
    if MANNER.json:
        records = [_bundle_record(bundle, trust) for bundle in bundles]
        answer({"bundles": records, "installations": [_installation_record(one) for one in installations]})
    else:
        blocks = [_bundle_lines(bundle, trust) for bundle in bundles]
        blocks += [_installation_lines(one) for one in installations]
        for number, lines in enumerate(blocks):
            show(*([""] if number else []), *lines)
    for bundle in bundles:
        bundle.close()


def _bundle_record(bundle: Bundle, trust: Trust) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": bundle.name,
        "folders": [str(folder) for folder in bundle.folders],
        "manifest_sha256": bundle.manifest_sha256,
        "format": manifest.format,
        "written_by": manifest.writer,
        **_provenance_record(bundle, trust),
        **_content_record(manifest),
        "rehearsal": manifest.rehearsal,
        "runtime": manifest.runtime,
        "volumes": manifest.volumes,
        "missing": bundle.missing,
        "parity": _parity_record(bundle),
        "frames": len(manifest.frames.raw),
        "stored_bytes": sum(volume.size for volume in manifest.volumes),
    }


def _provenance_record(bundle: Bundle, trust: Trust) -> dict[str, Any]:
    """Say who signed: ``signed`` is null where a signature lies there that nothing was asked to check."""
    provenance, problem = _checked(bundle, trust)
    unknown = provenance.unchecked_signature and problem is None
    return {
        "signed": None if unknown else provenance.signature is not None,
        "signature_problem": problem,
        "provenance": provenance,
    }


def _checked(bundle: Bundle, trust: Trust) -> tuple[Provenance, str | None]:
    """Check a bundle's signature, and return what is known of it then, and what is wrong with it."""
    try:
        return trust.check(bundle.sums_data, bundle.folders), None
    except BundlerError as problem:
        return bundle.provenance, "; ".join([problem.what, *problem.findings])


def _content_record(manifest: Manifest) -> dict[str, Any]:
    from bundler.host.fit import needs_text
    from bundler.report.needs import installed_size, payload_bytes

    return {
        "environments": manifest.environments,
        "models": manifest.models,
        "launch_unlisted": {model.spec.name: unlisted(model.spec) for model in manifest.models},
        "needs": {
            "payload_bytes": payload_bytes(manifest),
            "payload_files": sum(entry.kind == "file" for entry in manifest.tree),
            "installed_bytes": installed_size(manifest)[0],
            "installed_inodes": installed_size(manifest)[1],
            "models": {model.spec.name: needs_text(model.spec, model.facts) for model in manifest.models},
        },
    }


def _installation_record(installation: Installation) -> dict[str, Any]:
    return {
        "root": str(installation.root),
        "receipt": {
            "bundles": installation.receipt.bundles,
            "environments": installation.receipt.environments,
            "files": len(installation.receipt.files),
        },
        "environments": tuple(installation.environments.values()),
        "models": tuple(installation.models.values()),
    }


def _bundle_lines(bundle: Bundle, trust: Trust) -> Iterator[str]:
    from bundler.report.needs import target_lines

    manifest = bundle.manifest
    yield f"bundle {bundle.name}  ({', '.join(map(str, bundle.folders))})"
    provenance, problem = _checked(bundle, trust)
    yield f"  signature: {f'NOT TO BE TRUSTED: {problem}' if problem else provenance.signature_text}"
    yield f"  sha256 of SHA256SUMS: {provenance.sums_sha256}"
    for environment in manifest.environments:
        yield from _environment_lines(environment)
    for model in manifest.models:
        yield from _model_lines(model)
    yield from _rehearsal_lines(manifest)
    yield "  the target needs"
    yield from (f"    {line}" for line in target_lines(manifest))
    yield from _volume_lines(bundle)


def _environment_lines(environment: Environment) -> Iterator[str]:
    aliases = f" (also {', '.join(environment.aliases)})" if environment.aliases else ""
    words = {
        "CUDA": environment.cuda,
        "Python": environment.python,
        "torch": environment.torch,
        "SGLang": environment.sglang,
    }
    versions = ", ".join(f"{word} {version}" for word, version in words.items() if version)
    conda = sum(package.kind == "conda" for package in environment.packages)
    wheels = len(environment.packages) - conda
    yield f"  environment {environment.name}{aliases}: {versions or environment.platform}"
    yield f"    {conda} conda packages, {wheels} wheels, {size_text(_packed(environment))}"


def _model_lines(model: Model, mark: str = UNLISTED) -> Iterator[str]:
    from bundler.host.fit import count_text

    facts = model.facts
    revision = f" @ {model.revision}" if model.revision else ""
    yield f"  model {model.spec.name}: {model.origin}{revision}"
    figures = [
        facts.architecture,
        facts.dtype,
        facts.quantization,
        f"{count_text(facts.parameters)} parameters" if facts.parameters else None,
        f"{size_text(facts.weight_bytes)} of weights in {facts.shards} shards" if facts.shards else None,
        f"context {facts.context_length}" if facts.context_length else None,
    ]
    known = [figure for figure in figures if figure]
    if known:
        yield f"    {', '.join(known)}"
    yield f"    licence: {facts.license or 'not stated'}{_license_files(model)}"
    if facts.remote_code:
        yield f"    runs code of its own: {', '.join(facts.remote_code)}"
    for condition, words in launch_lines(model.spec.launch, mark):
        yield from (f"    served {condition}: {word}" for word in words)


def _license_files(model: Model) -> str:
    names = [path.rpartition("/")[2] for path in model.license_files]
    return f" ({', '.join(names)})" if names else ""


def _rehearsal_lines(manifest: Manifest) -> Iterator[str]:
    seen = manifest.rehearsal
    if seen.status == "passed":
        imports = f", imported {', '.join(seen.imports)}" if seen.imports else ""
        yield f"  rehearsal: passed by {seen.installer}, network cut by {seen.isolation}{imports}"
    else:
        yield f"  rehearsal: {seen.status} ({seen.reason})"
    runtime = manifest.runtime
    if runtime is None:
        yield "  runtime: none; the target needs bundler already"
    else:
        pixi = f", pixi {runtime.pixi}" if runtime.pixi else ", no pixi"
        yield f"  runtime: bundler {runtime.bundler}, Python {runtime.python}{pixi}, from {runtime.source}"


def _volume_lines(bundle: Bundle) -> Iterator[str]:
    volumes = bundle.manifest.volumes
    stored = sum(volume.size for volume in volumes)
    yield f"  volumes: {len(volumes)}, {size_text(stored)}, {len(bundle.manifest.frames.raw)} frames"
    for place, run in itertools.groupby(volumes, lambda volume: _folder_of(bundle, volume.name)):
        first, *others = run
        last = f" to {others[-1].name}" if others else ""
        size = sum(volume.size for volume in (first, *others))
        yield f"    {first.name}{last}  {size_text(size)}  {place or 'not here'}"
    if bundle.missing:
        yield f"    {len(bundle.missing)} of them are not here"
    yield from _parity_lines(bundle)


def _parity_lines(bundle: Bundle) -> Iterator[str]:
    record = _parity_record(bundle)
    if record is None:
        return
    there, names = record["here"], record["volumes"]
    size = size_text(sum(there.values()))
    yield f"  parity: {len(names)}, {size}; of each {record['data']} files {record['parity']} can be mended"
    lacking = [name for name in names if name not in there]
    if lacking:
        yield f"    not here: {', '.join(lacking)}"


def _parity_record(bundle: Bundle) -> dict[str, Any] | None:
    from bundler.archive.parity_advice import parity_names

    if bundle.manifest.parity is None:
        return None
    names = parity_names(bundle)
    paths = {path.name: path for folder in bundle.folders for path in folder.iterdir() if path.name in names}
    here = {name: path.stat().st_size for name, path in sorted(paths.items()) if path.is_file()}
    return {**named(bundle.manifest.parity), "volumes": names, "here": here}


def _folder_of(bundle: Bundle, name: str) -> str | None:
    """Return where a volume lies, or ``None``: volumes are named by the folders they share, disk by disk."""
    there = bundle.volumes.get(name)
    return None if there is None else str(there.path).rpartition("/")[0]


def _installation_lines(installation: Installation) -> Iterator[str]:
    yield f"installation {installation.root}"
    for bundle in installation.receipt.bundles:
        yield f"  bundle {bundle.name}: unpacked {bundle.finished} by bundler {bundle.bundler}"
        yield f"    checked: {bundle.checked}"
        if bundle.allowed_launch:
            yield f"    by --allow-launch: {', '.join(bundle.allowed_launch)}"
    done = {one.name: one for one in installation.receipt.environments}
    for environment in installation.environments.values():
        yield from _environment_lines(environment)
        one = done.get(environment.name)
        yield f"    installed {one.finished} by {one.installer}" if one else "    not installed yet"
    for model in installation.models.values():
        known = installation.allowed_launch.issuperset(unlisted(model.spec))
        yield from _model_lines(model, "by --allow-launch" if known else UNLISTED)
    if waiting := waiting_of(installation.root):
        yield f"  bundle {waiting.bundle}: unpacked in part, waits for {', '.join(waiting.volumes)}"
    size = sum(file.size for file in installation.receipt.files)
    yield f"  files: {len(installation.receipt.files)}, {size_text(size)}"


def _packed(environment: Environment) -> int:
    return sum(package.size for package in environment.packages)
