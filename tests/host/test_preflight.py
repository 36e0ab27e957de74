"""Preflight: every obstacle is found at once, on real file systems."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from bundler import manifest as manifests
from bundler.errors import PreflightError
from bundler.host.doctor import examine_all
from bundler.host.facts import HostFacts
from bundler.host.finding import fail, warn
from bundler.host.gpu import driver_version
from bundler.host.preflight import preflight, require
from bundler.host.space import BLOCK, needs
from bundler.manifest import Entry, Environment, Manifest, Package, Writer
from bundler.work import unpack as work
from bundler.work.unpack import UnpackOptions, serving_line
from bundler.work.update import Place
from tests.host.test_checks import HOST as TARGET
from tests.runtime.mounts import needs_mounts, run_mounted

if TYPE_CHECKING:
    from bundler.archive.bundle import Bundle
    from bundler.common.progress import Reporter

HOST = HostFacts(hostname="gpu1", machine="x86_64", glibc="2.35")
MIB = 1024 * 1024
ENVIRONMENT = 10 * MIB * 21 // 20 + 30 * BLOCK // 2
"""What 10 MiB in 20 inodes take, with their compiled modules: a twentieth more bytes, half as many inodes."""


def bundle(
    *,
    files: dict[str, int] | None = None,
    installed: int = 10 * MIB,
    inodes: int = 20,
    cuda: str | None = None,
) -> Manifest:
    """Return a manifest with files of the given sizes and one environment."""
    tree = [Entry("weights", "dir", 0o755, 0, "", 0)]
    tree += [Entry(path, "file", 0o644, size, "0" * 64, 0) for path, size in (files or {}).items()]
    package = Package(
        "wheel", "one", "1", "", ".pkg-cache/mirror/host/one.whl", 5, "0" * 64, installed, inodes
    )
    return Manifest(
        name="x",
        writer=Writer(bundler="0", libzstd="0"),
        environments=(Environment(name="cu128", cuda=cuda, packages=(package,)),),
        tree=tuple(tree),
    )


def check_mounted(tmp_path: Path, setup: str, destination: Path, manifest: Manifest) -> list[dict[str, str]]:
    """Run preflight in a mount namespace and return its findings."""
    path = tmp_path / "manifest.json"
    path.write_bytes(manifests.encode(manifest))
    program = (
        "import json, sys; from pathlib import Path; from bundler import manifest; import msgspec;"
        "from bundler.host.facts import HostFacts;"
        "from bundler.host.preflight import preflight;"
        "bundle = manifest.read(Path(sys.argv[1]));"
        "host = HostFacts(machine='x86_64', glibc='2.35');"
        "found = preflight([bundle], Path(sys.argv[2]), host);"
        "print(json.dumps([msgspec.to_builtins(one) for one in found]))"
    )
    done = run_mounted(setup, [sys.executable, "-c", program, path, destination])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_fit_host_has_no_findings_and_keeps_nothing(tmp_path: Path) -> None:
    assert preflight([bundle(files={"weights/a": 100})], tmp_path / "dest", HOST) == []
    assert list(tmp_path.iterdir()) == []


@needs_mounts
def test_a_small_file_system_is_named_with_its_figures(tmp_path: Path) -> None:
    manifest = bundle(files={"weights/a": 60 * MIB})
    found = check_mounted(tmp_path, "mount -t tmpfs -o size=100m tmpfs /mnt", Path("/mnt/glm"), manifest)
    assert [one["level"] for one in found] == ["fail"]
    assert found[0]["seen"].startswith("105 MB are free on the file system of /mnt, 141 MB are needed")
    assert "the weights 62.9 MB" in found[0]["seen"]
    assert "environment cu128 11.1 MB" in found[0]["seen"]


@needs_mounts
def test_each_file_system_is_counted_by_itself(tmp_path: Path) -> None:
    setup = (
        "mount -t tmpfs -o size=90m tmpfs /mnt; mkdir -p /mnt/glm/weights /mnt/glm/.pixi\n"
        "mount -t tmpfs -o size=200m tmpfs /mnt/glm/weights; mount -t tmpfs -o size=66m tmpfs /mnt/glm/.pixi"
    )
    manifest = bundle(files={"weights/a": 130 * MIB, ".pkg-cache/mirror/a": 10 * MIB})
    found = check_mounted(tmp_path, setup, Path("/mnt/glm"), manifest)
    # The weights fit on theirs; the environment doesn't, on a file system without links to its cache.
    assert [one["seen"].split(",")[0] for one in found] == [
        "69.2 MB are free on the file system of /mnt/glm/.pixi"
    ]


@needs_mounts
def test_too_few_inodes_are_found(tmp_path: Path) -> None:
    setup = "mount -t tmpfs -o size=200m,nr_inodes=1000 tmpfs /mnt"
    found = check_mounted(tmp_path, setup, Path("/mnt/glm"), bundle(inodes=5000))
    assert len(found) == 1
    assert "inodes are free" in found[0]["seen"]
    assert "7501 are needed" in found[0]["seen"]


@needs_mounts
def test_noexec_and_space_are_found_at_once(tmp_path: Path) -> None:
    setup = "mount -t tmpfs -o size=10m,noexec tmpfs /mnt"
    found = check_mounted(tmp_path, setup, Path("/mnt/a:b"), bundle(files={"weights/a": 60 * MIB}))
    assert len(found) == 3
    text = " ".join(one["seen"] for one in found)
    assert "holds one of" in text
    assert "noexec" in text
    assert "are needed" in text


@needs_mounts
def test_a_read_only_destination_is_found(tmp_path: Path) -> None:
    found = check_mounted(tmp_path, "mount -t tmpfs -o ro tmpfs /mnt", Path("/mnt/glm"), bundle())
    assert any("nothing can be written to /mnt: Read-only file system" in one["seen"] for one in found)


@needs_mounts
def test_a_folder_of_somebody_else_is_found() -> None:
    program = (
        "import os, sys; from pathlib import Path; from bundler.host.disk_checks import try_out;"
        "os.setuid(65534); print(try_out(Path(sys.argv[1])))"
    )
    setup = "mount -t tmpfs -o mode=755 tmpfs /mnt"
    done = run_mounted(setup, [sys.executable, "-c", program, "/mnt/glm"])
    assert "writable=False" in done.stdout
    assert "problem='Permission denied'" in done.stdout


def test_an_interrupted_run_needs_only_the_rest(tmp_path: Path) -> None:
    manifest = bundle(files={"weights/done": 8 * MIB, "weights/begun": 8 * MIB, "weights/new": 8 * MIB})
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/done").write_bytes(bytes(8 * MIB))
    (tmp_path / ".bundler/partial/weights").mkdir(parents=True)
    (tmp_path / ".bundler/partial/weights/begun").write_bytes(os.urandom(3 * MIB))
    environments = manifest.environments
    found = {need.part: need for need in needs([manifest], tmp_path, environments)}
    assert found["the weights"].size == 13 * MIB
    assert found["the weights"].inodes == 2
    whole = found["environment cu128"].size
    assert whole == ENVIRONMENT
    (tmp_path / ".pixi/envs/cu128").mkdir(parents=True)
    (tmp_path / ".pixi/envs/cu128/file").write_bytes(os.urandom(4 * MIB))
    rest = {need.part: need for need in needs([manifest], tmp_path, environments)}["environment cu128"]
    assert rest.size == whole - 4 * MIB


def test_without_hard_links_an_environment_counts_twice(tmp_path: Path) -> None:
    manifest = bundle()
    once = sum(need.size for need in needs([manifest], tmp_path, manifest.environments))
    twice = sum(need.size for need in needs([manifest], tmp_path, manifest.environments, hard_links=False))
    assert twice == once + ENVIRONMENT


def test_no_environment_asks_for_nothing_but_the_payload(tmp_path: Path) -> None:
    findings = preflight([bundle(cuda="12.8")], tmp_path, HOST, environments=[])
    assert findings == []


def test_a_path_too_long_for_an_environment_is_found(tmp_path: Path) -> None:
    destination = tmp_path / ("d" * 150) / ("e" * 150)
    assert [one.level for one in preflight([bundle()], destination, HOST)] == ["fail"]


def test_a_newer_glibc_wanted_is_found(tmp_path: Path) -> None:
    found = preflight([bundle()], tmp_path, msgspec.structs.replace(HOST, glibc="2.27"))
    assert [(one.level, one.name, one.seen) for one in found] == [("fail", "glibc", "2.27")]
    assert found[0].wanted == "2.28 or newer" and found[0].fix


@pytest.mark.parametrize(
    ("line", "cuda", "level", "words"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025", "12.8", None, ""),
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "12.8", None, ""),
        ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024", "12.8", "warn", "branch 570"),
        ("NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 2024", "12.6", "fail", "branch 525"),
        (None, "12.6", None, ""),
    ],
)
def test_the_driver_is_judged_against_the_cuda_version(
    tmp_path: Path, line: str | None, cuda: str, level: str | None, words: str
) -> None:
    """Also where its library can't be reached. A host without any driver may get one before it serves."""
    file = tmp_path / "version"
    if line is not None:
        file.write_text(f"NVRM version: {line}\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
    host = msgspec.structs.replace(HOST, driver=driver_version(file))
    findings = preflight([bundle(cuda=cuda)], tmp_path, host)
    assert [one.level for one in findings] == ([level] if level else [])
    assert all(words in one.line for one in findings)


def test_a_host_without_a_driver_is_told_once(tmp_path: Path) -> None:
    """One cause, one finding: the GPUs and the driver's own library aren't listed beside it."""
    manifest = bundle(cuda="12.8")
    host = msgspec.structs.replace(
        TARGET,
        driver=None,
        driver_cuda=None,
        gpus=(),
        gpu_problem="NVML doesn't start",
        libraries={},
        nvidia_smi=None,
    )
    findings = preflight([manifest], tmp_path, host) + examine_all(host, manifest.environments, ())
    assert [one.name for one in findings if one.level != "good"] == ["NVIDIA driver"]
    line = serving_line(manifest, host)
    assert line is not None and line.startswith("serving here will need 1 thing: NVIDIA driver;")
    assert serving_line(manifest, TARGET) is None
    # An environment without CUDA and SGLang serves nowhere: this host lacks nothing for it.
    plain = msgspec.structs.replace(manifest.environments[0], cuda=None, sglang=None)
    assert serving_line(msgspec.structs.replace(manifest, environments=(plain,)), host) is None


def test_a_container_without_the_drivers_library_is_told_once() -> None:
    host = msgspec.structs.replace(TARGET, gpus=(), gpu_problem="NVML doesn't start", libraries={})
    bad = [one for one in examine_all(host, bundle(cuda="12.8").environments, ()) if one.level == "fail"]
    assert [one.name for one in bad] == ["libcuda.so.1"]
    assert "container" in bad[0].fix


def test_unpack_says_in_one_line_what_serving_will_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way through ``unpack``'s own preflight, on a host without a driver and a small /dev/shm."""
    host = msgspec.structs.replace(
        TARGET, driver=None, gpus=(), gpu_problem="NVML doesn't start", libraries={}, shm=None
    )
    monkeypatch.setattr("bundler.host.facts.describe", lambda: host)
    said: list[str] = []
    reporter = SimpleNamespace(say=said.append)
    subject = SimpleNamespace(manifest=bundle(cuda="12.8"))
    options = UnpackOptions(reporter=cast("Reporter", reporter))
    work._preflight(cast("Bundle", subject), Place(tmp_path, tmp_path), options)
    assert len(said) == 1
    assert said[0].startswith("warning: serving here will need 2 things: NVIDIA driver, /dev/shm; ")


def test_the_driver_version_of_a_file_without_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("something else\n")
    assert driver_version(tmp_path / "version") is None


def test_errors_are_raised_together_and_warnings_are_returned(tmp_path: Path) -> None:
    warning = warn("destination", "disk", "slow", fix="wait")
    assert require([warning], tmp_path) == [warning]
    with pytest.raises(PreflightError) as caught:
        require([fail("destination", "disk", "full", fix="free some"), warning], tmp_path)
    assert caught.value.findings == ("error: disk: full; free some", "warning: disk: slow; wait")
    assert shlex.quote(str(tmp_path)) in str(caught.value)
