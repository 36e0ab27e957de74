"""A small pixi workspace with a real lock: conda packages of a local channel, wheels of the real index.

::

    FOLDER/
      channel/                 indexed by rattler; linux-64/ noarch/
      workspace/
        pixi.toml pixi.lock
        .pixi/config.toml      [mirrors]: the channel's address is the local folder
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.condapkg import CondaPackage, write_python, write_small_packages
from tests.support.resolver import Wheel, default_index, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

CHANNEL = "https://conda.demo.invalid/channel/"
"""The channel's address in the lock; nothing answers there: a mirror entry leads to the folder."""


@dataclass(frozen=True)
class EnvironmentWish:
    """An environment that the workspace shall have."""

    name: str
    feature: str
    conda: tuple[str, ...] = ("python", "demo-activation", "demo-greeting", "demo-notes")
    """Names of the channel's packages."""
    wheels: tuple[str, ...] = ("click", "tqdm", "markupsafe", "msgspec")
    """Requirements, resolved when the workspace is made."""


DEFAULT = EnvironmentWish("default", "demo")
RUNTIME = EnvironmentWish(
    "bundler",
    "bundler",
    conda=("python",),
    wheels=(
        *("blake3", "click", "conda-pack", "httpx2", "jinja2", "license-expression", "msgspec"),
        *("nvidia-ml-py", "packaging", "psutil", "py-rattler", "pyyaml", "segno", "tomli", "tqdm", "uv"),
        *("zfec", "zstandard"),
    ),
)
"""What bundler itself needs on a host without Python: what ``install.sh`` brings there."""
EXTRA = EnvironmentWish("extra", "more", conda=("python",), wheels=("click", "packaging"))
"""A second environment that shares a part of the first."""


@dataclass(frozen=True)
class DemoWorkspace:
    """A workspace and the channel it was locked against."""

    root: Path
    channel: Path
    packages: Mapping[str, CondaPackage]
    """The channel's packages by name."""
    environments: tuple[EnvironmentWish, ...]
    wheels: Mapping[str, tuple[Wheel, ...]]
    """The wheels of each environment."""

    @property
    def python_version(self) -> str:
        return self.packages["python"].version


def make_channel(folder: Path, executable: Path | None = None) -> dict[str, CondaPackage]:
    """Write all packages into a folder and index it as a channel."""
    from rattler.index import index_fs

    packages = [write_python(folder, executable), *write_small_packages(folder)]
    (folder / "noarch").mkdir(exist_ok=True)
    asyncio.run(index_fs(folder, write_zst=False, write_shards=False, force=True))
    return {package.name: package for package in packages}


def make_workspace(
    folder: Path,
    *,
    environments: Sequence[EnvironmentWish] = (DEFAULT,),
    executable: Path | None = None,
    lock_version: int = 7,
) -> DemoWorkspace:
    """Make the channel and the workspace below ``folder``; the same input gives the same bytes.

    :param executable: the interpreter that becomes the package ``python``; ``None``: the running one.
    :param lock_version: 6 or 7.
    """
    channel = folder / "channel"
    packages = make_channel(channel, executable)
    version = packages["python"].version
    made = DemoWorkspace(
        root=folder / "workspace",
        channel=channel,
        packages=packages,
        environments=tuple(environments),
        wheels={
            wish.name: tuple(resolve(wish.wheels, version)) if wish.wheels else () for wish in environments
        },
    )
    write_workspace(made, lock_version)
    return made


def write_workspace(made: DemoWorkspace, lock_version: int = 7) -> None:
    """Write ``pixi.toml``, ``pixi.lock`` and the mirror entry."""
    (made.root / ".pixi").mkdir(parents=True, exist_ok=True)
    index = _index(made)
    (made.root / "pixi.toml").write_text(manifest_text(made, index))
    lock = yaml.safe_dump(lock_document(made, index, lock_version), sort_keys=False, width=4096)
    (made.root / "pixi.lock").write_text(lock)
    mirror = f'"{CHANNEL}" = ["{made.channel.resolve().as_uri()}/"]'
    (made.root / ".pixi" / "config.toml").write_text(
        f"# The channel of this demo is a folder beside it.\n[mirrors]\n{mirror}\n"
    )


