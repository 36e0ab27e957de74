"""Small bundles with packages and a model that say anything of themselves, and a browser to look with."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
import pytest
import zstandard

from bundler.archive.recipe import Recipe, current_writer
from bundler.archive.writer import write_bundle
from bundler.manifest import Environment, Manifest, Model, Package
from bundler.model import Launch, ModelFacts, ModelSpec
from tests.archive.make import FRAME, members_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STORE = ".pkg-cache/mirror"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Made:
    """A package as its file will be."""

    kind: Literal["conda", "wheel"]
    name: str
    version: str
    data: bytes
    path: str
    build: str = ""

    def row(self) -> Package:
        digest = hashlib.sha256(self.data).hexdigest()
        return Package(
            self.kind, self.name, self.version, self.build, self.path, len(self.data), digest, 10, 1
        )


def wheel(name: str, version: str, *fields: str, padding: bytes = b"", extra: int = 0) -> Made:
    """Make a wheel whose METADATA has the fields."""
    stem = f"{name}-{version}"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("padding", padding)
        for number in range(extra):
            archive.writestr(f"{name}/module{number}.py", b"")
        text = "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *fields, "", ""])
        archive.writestr(f"{stem}.dist-info/METADATA", text)
    path = f"{STORE}/files.pythonhosted.org/packages/ab/cd/{stem}-py3-none-any.whl"
    return Made("wheel", name, version, stream.getvalue(), path)


def conda(name: str, version: str, index: dict[str, object], about: dict[str, object]) -> Made:
    """Make a ``.conda`` package with the two records."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for part, content in (("index", index), ("about", about)):
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"info/{part}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    stem = f"{name}-{version}-h0_0"
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr(f"info-{stem}.tar.zst", zstandard.compress(inner.getvalue()))
    path = f"{STORE}/conda.example_8443/forge/linux-64/{stem}.conda"
    return Made("conda", name, version, outer.getvalue(), path, "h0_0")


def make_bundle(
    folder: Path,
    packages: Sequence[Made],
    *,
    name: str = "little",
    model: Model | None = None,
    weights: bytes = b"weights",
    disks: int = 1,
    volume_size: int = 60_000,
    lock: bytes | None = None,
    md5_only: tuple[str, ...] = (),
) -> list[Path]:
    """Write a bundle of an environment and perhaps a model; return its folders."""
    tree = folder / f"{name}-tree"
    for one in packages:
        path = tree / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.data)
    if lock is not None:
        (tree / "pixi.lock").write_bytes(lock)
    if model is not None:
        (tree / model.path).mkdir(parents=True)
        (tree / model.path / "model.safetensors").write_bytes(weights)
    environment = Environment(
        name="default", packages=tuple(one.row() for one in packages), md5_only=md5_only or msgspec.UNSET
    )
    head = Manifest(
        name=name,
        writer=current_writer(),
        environments=(environment,) if packages else (),
        models=(model,) if model else (),
    )
    recipe = Recipe(
        head=head, members=members_of(tree), companions={}, frame_size=FRAME, volume_size=volume_size
    )
    folders = [folder / name] if disks == 1 else [folder / f"disk{number}" / name for number in range(disks)]
    write_bundle(recipe, folders)
    return folders


def model_of(name: str = "small", license: str | None = "mit", **more: str) -> Model:
    """Return a model as manifests have it."""
    spec = ModelSpec(
        name=name,
        description=more.get("description", ""),
        launch=Launch(
            flags={"port": 30000, "parser": more.get("flag", "glm")}, env={"A": more.get("env", "b")}
        ),
    )
    return Model(
        spec=spec,
        path="weights/small",
        origin=more.get("origin", "huggingface:owner/small"),
        revision=more.get("revision", "0" * 40),
        facts=ModelFacts(license=license, architecture=more.get("architecture"), weight_bytes=7),
    )


def browse(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a headless browser; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
    done = subprocess.run([found, *options, *words], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done
