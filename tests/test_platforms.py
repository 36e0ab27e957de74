"""Which platform is carried: what the manifest declares, what a host offers, and what pixi takes there."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import tomli
from click.testing import CliRunner

from bundler.archive.bundle import Bundle
from bundler.archive.recipe import Recipe
from bundler.archive.writer import write_bundle
from bundler.cli.plan import plan_command
from bundler.collect.entries import workspace_members
from bundler.errors import PreflightError, UnknownNameError
from bundler.host.facts import HostFacts, virtual_packages
from bundler.host.gpu import Gpu
from bundler.install.pixi import platform_word
from bundler.lockfile import LockDocument, LockEnvironment, LockPlatform
from bundler.manifest import Environment, Manifest, Writer
from bundler.platforms import Candidate, choose_platform, pixis_choice, usable_platforms
from bundler.work.carried import other_platforms
from bundler.work.selection import open_workspace
from bundler.work.serving import Choice, open_choice
from bundler.work.unpack import UnpackOptions, check
from bundler.work.update import place_for
from bundler.workspace import EnvironmentLock, Workspace
from tests.test_workspace import LOCK_7, MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from bundler.common.progress import Reporter

USUAL = ("__unix=0=0", "__linux=4.18", "__glibc=2.28", "__archspec=0=x86_64")
PLAIN = Candidate("linux-64", "linux-64", USUAL)
OLD, NEW = Candidate("p1", "old", ("__cuda=12", *USUAL)), Candidate("p2", "new", ("__cuda=13", *USUAL))


def host(cuda: str | None = None, glibc: str = "2.35", *capabilities: str) -> dict[str, str]:
    gpus = tuple(
        Gpu(index=index, uuid="", name="", memory=0, free=0, compute_capability=one)
        for index, one in enumerate(capabilities)
    )
    return virtual_packages(HostFacts(driver_cuda=cuda, glibc=glibc, kernel="5.15.0-1-generic", gpus=gpus))


@pytest.mark.parametrize(
    ("order", "cuda", "taken"),
    [
        ((NEW, OLD, PLAIN), "13.0", NEW),
        ((NEW, OLD, PLAIN), "12.8", OLD),
        ((NEW, OLD, PLAIN), "11.8", PLAIN),
        ((NEW, OLD, PLAIN), None, PLAIN),
        ((OLD, NEW, PLAIN), "13.1", OLD),
        ((PLAIN, NEW), "13.1", PLAIN),
        ((NEW, OLD), "11.8", NEW),
    ],
)
def test_the_targets_driver_decides(order: tuple[Candidate, ...], cuda: str | None, taken: Candidate) -> None:
    assert choose_platform(order, None, host(cuda)) == taken
    assert choose_platform(order, order[-1].declared, host(cuda)) == order[-1], "the user's word goes before"
    assert choose_platform(order, None, {}) == order[0], "a GPU host that is new enough is meant"


def test_what_a_platform_asks_beyond_pixis_own_minimum() -> None:
    old_system = {"__glibc": "2.17", "__linux": "3.10"}
    assert pixis_choice([PLAIN], old_system) == PLAIN
    rich = Candidate("p1", "rich", ("__cuda=12.0", "__cuda_arch=9.0", "__glibc=2.34", "__linux=4.18"))
    assert dict(rich.asked) == {"__cuda": "12.0", "__cuda_arch": "9.0", "__glibc": "2.34"}
    assert rich.fits(host("12", "2.34", "9.0", "9.0"))
    assert not rich.fits(host("12", "2.34", "9.0", "8.0")), "the oldest of its GPUs counts"
    assert not rich.fits(host("12", "2.31", "9.0"))
    assert not rich.fits(host("12", "2.34"))


@pytest.mark.parametrize(
    ("entry", "asked", "name"),
    [
        ('{ name = "gpu", platform = "linux-64", cuda = "12.8" }', ("__cuda=12.8",), "gpu"),
        ('{ platform = "linux-64", cuda = "12.8" }', ("__cuda=12.8",), "linux-64-cuda-12-8"),
        (
            '{ platform = "linux-64", cuda = { driver = "12", arch = "9.0" } }',
            ("__cuda=12", "__cuda_arch=9.0"),
            "linux-64-cuda-12-cuda-arch-9-0",
        ),
        ('{ name = "new", platform = "linux-64", glibc = "2.34" }', ("__glibc=2.34",), "new"),
        ('{ name = "raw", platform = "linux-64", __cuda = "12=0" }', ("__cuda=12",), "raw"),
        ('{ name = "v3", platform = "linux-64", archspec = "x86_64_v3" }', ("__archspec=0=x86_64_v3",), "v3"),
    ],
)
def test_what_a_manifest_declares(entry: str, asked: tuple[str, ...], name: str) -> None:
    manifest: dict[str, Any] = tomli.loads(f'[workspace]\nplatforms = [{entry}, "linux-64"]')
    usual = [one for one in USUAL if one.partition("=")[0] not in {two.partition("=")[0] for two in asked}]
    platforms = (
        LockPlatform("linux-64", "linux-64", USUAL),
        LockPlatform("p1", "linux-64", (*asked, *usual)),
    )
    environment = LockEnvironment({"linux-64": (), "p1": ()})
    lock = LockDocument(7, {"default": environment}, (), platforms)
    found = usable_platforms(lock, environment, manifest)
    assert [(one.name, one.declared) for one in found] == [("p1", name), ("linux-64", "linux-64")]


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Return a workspace for two drivers and for none, in this order."""
    rich = "".join(
        f"- name: {name}\n  subdir: linux-64\n  virtual-packages:\n  - __cuda={cuda}\n  - __glibc=2.28\n"
        for name, cuda in (("p1", 12), ("p2", 13))
    )
    lock = LOCK_7.replace("environments:\n", f"{rich}environments:\n", 1)
    python, *_ = [line for line in LOCK_7.splitlines() if "/python-3" in line]
    lock = lock.replace(
        "      linux-64:\n", f"      p1:\n{python}\n      p2:\n{python}\n      linux-64:\n", 1
    )
    (tmp_path / "pixi.lock").write_text(lock)
    declared = '{ name = "new", platform = "linux-64", cuda = "13" }, { name = "old", platform = "linux-64", '
    declared += 'cuda = "12" }, "linux-64"'
    (tmp_path / "pixi.toml").write_text(MANIFEST.replace('["linux-64"]', f"[{declared}]"))
    return tmp_path