def manifest_text(made: DemoWorkspace, index: str) -> str:
    """Return ``pixi.toml``."""
    short = ".".join(made.python_version.split(".")[:2])
    lines = [
        "[workspace]",
        'name = "demo"',
        'version = "0.1.0"',
        f'channels = ["{CHANNEL.rstrip("/")}"]',
        'platforms = ["linux-64"]',
        "",
        "[workspace.pypi-options]",
        f'index-url = "{index}"',
    ]
    for wish in made.environments:
        lines += ["", f"[feature.{wish.feature}.dependencies]"]
        lines += [f'{name} = "{f"{short}.*" if name == "python" else "*"}"' for name in wish.conda]
        if wish.wheels:
            lines += ["", f"[feature.{wish.feature}.pypi-dependencies]"]
            lines += [_stated(requirement) for requirement in wish.wheels]
    lines += ["", "[environments]"]
    lines += [
        f'{wish.name} = {{ features = ["{wish.feature}"], no-default-feature = true }}'
        for wish in made.environments
    ]
    return "\n".join(lines) + "\n"


def to_pyproject(root: Path) -> None:
    """Make a ``pyproject.toml`` of a workspace's ``pixi.toml``, as TOML 1.1 has it."""
    own = (root / "pixi.toml").read_text()
    (root / "pixi.toml").unlink()
    tables = re.sub(r"^\[", "[tool.pixi.", own, flags=re.MULTILINE)
    project = '[project]\nname = "demo"\nversion = "0.1.0"\nreadme = "README.md"\n\n'
    (root / "pyproject.toml").write_text(project + in_toml_11(tables))


def in_toml_11(text: str) -> str:
    """Spread inline tables over lines, with a comma behind the last entry."""
    return re.sub(r"\{ (.*?) \}$", r"{\n  \1,\n}", text, flags=re.MULTILINE)


def _stated(requirement: str) -> str:
    """Return a requirement, ``NAME`` or ``NAME==VERSION``, as a line of ``pypi-dependencies``."""
    name, pinned, version = requirement.partition("==")
    return f'{name} = "{pinned}{version}"' if pinned else f'{name} = "*"'


def lock_document(made: DemoWorkspace, index: str, lock_version: int) -> dict[str, Any]:
    """Return ``pixi.lock`` as data, in the order pixi writes it."""
    conda = {
        name: made.packages[name] for name in sorted({n for wish in made.environments for n in wish.conda})
    }
    wheels = {wheel.url: wheel for some in made.wheels.values() for wheel in some}
    document: dict[str, Any] = {"version": lock_version}
    if lock_version >= 7:
        virtual = ["__unix=0=0", "__linux=4.18", "__glibc=2.28", "__archspec=0=x86_64"]
        document["platforms"] = [{"name": "linux-64", "virtual-packages": virtual}]
    document["environments"] = {
        wish.name: {
            "channels": [{"url": CHANNEL}],
            "indexes": [index],
            "packages": {
                "linux-64": [{"conda": address(made.packages[name])} for name in sorted(wish.conda)]
                + [{"pypi": url} for url in sorted(wheel.url for wheel in made.wheels[wish.name])]
            },
        }
        for wish in sorted(made.environments, key=lambda wish: wish.name)
    }
    document["packages"] = [_conda_entry(package) for package in _by_address(conda.values())]
    document["packages"] += [_wheel_entry(wheels[url], lock_version) for url in sorted(wheels)]
    return document


def address(package: CondaPackage) -> str:
    """Return the address of a package of the channel."""
    return f"{CHANNEL}{package.subdir}/{package.filename}"


def _by_address(packages: Iterable[CondaPackage]) -> list[CondaPackage]:
    return sorted(packages, key=address)


def _index(made: DemoWorkspace) -> str:
    for wheels in made.wheels.values():
        for wheel in wheels:
            return wheel.index
    return default_index(made.python_version)


def _conda_entry(package: CondaPackage) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "conda": address(package),
        "sha256": package.sha256,
        "md5": package.md5,
        "depends": package.index["depends"],
        "license": package.index["license"],
        "purls": [],
        "size": package.size,
        "timestamp": package.index["timestamp"],
    }
    if "python_site_packages_path" in package.index:
        entry["python_site_packages_path"] = package.index["python_site_packages_path"]
    return {key: value for key, value in entry.items() if value != [] or key == "purls"}


def _wheel_entry(wheel: Wheel, lock_version: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "pypi": wheel.url,
        "name": wheel.name,
        "version": wheel.version,
        "sha256": wheel.sha256,
    }
    if lock_version >= 7:
        entry["index"] = wheel.index
    if wheel.requires_dist:
        entry["requires_dist"] = list(wheel.requires_dist)
    if wheel.requires_python:
        entry["requires_python"] = wheel.requires_python
    return entry
