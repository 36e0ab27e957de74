"""What a bundle asks of the host that it goes to, in lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.common.units import size_text
from bundler.host.drivers import branches
from bundler.host.fit import needs_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.manifest import Environment, Manifest


def target_lines(manifest: Manifest) -> Iterator[str]:
    """Yield what the target needs: disk, system and driver of each environment, GPUs of each model."""
    size, inodes = installed_size(manifest)
    files = sum(entry.kind == "file" for entry in manifest.tree)
    yield (
        f"disk: {size_text(payload_bytes(manifest))} for the bundle's {files} files"
        + (f", {size_text(size)} and {inodes} inodes for the environments" if manifest.environments else "")
    )
    for environment in manifest.environments:
        yield _host_line(environment)
    for model in manifest.models:
        for line in needs_text(model.spec, model.facts):
            yield f"{model.spec.name}: {line}"


def _host_line(environment: Environment) -> str:
    glibc = f", glibc {environment.glibc} or newer" if environment.glibc else ""
    driver = ""
    if environment.cuda:
        oldest, own = branches(environment.cuda)
        driver = f", NVIDIA driver R{oldest} or newer" if oldest else ", an NVIDIA driver"
        driver += f" (R{own} is CUDA {environment.cuda}'s own)" if own and own != oldest else ""
    return f"environment {environment.name}: {environment.platform}{glibc}{driver}"


def payload_bytes(manifest: Manifest) -> int:
    """Return the bytes of all files that unpacking writes."""
    return sum(entry.size for entry in manifest.tree)


def installed_size(manifest: Manifest) -> tuple[int, int]:
    """Return the bytes and the inodes that the environments take once installed."""
    packages = [package for one in manifest.environments for package in one.packages]
    return sum(one.installed_bytes for one in packages), sum(one.inodes for one in packages)