def test_a_workspace_for_a_described_host(both: Path) -> None:
    def taken(**offered: str) -> str:
        return Workspace.load(both, None, offered).environment("default").platform

    assert (taken(), taken(__cuda="13.0"), taken(__cuda="12.4"), taken(__cuda="")) == (
        *("p2", "p2", "p1", "linux-64"),
    )
    assert Workspace.load(both, {"": "old"}).environment("default").platform == "p1"
    with pytest.raises(UnknownNameError, match=r"there are: new \(p2 in the lock\), old \(p1 in"):
        open_workspace(both, ["default"], "p9")


@pytest.mark.parametrize(("cuda", "taken"), [("12.8", "old"), ("13.0", "new")])
def test_plan_takes_the_platform_of_the_described_host(both: Path, cuda: str, taken: str) -> None:
    target, others = both / "host.json", [name for name in ("new", "old", "linux-64") if name != taken]
    target.write_bytes(msgspec.json.encode(HostFacts(hostname="h", driver_cuda=cuda, glibc="2.35")))
    words = ["-C", str(both), "--env", "default", "--offline", "--target", str(target)]
    done = CliRunner().invoke(plan_command, words)
    assert f"for the platform {taken} (--platform takes another: {', '.join(others)})" in done.output
    assert isinstance(done.exception, PreflightError), "what that host lacks is said after the plan"
    seen = json.loads(CliRunner().invoke(plan_command, [*words, "--json"]).output)["environments"][0]
    assert seen["declared_platforms"][seen["platform"]] == taken


def test_pixi_is_told_a_platform_that_it_would_not_take() -> None:
    def word(carried: Candidate, *order: Candidate) -> str | None:
        one = EnvironmentLock("e", (), carried.name, (), candidates=order)
        return platform_word(one, one_cuda(carried))

    def one_cuda(carried: Candidate) -> str:
        return carried.asked.get("__cuda", "")

    assert word(NEW, NEW, OLD, PLAIN) is None
    assert word(OLD, NEW, OLD, PLAIN) is None
    assert word(PLAIN, NEW, OLD, PLAIN) is None
    assert word(NEW, OLD, NEW, PLAIN) == "new"
    assert word(NEW, PLAIN, NEW) == "new"
    finer = Candidate("p3", "finer", ("__cuda=12", "__cuda_arch=9.0", *USUAL))
    assert word(OLD, finer, OLD) == "old", "on a host with such a GPU pixi would take the finer one"
    assert word(finer, finer, OLD) == "finer", "and on one without a GPU the other"


@pytest.mark.parametrize(
    ("carried", "cuda", "named"),
    [
        ("p2", "13.0", None),
        ("p2", "12.8", "old"),
        ("p1", "13.0", "new"),
        ("p1", "12.8", None),
        ("p1", None, None),
    ],
)
def test_a_gpu_host_is_told_of_another_platform_before_a_write(
    both: Path, tmp_path: Path, carried: str, cuda: str, named: str | None
) -> None:
    environment = Environment(name="default", platform=carried)
    head = Manifest(name="b", writer=Writer(bundler="", libzstd=""), environments=(environment,))
    recipe = Recipe(head=head, members=workspace_members(Workspace.load(both)), level=1, volume_size=2**24)
    folder = tmp_path / "bundle"
    write_bundle(recipe, [folder])
    with Bundle.open([folder]) as bundle:
        lines = list(other_platforms(bundle, HostFacts(driver_cuda=cuda, glibc="2.35", kernel="6.1")))
        assert len(lines) == (1 if named else 0)
        assert not named or (f"pixi takes {named} " in lines[0] and f"--platform {named}" in lines[0])
        said: list[str] = []
        options = UnpackOptions(reporter=cast("Reporter", SimpleNamespace(say=said.append)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bundler.host.facts.describe", lambda: HostFacts(driver_cuda=cuda, glibc="2.35"))
            patch.setattr("bundler.host.preflight.require", lambda *_: [])
            check(bundle, place_for(bundle, tmp_path / "to"), options)
        assert [line.removeprefix("warning: ") for line in said] == lines
        assert not (tmp_path / "to").exists()
        data = bytearray((folder / "data-00001.tar.zst").read_bytes())
        (folder / "data-00001.tar.zst").write_bytes(data[:-1])
        assert list(other_platforms(bundle, HostFacts(driver_cuda="13.0"))) == []


@pytest.mark.parametrize(("cuda", "seen"), [("12.8", "12"), ("13.0", "13")])
def test_doctor_judges_the_platform_of_the_described_host(both: Path, cuda: str, seen: str) -> None:
    facts = HostFacts(hostname="h", driver="580.1", driver_cuda=cuda, glibc="2.35")
    choice = Choice(start=both, model="GLM-4.7", dry_run=True)
    opened = open_choice(choice, facts)
    assert opened.launch.target.software.stack.cuda == seen
