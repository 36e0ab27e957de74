"""The main job, command by command, as README's two hosts do it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PROJECT, run_bundler

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler
    from tests.support.workspace import DemoWorkspace

NATIVE = ("--installer", "native")
CUT_OFF = ("unshare", "-rn")


def tree(root: Path, leave_out: tuple[str, ...] = (".bundler",)) -> dict[str, str]:
    """Return each file's digest, each link's target and each folder, by path."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] in leave_out:
            continue
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_without_arguments_or_a_network(bundler: Bundler, bundle: Path) -> None:
    """`bundler unpack && bundler inspect`, literally, where `bundler pack` left the bundle, cut off."""
    here = bundle.parent
    (here / "bundles").mkdir()
    bundle = bundle.rename(here / "bundles" / bundle.name)
    done = run_bundler("unpack", *NATIVE, cwd=here, prefix=CUT_OFF)
    assert done.returncode == 0, done.stderr
    installed = here / f"{bundle.name}-installed"
    python = installed / ".pixi" / "envs" / "default" / "bin" / "python"
    said = subprocess.run(
        [python, "-c", "import msgspec; print(msgspec.__file__)"], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith(str(installed))
    inspected = bundler("inspect", cwd=here)
    assert inspected.returncode == 0, inspected.stderr
    assert "tiny-glm4-moe" in inspected.stdout
    receipt = json.loads((installed / ".bundler" / "receipt.json").read_text())
    assert [one["installer"] for one in receipt["environments"]] == ["native"]
    assert bundler("verify", installed).returncode == 0
    assert bundler("verify", bundle).returncode == 0


@pytest.mark.parametrize("umask", ["077", "027", "000"])
def test_the_umask_decides_nothing(bundle: Path, tmp_path: Path, umask: str) -> None:
    """All may read the installation, its owner alone may write to it; installers' caches are their own."""
    enter = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
    done = run_bundler("unpack", *NATIVE, bundle, tmp_path / "to", cwd=tmp_path, prefix=enter)
    assert done.returncode == 0, done.stderr
    modes = {
        path: path.lstat().st_mode & 0o777
        for path in (tmp_path / "to").rglob("*")
        if not path.is_symlink() and "cache" not in path.parts
    }
    assert {f"{path}: {mode:o}" for path, mode in modes.items() if mode & 0o022 or not mode & 0o004} == set()
    assert {f"{path}: {mode:o}" for path, mode in modes.items() if path.is_dir() and mode != 0o755} == set()


def test_stock_tools_give_the_same_tree(bundler: Bundler, bundle: Path, tmp_path: Path) -> None:
    """`sha256sum -c` and `cat | zstd -d | tar x` against `unpack --no-install`, hash for hash."""
    for tool in ("sha256sum", "zstd", "tar"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine")
    (tmp_path / "stock").mkdir()
    script = f"sha256sum --quiet -c SHA256SUMS && cat data-*.tar.zst | zstd -dq | tar x -C {tmp_path}/stock"
    subprocess.run(["sh", "-ec", script], cwd=bundle, check=True)
    done = bundler("unpack", bundle, tmp_path / "ours", "--no-install")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "stock") == tree(tmp_path / "ours")
    assert "not installed yet: default" in done.stdout


def test_what_stock_tools_began_install_sh_ends(bundle: Path, tmp_path: Path) -> None:
    """Under a hardened umask, with a file cut short and one missing: adopted, mended, all modes set."""
    for tool in ("zstd", "tar"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine")
    stock = tmp_path / "stock"
    stock.mkdir()
    script = f"umask 077; cat data-*.tar.zst | zstd -dq | tar x -C {stock}"
    subprocess.run(["sh", "-ec", script], cwd=bundle, check=True)
    whole = tree(stock)
    largest = max((path for path in stock.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    (stock / "pixi.lock").unlink()
    command = ["sh", bundle / "install.sh", stock, "--no-install"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own = (".bundler", "bin", "runtime")
    assert tree(stock, own) == whole
    for path in stock.rglob("*"):
        if path.relative_to(stock).parts[0] not in own and not path.is_symlink():
            assert path.stat().st_mode & 0o777 in ((0o755,) if path.is_dir() else (0o644, 0o755)), path


def test_disks_in_two_folders_and_in_turn(bundler: Bundler, bundle: Path, tmp_path: Path) -> None:
    """Volumes in two folders at once, and one folder after the other with --partial."""
    second = tmp_path / "disk2" / bundle.name
    shutil.copytree(bundle, second)
    volumes = sorted(bundle.glob("data-*.tar.zst"))
    assert len(volumes) > 1
    volumes[-1].unlink()
    for volume in volumes[:-1]:
        (second / volume.name).unlink()
    whole = bundler("unpack", bundle, second, tmp_path / "at-once", "--no-install")
    assert whole.returncode == 0, whole.stderr
    missing = bundler("unpack", bundle, tmp_path / "in-turn", "--no-install")
    assert missing.returncode == 6
    assert volumes[-1].name in missing.stderr
    assert not (tmp_path / "in-turn").exists() or not any((tmp_path / "in-turn").iterdir())
    first = bundler("unpack", "--partial", bundle, tmp_path / "in-turn", "--no-install")
    assert first.returncode == 7, first.stderr
    assert "error" not in first.stderr and "partial: unpacked what is here" in first.stderr
    assert volumes[-1].name in first.stderr
    served = bundler("serve", "-C", tmp_path / "in-turn", "--dry-run")
    assert served.returncode == 3, "an unfinished installation isn't served"
    then = bundler("unpack", "--partial", second, tmp_path / "in-turn", "--no-install")
    assert then.returncode == 0, then.stderr
    assert tree(tmp_path / "in-turn") == tree(tmp_path / "at-once")


def test_a_flipped_bit(bundler: Bundler, bundle: Path, tmp_path: Path) -> None:
    """It is found, no wrong byte is under a file's own name, and the good volume mends it."""
    volume = sorted(bundle.glob("data-*.tar.zst"))[-1]
    good = volume.read_bytes()
    middle = len(good) // 2
    volume.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    done = bundler("unpack", bundle, tmp_path / "to", "--no-install")
    assert done.returncode == 5, done.stderr
    assert volume.name in done.stderr
    expected = {entry[0]: entry[4] for entry in json.loads((bundle / "manifest.json").read_text())["tree"]}
    for path, digest in tree(tmp_path / "to").items():
        assert digest in ("folder", expected[path])
    assert bundler("verify", bundle).returncode == 5
    volume.write_bytes(good)
    mended = bundler("unpack", bundle, tmp_path / "to", "--no-install")
    assert mended.returncode == 0, mended.stderr
    assert tree(tmp_path / "to") == {
        entry[0]: entry[4] or "folder" for entry in json.loads((bundle / "manifest.json").read_text())["tree"]
    }


@pytest.mark.parametrize("delays", [(0.35, 0.6), (0.9, 1.4)])
def test_killed_pack_goes_on(
    packed: Path, tmp_path: Path, delays: tuple[float, ...], demo_workspace: DemoWorkspace
) -> None:
    """`kill -9` of pack at some moments, then again: the same bundle, byte for byte."""
    workspace = shutil.copytree(demo_workspace.root, tmp_path / "workspace")
    model = packed.parents[1] / "tiny-glm4-moe"
    words = ["pack", "-C", workspace, "--env", "default", "--model", model, *NATIVE]
    words += ["--volume-size", "10MB", "-o", tmp_path / "out"]
    for delay in delays:
        process = subprocess.Popen(
            [sys.executable, "-m", "bundler", *map(str, words)], cwd=PROJECT, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run_bundler(*words, "--threads", "2")
    assert done.returncode == 0, done.stderr
    again = tmp_path / "out" / packed.name
    for name in sorted(path.name for path in packed.iterdir()):
        if name != "pack-log.json":
            assert (again / name).read_bytes() == (packed / name).read_bytes(), name


def test_another_bundle_adds_a_model_and_an_environment(
    bundler: Bundler, packed: Path, tmp_path: Path, demo_workspace: DemoWorkspace
) -> None:
    """A model alone, and an environment alone, each unpacked into an installation."""
    workspace = shutil.copytree(demo_workspace.root, tmp_path / "workspace")
    other = shutil.copytree(packed.parents[1] / "tiny-glm4-moe", tmp_path / "other")
    disk = tmp_path / "disk"
    for words in (("--env", "extra"), ("--model", other)):
        done = bundler("pack", "-C", workspace, *words, "--no-rehearse", "-o", disk)
        assert done.returncode == 0, done.stderr
    installed = tmp_path / "installed"
    for bundle in (packed, disk / "extra", disk / "other"):
        done = bundler("unpack", bundle, installed, *NATIVE)
        assert done.returncode == 0, done.stderr
    receipt = json.loads((installed / ".bundler" / "receipt.json").read_text())
    assert {one["name"] for one in receipt["environments"]} == {"default", "extra"}
    assert len(receipt["bundles"]) == 3
    assert (installed / "weights" / "other" / "config.json").is_file()
    # One of another lock is an update, and what of the older one isn't in it is said.
    (workspace / "pixi.toml").write_text((workspace / "pixi.toml").read_text() + "# changed\n")
    done = bundler(
        "pack", "-C", workspace, "--env", "extra", "--no-rehearse", "-o", disk, "--name", "another"
    )
    assert done.returncode == 0, done.stderr
    assert "runtime of environment bundler" in done.stderr
    assert "no pixi: the target installs natively" in done.stderr
    done = bundler("unpack", disk / "another", installed, *NATIVE)
    assert done.returncode == 0 and "not in the new generation: default" in done.stderr
    shown = json.loads(bundler("history", "-C", installed, "--json").stdout)["generations"]
    assert [one["environments"] for one in shown] == [["default", "extra"], ["extra"]]
    assert shown[0]["models"] == shown[1]["models"] == ["tiny-glm4-moe", "other"]
    assert bundler("verify", "--deep", installed).returncode == 0
