"""The workspace as bundler reads it: the real one, locks written by hand, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from bundler.collect.models.specs import load_spec
from bundler.errors import InputError, UnknownNameError
from bundler.lockfile import wheel_fits
from bundler.workspace import Workspace, normalised, required_environments

if TYPE_CHECKING:
    from bundler.artifact import Artifact

PROJECT = Path(__file__).resolve().parent.parent
SHA = "ab" * 32
OTHER_SHA = "cd" * 32
HOST = "https://files.example.invalid"
CHANNEL = "https://conda.example.invalid/forge"

MANIFEST = """
[workspace]
name = "t"
channels = []
platforms = ["linux-64"]

[feature.serve]
[feature.cu126]
[feature.cu128]

[environments]
default = { features = ["serve", "cu126"], no-default-feature = true }
other = ["serve", "cu128"]
"""

LOCK_7 = f"""version: 7
platforms:
- name: linux-64
  virtual-packages:
  - __glibc=2.28
environments:
  default:
    channels:
    - url: {CHANNEL}/
    indexes:
    - {HOST}/simple/
    packages:
      linux-64:
      - conda: {CHANNEL}/linux-64/python-3.12.1-h1_0_cpython.conda
      - conda: {CHANNEL}/noarch/tz-data-2025c-h2_0.tar.bz2
      - pypi: {HOST}/t/torch-2.9.1%2Bcu126-cp312-cp312-manylinux_2_28_x86_64.whl
      - pypi: {HOST}/t/Torch_Memory.Saver-0.1-py3-none-any.whl
packages:
- conda: {CHANNEL}/linux-64/python-3.12.1-h1_0_cpython.conda
  sha256: {SHA}
  depends:
  - __glibc >=2.17,<3.0.a0
  size: 1234
- conda: {CHANNEL}/noarch/tz-data-2025c-h2_0.tar.bz2
  sha256: {SHA}
  size: 77
- pypi: {HOST}/t/torch-2.9.1%2Bcu126-cp312-cp312-manylinux_2_28_x86_64.whl
  name: torch
  version: 2.9.1+cu126
  sha256: {SHA}
  index: {HOST}/whl/cu126
- pypi: {HOST}/t/Torch_Memory.Saver-0.1-py3-none-any.whl
  name: torch-memory-saver
  version: '0.10'
  sha256: {SHA}
"""

LOCK_6 = f"""version: 6
environments:
  default:
    channels:
    - url: {CHANNEL}/
    indexes:
    - {HOST}/simple
    packages:
      linux-64:
      - conda: {CHANNEL}/linux-64/python-3.12.1-h1_0_cpython.conda
      - pypi: {HOST}/c/click-8.3.1-py3-none-any.whl
      osx-arm64:
      - conda: {CHANNEL}/osx-arm64/python-3.12.1-h9_0_cpython.conda
packages:
- conda: {CHANNEL}/linux-64/python-3.12.1-h1_0_cpython.conda
  build_number: 0
  sha256: {SHA}
  md5: {"0" * 32}
  depends: []
  license: Python-2.0
  size: 31581682
  timestamp: 1761176000000
- conda: {CHANNEL}/osx-arm64/python-3.12.1-h9_0_cpython.conda
  sha256: {OTHER_SHA}
  depends: []
  size: 5
- pypi: {HOST}/c/click-8.3.1-py3-none-any.whl
  name: click
  version: 8.3.1
  sha256: {SHA}
  requires_dist:
  - colorama ; sys_platform == 'win32'
  requires_python: '>=3.10'
"""


LOCK_5 = f"""version: 5
environments:
  default:
    channels:
    - url: {CHANNEL}/
    indexes:
    - {HOST}/simple
    packages:
      linux-64:
      - conda: {CHANNEL}/linux-64/python-3.12.1-h1_0_cpython.conda
      - pypi: {HOST}/c/click-8.3.1-py3-none-any.whl
packages:
- kind: pypi
  name: click
  version: 8.3.1
  url: {HOST}/c/click-8.3.1-py3-none-any.whl
  sha256: {SHA}
  requires_python: '>=3.10'
- kind: conda
  name: python
  version: 3.12.1
  build: h1_0_cpython
  subdir: linux-64
  url: {CHANNEL}/linux-64/python-3.12.1-h1_0_cpython.conda
  sha256: {SHA}
  md5: {"0" * 32}
  depends: []
  license: Python-2.0
  size: 31581682
  timestamp: 1761176000000
