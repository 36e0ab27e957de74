"""install.sh on hostile bundles: a shell script escapes, hangs and fails no more than bundler does."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from bundler.manifest import Runtime
from bundler.runtime.build import install_script
from tests.hostile.cases import files, sums
from tests.hostile.test_bundles import CONTROLS, escapes, made, seen, workshop
from tests.runtime.test_install_script import SHELLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hostile.workshop import Workshop

__all__ = ["made", "workshop"]
"""Fixtures."""

LONGEST = 30
"""Seconds after which a run counts as hung."""
KEPT = "../../../canary/kept"
"""What somebody else's file is called from where the runtime is unpacked."""


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.mode = kind, target, mode
    one.size = 7 if kind == tarfile.REGTYPE else 0
    return one


ARCHIVES: dict[str, tuple[tarfile.TarInfo, ...]] = {
    "a file above": (member(KEPT), member("../../../canary/new")),
    "an absolute file": (member("CANARY/kept"), member("CANARY/new")),
    "a file over a link": (
        member("x", tarfile.SYMTYPE, "../../../canary"),
        member("x/kept"),
        member("x/new"),
    ),
    "a file over an absolute link": (
        member("x", tarfile.SYMTYPE, "CANARY"),
        member("x/kept"),
        member("x/new"),
    ),
    "a file in a link's place": (member("x", tarfile.SYMTYPE, KEPT), member("x")),
    "a file in a hard link's place": (member("x", tarfile.LNKTYPE, KEPT), member("x")),
    "a folder's mode over a link": (
        member("x", tarfile.SYMTYPE, "../../../canary"),
        member("x", tarfile.DIRTYPE, mode=0o777),
    ),
    "links over links": (
        member("x", tarfile.SYMTYPE, ".."),
        member("x/y", tarfile.SYMTYPE, "../../canary"),
        member("x/y/new"),
    ),
    "a FIFO in place of what is run": (member("bin/python", tarfile.FIFOTYPE),),
    "a link in place of what is run": (member("bin/python", tarfile.SYMTYPE, KEPT),),
}


def archive(members: tuple[tarfile.TarInfo, ...], canary: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as out:
        for one in members:
            one = one.replace(name=one.name.replace("CANARY", canary))
            one = one.replace(linkname=one.linkname.replace("CANARY", canary))
            out.addfile(one, io.BytesIO(b"hostile") if one.isreg() else None)
    return data.getvalue()


def run(shell: list[str], one: Workshop, record: Callable[[str, object], None]) -> None:
    """Run the script; it must end, in a message, and touch nothing but its destination."""
    before = seen(one.canary), seen(one.bundle)
    script = one.home / "bundle" / "install.sh"
    command = [*shell, script, "--runtime-only", one.home / "out"]
    found = []
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST, check=False, cwd=one.home)
    except subprocess.TimeoutExpired:
        found.append("hang of install.sh")
    else:
        said = done.stderr.decode(errors="replace")
        if done.returncode not in (5, 8, 9, 10) or "fix: " not in said:
            found.append(f"defect of install.sh, code {done.returncode}: {said[-500:]}")
        if CONTROLS.search(said):
            found.append("escape of install.sh: what commands a terminal")
    if (seen(one.canary), seen(one.bundle)) != before:
        found.append("escape of install.sh: the bundle or what lies beside it")
    # What lies in the runtime is run anyway, once its sum is right.
    found += [line for line in escapes(one.home / "out") if "/runtime" not in line]
    record("hostile", "; ".join(found))
    assert not found


@pytest.fixture
def scripted(workshop: Workshop) -> Workshop:
    facts = Runtime(source="x", python="3", bundler="0", unpacked_bytes=10_240, inodes=2)
    (workshop.bundle / "install.sh").write_bytes(install_script(facts, 1000))
    workshop.sign()
    return workshop


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("name", sums.LISTS)
def test_sums(
    name: str, shell: list[str], scripted: Workshop, record_property: Callable[[str, object], None]
) -> None:
    sums.sums(sums.LISTS[name])(scripted)
    run(shell, scripted, record_property)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("what", files.PLANTS)
@pytest.mark.parametrize("name", ["SHA256SUMS", "manifest.json", "runtime.tar.gz", "SHA256SUMS.sig"])
def test_files(
    name: str,
    what: str,
    shell: list[str],
    scripted: Workshop,
    record_property: Callable[[str, object], None],
) -> None:
    (scripted.bundle / name).touch()
    files.instead(name, files.PLANTS[what])(scripted)
    run(shell, scripted, record_property)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("name", ARCHIVES)
def test_runtimes(
    name: str, shell: list[str], scripted: Workshop, record_property: Callable[[str, object], None]
) -> None:
    """Sums that are right vouch for the archive; tar must not write elsewhere all the same."""
    path = scripted.bundle / "runtime.tar.gz"
    path.write_bytes(archive(ARCHIVES[name], str(scripted.canary).lstrip("/")))
    scripted.sign()
    run(shell, scripted, record_property)