"""


def write(folder: Path, lock: str, manifest: str = MANIFEST) -> Path:
    (folder / "pixi.toml").write_text(manifest)
    (folder / "pixi.lock").write_text(lock)
    return folder


def lock_of(*packages: str, environment: str = "default") -> str:
    """Return a version 7 lock of some packages, each given as its entry."""
    selectors = "".join(f"      - {package.splitlines()[0]}\n" for package in packages)
    entries = "".join("- " + package.replace("\n", "\n  ") + "\n" for package in packages)
    return (
        "version: 7\nplatforms:\n- name: linux-64\nenvironments:\n"
        f"  {environment}:\n    channels: []\n    packages:\n      linux-64:\n{selectors}packages:\n{entries}"
    )


# --- the real workspace ------------------------------------------------------------------------------------


def test_real_lock_has_the_packages_that_were_solved() -> None:
    counts = {
        name: tuple(sum(a.kind == kind for a in one.artifacts) for kind in ("conda", "wheel"))
        for name, one in Workspace.load(PROJECT).environments.items()
    }
    assert counts == {"default": (60, 162), "cu128": (60, 162), "bundler": (25, 38)}


def test_real_lock_and_manifest_agree() -> None:
    workspace = Workspace.load(PROJECT)
    manifest = workspace.manifest
    checked = 0
    for name, table in manifest["environments"].items():
        environment = workspace.environment(name)
        for feature in table["features"]:
            wanted = manifest["feature"][feature]
            pins = {**wanted.get("dependencies", {}), **wanted.get("pypi-dependencies", {})}
            for package, pin in pins.items():
                locked = environment.version_of(package)
                assert locked is not None, f"{name} lacks {package}"
                text = pin["version"] if isinstance(pin, dict) else pin
                if match := re.fullmatch(r"==(.+)", text):
                    assert locked == match[1] or locked.startswith(match[1] + "."), package
                    checked += 1
                elif match := re.fullmatch(r"(\d[\d.]*)\.\*", text):
                    assert f"{locked}.".startswith(match[1] + "."), package
                    checked += 1
                if isinstance(pin, dict):
                    wheel = next(a for a in environment.artifacts if a.name == package)
                    assert wheel.index == pin["index"]
    assert checked >= 20


def test_real_environments_say_what_they_are() -> None:
    workspace = Workspace.load(PROJECT)
    default, cu128 = workspace.environment("cu126"), workspace.environment("cu128")
    assert default.name == "default" and default.aliases == ("cu126",)
    assert (default.stack.cuda, cu128.stack.cuda) == ("12.6", "12.8")
    assert default.stack.sglang == cu128.stack.sglang == "0.5.7"
    assert default.stack.torch == "2.9.1+cu126"
    assert default.glibc == "2.28"
    assert len({urlsplit(one.url).netloc for one in default.artifacts}) == 3
    assert not any(one.refusals for one in workspace.environments.values())
    assert all(a.sha256 and (a.size or a.kind == "wheel") for a in default.artifacts)


def test_the_bundler_environment_travels_with_any_other() -> None:
    workspace = Workspace.load(PROJECT)
    names = [one.name for one in required_environments(workspace, ["cu126", "default", "cu128"])]
    assert names == ["default", "cu128", "bundler"]


@pytest.mark.parametrize("lock", [LOCK_5.replace(": 5", ": 4", 1), LOCK_5, LOCK_6, LOCK_7, None])
def test_rattler_reads_the_same(tmp_path: Path, lock: str | None) -> None:
    rattler = pytest.importorskip("rattler")
    root = write(tmp_path, lock) if lock else PROJECT
    document = rattler.LockFile.from_path(root / "pixi.lock")
    ours = Workspace.load(root)
    for name, environment in document.environments():
        platform = next(p for p in environment.platforms() if str(p) == "linux-64")
        theirs = set()
        for package in environment.packages(platform) or []:
            conda = isinstance(package, rattler.lock.CondaLockedPackage)
            digest = package.package_record.sha256 if conda else package.hashes.sha256
            theirs.add((str(package.location), package.name.lower(), str(package.version), digest.hex()))

        def plain(a: Artifact) -> str:
            return str(rattler.Version(a.version)) if a.kind == "conda" else a.version

        read = {
            (a.url, normalised(a.name) if a.kind == "wheel" else a.name, plain(a), a.sha256)
            for a in ours.environment(name).artifacts
        }
        assert read == theirs


# --- locks by hand -----------------------------------------------------------------------------------------


def test_version_7(tmp_path: Path) -> None:
    environment = Workspace.load(write(tmp_path, LOCK_7)).environment("cu126")
    python, data, torch, saver = environment.artifacts
    assert (python.name, python.version, python.build, python.subdir, python.size) == (
        "python",
        "3.12.1",
        "h1_0_cpython",
        "linux-64",
        1234,
    )
    assert (data.name, data.version, data.subdir) == ("tz-data", "2025c", "noarch")
    assert torch.index == f"{HOST}/whl/cu126"
    assert torch.filename == "torch-2.9.1+cu126-cp312-cp312-manylinux_2_28_x86_64.whl"
    assert saver.version == "0.10", "a version must not become a number"
    assert environment.version_of("Torch.Memory_Saver") == "0.10"
    assert environment.indexes == (f"{HOST}/simple/",)
    assert environment.channels == (f"{CHANNEL}/",)
    assert environment.glibc == "2.28"


def test_version_6_takes_this_platform_only(tmp_path: Path) -> None:
    environment = Workspace.load(write(tmp_path, LOCK_6)).environment("default")
    assert [a.name for a in environment.artifacts] == ["python", "click"]
    assert environment.artifacts[0].sha256 == SHA
    assert environment.artifacts[1].index is None


@pytest.mark.parametrize("version", [4, 5])
def test_older_versions_name_a_packages_kind(tmp_path: Path, version: int) -> None:
    local = "\n- kind: pypi\n  name: mine\n  version: '1'\n  path: ./mine\n  editable: true\n"
    lock = LOCK_5.replace("version: 5", f"version: {version}", 1).rstrip() + local
    lock = lock.replace("      - pypi", "      - pypi: ./mine\n      - pypi", 1)
    environment = Workspace.load(write(tmp_path, lock)).environment("default")
    assert [(a.name, a.version, a.sha256, a.size) for a in environment.artifacts] == [
        ("python", "3.12.1", SHA, 31581682),
        ("click", "8.3.1", SHA, None),
    ]
    said = [str(one).partition(" (")[0] for one in environment.refusals]
    assert said == ["mine-1: lies at a path of this machine"]


def test_version_7_platforms_have_free_names(tmp_path: Path) -> None:
    lock = LOCK_7.replace(
        "- name: linux-64\n",
        "- name: mac\n  subdir: osx-arm64\n"
        "- name: amd-gpu\n  subdir: linux-64\n  virtual-packages:\n  - __rocm=6\n"
        "- name: gpu\n  subdir: linux-64\n",
    ).replace("  - __glibc=2.28\n", "  - __cuda=12.8\n  - __glibc=2.28\n", 1)
    lock = lock.replace(
        "      linux-64:\n",
        "      mac: []\n      amd-gpu: []\n      gpu:\n",
    )
    environment = Workspace.load(write(tmp_path, lock)).environment("default")
    assert environment.platform == "gpu"
    assert len(environment.artifacts) == 4
    assert "__cuda=12.8" in environment.virtual_packages


RICH = '{ name = "gpu", platform = "linux-64", cuda = "12" }'
NEWER = '{ name = "new", platform = "linux-64", cuda = "13" }'


@pytest.mark.parametrize(
    ("declared", "taken", "others"),
    [
        (f'{RICH}, "linux-64", {NEWER}', "p1", ("linux-64", "p2")),
        (f'"linux-64", {NEWER}, {RICH}', "linux-64", ("p2", "p1")),
        (f'{NEWER}, {RICH}, "linux-64"', "p2", ("p1", "linux-64")),
    ],
)
def test_of_several_platforms_the_manifests_first_is_taken(
    tmp_path: Path, declared: str, taken: str, others: tuple[str, ...]
) -> None:
    rich = "".join(
        f"- name: {name}\n  subdir: linux-64\n  virtual-packages:\n  - __cuda={cuda}\n  - __glibc=2.28\n"
        for name, cuda in (("p1", 12), ("p2", 13))
    )
    lock = LOCK_7.replace("environments:\n", f"{rich}environments:\n", 1)
    lock = lock.replace("      linux-64:\n", "      p2: []\n      p1: []\n      linux-64:\n", 1)
    write(tmp_path, lock)
    manifest = MANIFEST.replace('platforms = ["linux-64"]', f"platforms = [{declared}]")
    (tmp_path / "pixi.toml").write_text(manifest)
    environment = Workspace.load(tmp_path).environment("default")
    assert (environment.platform, environment.other_platforms) == (taken, others)
    assert bool(environment.artifacts) == (taken == "linux-64")
    for name in (taken, *others):
        chosen = Workspace.load(tmp_path, {"": name})
        chosen.check_platform(["default"], name)
        one = chosen.environment("default")
        assert one.platform == name and {name, *one.other_platforms} == {taken, *others}
        recorded = Workspace.load(tmp_path, {"default": name, "": taken}).environment("default")
        assert recorded.platform == name, "an environment's own word counts first"
    with pytest.raises(UnknownNameError, match=rf"there are: .*{taken}.*, .*{others[0]}.*, .*{others[1]}"):
        Workspace.load(tmp_path, {"": "p9"}).check_platform(["default"], "p9")


def test_everything_that_cannot_be_carried_is_named_at_once(tmp_path: Path) -> None:
    lock = lock_of(
        f"pypi: {HOST}/s/sdisty-1.0.tar.gz\nname: sdisty\nversion: '1.0'\nsha256: {SHA}",
        "pypi: git+https://repo.example.invalid/x.git@abc\nname: gitty\nversion: '1.0'",
        "pypi: ./here\nname: pathy\nversion: '1.0'",
        f"pypi: {HOST}/m/macky-1.0-cp312-cp312-macosx_11_0_arm64.whl\nname: macky\nsha256: {SHA}",
        f"conda: {CHANNEL}/osx-64/ossy-1.0-0.conda\nsha256: {SHA}",
        "conda_source: sourcy[1a2b] @ ./recipe",
        f"pypi: {HOST}/n/nohash-1.0-py3-none-any.whl\nname: nohash\nversion: '1.0'",
        f"pypi: direct+{HOST}/d/directy-1.0-py3-none-any.whl\nname: directy\nversion: '1.0'",
        f"pypi: {HOST}/g/good-1.0-py3-none-any.whl\nname: good\nversion: '1.0'\nsha256: {SHA}",
    )
    workspace = Workspace.load(write(tmp_path, lock))
    with pytest.raises(InputError) as caught:
        workspace.check_carriable(["default"])
    findings = caught.value.findings
    assert [finding.split(":")[1].strip().split("-")[0] for finding in findings] == [
        *("sdisty", "gitty", "pathy", "macky", "ossy", "sourcy", "nohash", "directy")
    ]
    assert "wheel" in findings[0] and "--allow-unhashed" in findings[6]
    with pytest.raises(InputError) as caught:
        workspace.check_carriable(["default"], allow_unhashed=True)
    assert len(caught.value.findings) == 6
    assert [a.name for a in workspace.environment("default").artifacts] == ["nohash", "directy", "good"]
    assert workspace.environment("default").artifacts[1].url.startswith(HOST)


def test_unhashed_wheels_are_carried_where_the_user_says_so(tmp_path: Path) -> None:
    lock = lock_of(f"pypi: {HOST}/n/nohash-1.0-py3-none-any.whl\nname: nohash\nversion: '1.0'")
    workspace = Workspace.load(write(tmp_path, lock))
    workspace.check_carriable(["default"], allow_unhashed=True)
    with pytest.raises(InputError, match="can't be carried"):
        workspace.check_carriable(["default"])


MD5 = "0123456789abcdef0123456789ABCDEF"


def test_packages_that_an_md5_alone_fixes_are_carried(tmp_path: Path) -> None:
    """Channels and indexes of old servers state no sha256."""
    lock = lock_of(
        f"conda: {CHANNEL}/linux-64/old-1.0-0.tar.bz2\nmd5: {MD5}",
        f"conda: {CHANNEL}/linux-64/new-1.0-0.conda\nmd5: {MD5}\nsha256: {SHA}",
        f"pypi: {HOST}/n/n-1.0-py3-none-any.whl\nname: n\nmd5: {MD5}",
    )
    workspace = Workspace.load(write(tmp_path, lock))
    workspace.check_carriable(["default"])
    old, new, wheel = workspace.environment("default").artifacts
    assert (wheel.sha256, wheel.md5) == (None, MD5.lower())
    assert (old.sha256, old.md5, old.pinned) == (None, MD5.lower(), f"md5:{MD5.lower()}")
    assert (new.sha256, new.md5, new.pinned) == (SHA, None, SHA)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (f"conda: {CHANNEL}/linux-64/old-1.0-0.conda", "old-1.0: has no sha256 in the lock, and no md5"),
        (f"pypi: {HOST}/n/n-1.0-py3-none-any.whl\nname: n", "n-1.0: has no sha256 in the lock, and no md5"),
    ],
)
def test_what_no_digest_fixes_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Workspace.load(write(tmp_path, lock_of(entry))).check_carriable(["default"])
    assert said in caught.value.findings[0]


def test_an_md5_that_is_none_is_named(tmp_path: Path) -> None:
    lock = lock_of(f"conda: {CHANNEL}/linux-64/old-1.0-0.conda\nmd5: {MD5[1:]}")
    with pytest.raises(InputError, match="a md5 that is none"):
        Workspace.load(write(tmp_path, lock)).environment("default")


def test_two_contents_at_one_address_are_refused(tmp_path: Path) -> None:
    lock = lock_of(
        f"pypi: {HOST}/a/a-1-py3-none-any.whl?x=1\nname: a\nversion: '1'\nsha256: {SHA}",
        f"pypi: {HOST}/a/a-1-py3-none-any.whl?x=2\nname: b\nversion: '1'\nsha256: {OTHER_SHA}",
    )
    with pytest.raises(InputError, match="shares its address"):
        Workspace.load(write(tmp_path, lock)).check_carriable(["default"])


@pytest.mark.parametrize(("scheme", "named"), [("s3", "an S3 bucket"), ("oci", "an OCI registry")])
def test_a_channel_of_another_kind_is_named_for_what_it_is(tmp_path: Path, scheme: str, named: str) -> None:
    lock = lock_of(f"conda: {scheme}://my-channel/linux-64/x-1.0-0.conda\nsha256: {SHA}")
    (refusal,) = Workspace.load(write(tmp_path, lock)).environment("default").refusals
    assert f"x-1.0: comes from {named} ({scheme}://my-channel/linux-64/x-1.0-0.conda)" in str(refusal)
    assert "path of this machine" not in str(refusal)


def test_a_lock_for_other_platforms_only(tmp_path: Path) -> None:
    lock = LOCK_6.replace("      linux-64:\n", "      osx-64:\n")
    workspace = Workspace.load(write(tmp_path, lock))
    with pytest.raises(InputError, match=r"locked for osx-64, osx-arm64, not for linux-64"):
        workspace.check_carriable(["default"])


def test_aliases_are_features_of_one_environment_only(tmp_path: Path) -> None:
    manifest = MANIFEST + 'third = ["serve", "other"]\n'
    lock = LOCK_6.replace("  default:", "  other:", 1)
    workspace = Workspace.load(write(tmp_path, lock, manifest))
    assert workspace.environments["other"].aliases == ("cu128",)
    with pytest.raises(UnknownNameError, match=r"there are: other \(cu128\)"):
        workspace.environment("serve")


# --- what can't be read ------------------------------------------------------------------------------------


def test_an_environment_that_is_not_locked_yet(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"in pixi\.toml and not in pixi\.lock") as caught:
        Workspace.load(write(tmp_path, LOCK_7)).environment("other")
    assert caught.value.hint and "pixi lock" in caught.value.hint


def test_unknown_environments_are_answered_with_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match=r"default \(cu126\), cu128, bundler"):
        Workspace.load(PROJECT).environment("cu999")


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("version: 8\nenvironments: {}\n", "of version 8; this bundler understands 4 to 7"),
        ("version: 3\nenvironments: {}\n", "older than 4"),
        ("environments: {}\n", "no version"),
        ("- a\n- b\n", "no version"),
        ("version: 7\nenvironments:\n  a: [\n<<<<<<< HEAD\n", r"broken YAML at line \d"),
        (f"version: '{'6' * 5000}'\n", "no version"),
        ("version: \u00b2\n", "no version"),
        ("version: " + "[" * 100_000, "broken YAML"),
        ("version: 7\nenvironments: 12\n", "not of a lock's form"),
        (LOCK_7.replace(f"sha256: {SHA}\n  size: 77", "sha256: 123\n  size: 77"), "a sha256 that is none"),
        (
            LOCK_7.replace("packages:\n- conda", "packages:\n- pypi: x\n  name: x\n- conda_: 1\n  y", 1),
            "describe",
        ),
    ],
)
def test_locks_that_cannot_be_used(tmp_path: Path, lock: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Workspace.load(write(tmp_path, lock)).environment("default")
    assert caught.value.exit_code == 3


def test_broken_toml_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4"):
        Workspace.load(write(tmp_path, LOCK_7, "[workspace]\nname = 't'\nplatforms = [\n=\n"))


@pytest.mark.parametrize("text", ["a = " + "9" * 5000, "a = " + "[" * 100_000, "a." * 5000 + "b = 1"])
def test_toml_without_end(tmp_path: Path, text: str) -> None:
    """Numbers of thousands of digits and endless nesting are bad input, of a workspace and of a model."""
    with pytest.raises(InputError, match=r"pixi\.toml can't be read"):
        Workspace.load(write(tmp_path, LOCK_7, text))
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(InputError, match="not TOML"):
        load_spec(tmp_path / "model.toml")


@pytest.mark.parametrize("name", ["pyproject.toml", "mojoproject.toml"])
def test_a_manifest_of_another_name(tmp_path: Path, name: str) -> None:
    """What the lock says decides: an environment with the project itself in it is refused by its name."""
    own = MANIFEST if name == "mojoproject.toml" else MANIFEST.replace("\n[", "\n[tool.pixi.")
    (tmp_path / name).write_text('[project]\nname = "mine"\n' * (name == "pyproject.toml") + own)
    other = "  other:\n    packages:\n      linux-64:\n      - pypi: ./\npackages:\n- pypi: ./\n"
    lock = LOCK_7.replace("packages:\n-", other + "  name: mine\n  editable: true\n-", 1)
    (tmp_path / "pixi.lock").write_text(lock)
    workspace = Workspace.load(tmp_path)
    assert workspace.files == (tmp_path / name, tmp_path / "pixi.lock")
    assert workspace.environment("cu126").name == "default"
    workspace.check_carriable(["default"])
    with pytest.raises(InputError) as caught:
        workspace.check_carriable(["other"])
    assert caught.value.findings[0].startswith("other: mine: lies at a path of this machine (./)")
    assert caught.value.hint == f"mend them in {name} and lock again: pixi lock"


def test_folders_that_are_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pixi\.toml\n") as caught:
        Workspace.load(tmp_path)
    assert caught.value.hint and "pixi.toml or pyproject.toml" in caught.value.hint
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "tool.pixi"\n')
    with pytest.raises(InputError, match=r"its pyproject\.toml has no \[tool\.pixi\]"):
        Workspace.load(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.pixi.workspace]\n")
    with pytest.raises(InputError, match=r"pyproject\.toml is here, pixi\.lock is not"):
        Workspace.load(tmp_path)
    (tmp_path / "pixi.toml").write_text(MANIFEST)
    with pytest.raises(InputError, match=r"pixi\.lock is not"):
        Workspace.load(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        Workspace.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("filename", "fits"),
    [
        ("a-1-py3-none-any.whl", True),
        ("a-1-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1-cp312-cp312-linux_x86_64.whl", True),
        ("a-1-cp312-cp312-manylinux_2_28_aarch64.whl", False),
        ("a-1-cp312-cp312-musllinux_1_2_x86_64.whl", False),
        ("a-1-cp312-cp312-win_amd64.whl", False),
        ("a-1-cp312-cp312-macosx_11_0_x86_64.whl", False),
    ],
)
def test_wheels_for_this_platform(filename: str, fits: bool) -> None:
    assert wheel_fits(filename, "linux-64") is fits


def test_reading_needs_none_of_the_online_sides_libraries() -> None:
    script = (
        "import sys\n"
        "for name in ('rattler', 'uv', 'httpx2', 'modelscope', 'huggingface_hub'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from bundler.store import Store\n"
        "from bundler.workspace import Workspace\n"
        "environment = Workspace.load(Path()).environment('cu128')\n"
        "print(len(Store(Path('/nowhere')).missing(environment.artifacts)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert ended.stdout == "222\n", ended.stderr


def test_a_manifest_in_toml_11_is_read(tmp_path: Path) -> None:
    spread = MANIFEST.replace('"serve", "cu126"], no', '"serve", "cu126"],\n  no').replace(
        "no-default-feature = true }", "no-default-feature = true,\n}"
    )
    assert spread != MANIFEST
    (tmp_path / "pixi.toml").write_text(spread)
    (tmp_path / "pixi.lock").write_text(LOCK_7)
    assert Workspace.load(tmp_path).environment("cu126").name == "default"


@pytest.mark.parametrize(
    ("package", "depends", "cuda"),
    [
        ("cuda-version-12.9-h1_3", "a", "12.9"),
        ("cudatoolkit-11.8.0-h1_13", "a", "11.8"),
        ("jaxlib-0.4.1-cuda_0", "__cuda >=9\n  - __cuda >=12.4", "12.4"),
        ("jaxlib-0.4.1-cpu_0", "__glibc >=2.17", None),
        ("pytorch-2.4.0-py3.12_cuda12.4_cudnn9.1.0_0", "a", "12.4"),
        ("pytorch-2.10.0-cuda130_mkl_py314_ha538682_305", "__cuda >=12", "13.0"),
        ("pytorch-2.10.0-cpu_mkl_py314_hf472749_104", "a", None),
        ("libtorch-2.7.1-cuda126_mkl_h0_0", "a", "12.6"),
        ("pytorch-cuda-12.1-ha16c6d3_6", "a", "12.1"),
    ],
)
def test_cuda_is_known_without_torch(tmp_path: Path, package: str, depends: str, cuda: str | None) -> None:
    address = f"conda: {CHANNEL}/linux-64/{package}.conda"
    lock = lock_of(f"{address}\nsha256: {SHA}\ndepends:\n- {depends.replace(chr(10) + '  ', chr(10))}")
    assert Workspace.load(write(tmp_path, lock)).environment("default").stack.cuda == cuda


@pytest.mark.parametrize(
    ("wheel", "cuda"),
    [
        ("nvidia_cuda_runtime_cu12-12.8.90-py3-none-manylinux2014_x86_64.whl", "12.8"),
        ("nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl", "13.0"),
        ("nvidia_cuda_nvrtc_cu12-12.8.93-py3-none-manylinux2014_x86_64.whl", None),
    ],
)
def test_cuda_of_a_torch_that_does_not_say_it(tmp_path: Path, wheel: str, cuda: str | None) -> None:
    """The wheels of the public index have no local part: what they depend on says it."""
    name, version = wheel.split("-")[:2]
    torch = f"{HOST}/t/torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl\nname: torch\nversion: 2.9.1"
    lock = lock_of(
        f"pypi: {torch}\nsha256: {SHA}",
        f"pypi: {HOST}/n/{wheel}\nname: {name.replace('_', '-')}\nversion: {version}\nsha256: {SHA}",
    )
    assert Workspace.load(write(tmp_path, lock)).environment("default").stack.cuda == cuda


def test_cuda_that_the_platform_or_the_manifest_asks_for(tmp_path: Path) -> None:
    rich = LOCK_7.replace("  - __glibc=2.28\n", "  - __cuda=12.4\n  - __glibc=2.28\n").replace("%2Bcu126", "")
    rich = rich.replace("2.9.1+cu126", "2.9.1")
    assert Workspace.load(write(tmp_path, rich)).environment("default").stack.cuda == "12.4"
    asked = MANIFEST.replace("[feature.cu126]", '[feature.cu126.system-requirements]\ncuda = "11.8"')
    asked += '[system-requirements]\ncuda = "13"\n'
    environment = Workspace.load(write(tmp_path, LOCK_6, asked)).environment("default")
    assert environment.stack.cuda == environment.least_cuda == "11.8", "the default feature isn't in it"
    asked = asked.replace(", no-default-feature = true", "")
    assert Workspace.load(write(tmp_path, LOCK_6, asked)).environment("default").least_cuda == "13"


@pytest.mark.parametrize("packages", ["\n      linux-64: []", " {}"])
def test_an_environment_without_packages_says_which_have_some(tmp_path: Path, packages: str) -> None:
    """pixi leaves out the platforms for which an environment has nothing."""
    empty = f"environments:\n  bare:\n    channels: []\n    packages:{packages}\n"
    workspace = Workspace.load(write(tmp_path, LOCK_7.replace("environments:\n", empty, 1)))
    with pytest.raises(InputError) as caught:
        workspace.check_carriable(["bare"])
    assert caught.value.what == "1 environment can't be carried"
    assert "bare: the environment: has no packages; there are: default" in caught.value.findings[0]
    assert caught.value.hint == "name another with --env"
    workspace.check_carriable(["default"])
