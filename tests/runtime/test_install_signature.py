"""install.sh: whose bundle it takes, before a byte of it is run or written."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.runtime.conftest import write_small_bundle
from tests.runtime.mounts import needs_mounts, run_mounted
from tests.runtime.roots import TOOLS
from tests.support.ssh_keys import KeyPair, make_key, needs_ssh_keygen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = needs_ssh_keygen

SHELLS = [["sh"]] + ([["busybox", "sh"]] if shutil.which("busybox") else [])
TAKEN = "unpacking bundler's own runtime"
"""What is said once the checks are over; the small bundle's runtime is none, so it ends there."""


@dataclass(frozen=True)
class Disk:
    """A bundle signed by an allowed signer, as far as ``install.sh`` looks at it."""

    root: Path
    key: KeyPair
    other: KeyPair

    @property
    def bundle(self) -> Path:
        """The bundle."""
        return self.root / "a bundle"

    @property
    def allowed(self) -> Path:
        """The file of allowed signers."""
        return self.root / "allowed signers"

    @property
    def dest(self) -> Path:
        """Where to install."""
        return self.root / "dest"

    @property
    def digest(self) -> str:
        """The sha256 of the sums."""
        return hashlib.sha256((self.bundle / "SHA256SUMS").read_bytes()).hexdigest()


@pytest.fixture(params=SHELLS, ids=lambda words: words[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Return the command of each POSIX shell that is here."""
    return request.param


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Return a signed bundle."""
    made = Disk(tmp_path, make_key(tmp_path / "key"), make_key(tmp_path / "other"))
    write_small_bundle(made.bundle)
    made.key.sign(made.bundle / "SHA256SUMS")
    made.allowed.write_text(made.key.line())
    return made


def install(
    shell: list[str], disk: Disk, *words: object, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run install.sh; the host has no allowed signers but those that are named."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BUNDLER_")}
    return subprocess.run(
        [*shell, disk.bundle / "install.sh", disk.dest, *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        env=environment | variables,
        cwd=disk.root,
        timeout=60,
    )


def refused(disk: Disk, done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that it ended with the code of distrust, and that nothing was written."""
    assert done.returncode == 16, done.stderr
    for word in (*words, "fix: "):
        assert word in done.stderr
    assert not disk.dest.exists()


def test_a_good_signature_is_taken(shell: list[str], disk: Disk) -> None:
    done = install(shell, disk, "--allowed-signers", disk.allowed)
    assert TAKEN in done.stderr
    assert f"signed by packer@example.org, checked against {disk.allowed}" in done.stderr
    assert disk.digest in done.stderr


def forge(disk: Disk) -> None:
    """Alter what is run, and write the sums anew: all sums agree."""
    (disk.bundle / "runtime.tar.gz").write_bytes(b"another")
    lines = [
        f"{hashlib.sha256((disk.bundle / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("install.sh", "manifest.json", "runtime.tar.gz")
    ]
    (disk.bundle / "SHA256SUMS").write_text("".join(lines))


def expired(disk: Disk) -> None:
    disk.allowed.write_text(disk.key.line(options='valid-before="20200101"'))


def revoked(disk: Disk) -> None:
    disk.allowed.write_text(disk.other.line())


def by_another(disk: Disk) -> None:
    disk.other.sign(disk.bundle / "SHA256SUMS")


def in_another_namespace(disk: Disk) -> None:
    disk.key.sign(disk.bundle / "SHA256SUMS", "file")


def missing(disk: Disk) -> None:
    (disk.bundle / "SHA256SUMS.sig").unlink()


def empty(disk: Disk) -> None:
    (disk.bundle / "SHA256SUMS.sig").write_bytes(b"")


HARMS = [forge, expired, revoked, by_another, in_another_namespace, missing, empty]


@pytest.mark.parametrize("harm", HARMS)
def test_nothing_else_gets_past(shell: list[str], disk: Disk, harm: Callable[[Disk], None]) -> None:
    """By option and by variable."""
    harm(disk)
    refused(disk, install(shell, disk, "--partial", "--allowed-signers", disk.allowed), "sign")
    refused(disk, install(shell, disk, f"--allowed-signers={disk.allowed}"))
    refused(disk, install(shell, disk, BUNDLER_ALLOWED_SIGNERS=str(disk.allowed)))
    # Without allowed signers, the altered disk is taken: this is what the signature is for.
    assert TAKEN in install(shell, disk).stderr


@needs_mounts
def test_the_hosts_own_file_is_heeded(shell: list[str], disk: Disk) -> None:
    """It is asked for by being there; a dangling link is no way round."""
    setup = (
        "mkdir /mnt/etc && cp -a /etc/. /mnt/etc && mkdir -p /mnt/etc/bundler && mount --bind /mnt/etc /etc"
    )
    setup = f"mount -t tmpfs tmpfs /mnt\n{setup}\n%s /etc/bundler/allowed_signers"
    words: list[str | Path] = [*shell, disk.bundle / "install.sh", disk.dest]
    missing(disk)
    refused(disk, run_mounted(setup % f"cp '{disk.allowed}'", words), "is not signed")
    refused(disk, run_mounted(setup % "ln -s nowhere", words), "can't be read")
    disk.key.sign(disk.bundle / "SHA256SUMS")
    assert "signed by packer@example.org" in run_mounted(setup % f"cp '{disk.allowed}'", words).stderr


def test_the_only_way_round_is_said(shell: list[str], disk: Disk) -> None:
    missing(disk)
    done = install(shell, disk, "--allowed-signers", disk.allowed, "--insecure-unsigned")
    assert TAKEN in done.stderr
    assert "warning: no signature was asked for" in done.stderr


def test_the_disk_does_not_vouch_for_itself(shell: list[str], disk: Disk) -> None:
    inside = disk.bundle / "allowed_signers"
    shutil.copy(disk.allowed, inside)
    (disk.root / "link").symlink_to(inside)
    for path in (inside, disk.root / "link"):
        refused(disk, install(shell, disk, "--allowed-signers", path), "vouch")


def test_a_file_that_is_not_there_refuses(shell: list[str], disk: Disk) -> None:
    refused(disk, install(shell, disk, "--allowed-signers", "nowhere"), "can't be read: nowhere")


def test_the_digest_is_enforced(shell: list[str], disk: Disk) -> None:
    """With ``--sha256``, which takes no signature's place; without, it is shown for comparing."""
    assert TAKEN in install(shell, disk, "--sha256", disk.digest).stderr
    shutil.rmtree(disk.dest)
    shown = install(shell, disk)
    assert f"sha256 of SHA256SUMS: {disk.digest}" in shown.stderr and "no signature" in shown.stderr
    shutil.rmtree(disk.dest)
    refused(disk, install(shell, disk, f"--sha256={'0' * 64}"), disk.digest)
    missing(disk)
    refused(disk, install(shell, disk, "--sha256", disk.digest, "--allowed-signers", disk.allowed))


def tools_without_ssh_keygen(folder: Path) -> Path:
    """Return a folder with the tools that install.sh needs, and nothing else."""
    folder.mkdir()
    for name in (*TOOLS, "env"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


OLD = "echo 'unknown option -- Y' >&2; exit 1"
ALMOST = "echo 'Unsupported operation for -Y: \"find-principals\"' >&2; exit 1"


@pytest.mark.parametrize(("script", "words"), [("", "no ssh-keygen"), (OLD, "too old"), (ALMOST, "too old")])
def test_without_a_program_to_check_with(disk: Disk, script: str, words: str) -> None:
    """Signed or not, it is refused; without allowed signers the program isn't needed."""
    tools = tools_without_ssh_keygen(disk.root / "tools")
    if script:
        (tools / "ssh-keygen").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "ssh-keygen").chmod(0o755)
    done = install(["sh"], disk, "--allowed-signers", disk.allowed, PATH=str(tools))
    refused(disk, done, words, "8.2")
    assert TAKEN in install(["sh"], disk, PATH=str(tools)).stderr


def test_the_program_is_none_of_the_disks(disk: Disk) -> None:
    """A relative folder on PATH, or the disk's own, is passed over."""
    tools = tools_without_ssh_keygen(disk.root / "tools")
    fake = disk.bundle / "ssh-keygen"
    fake.write_text("#!/bin/sh\necho packer@example.org\n")
    fake.chmod(0o755)
    forge(disk)
    for path in (f"{tools}:{disk.bundle}", f"{tools}:{disk.bundle.name}"):
        done = install(["sh"], disk, "--allowed-signers", disk.allowed, PATH=path)
        refused(disk, done, "no ssh-keygen")


def test_the_programs_environment_is_clean(disk: Disk) -> None:
    tools = tools_without_ssh_keygen(disk.root / "tools")
    real, seen = shutil.which("ssh-keygen"), disk.root / "seen"
    (tools / "ssh-keygen").write_text(f"#!/bin/sh\nenv >>'{seen}'\nexec {real} \"$@\"\n")
    (tools / "ssh-keygen").chmod(0o755)
    done = install(
        ["sh"], disk, "--allowed-signers", disk.allowed, PATH=str(tools), TZ="X", SSH_AUTH_SOCK="y"
    )
    assert TAKEN in done.stderr
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert {"PATH", "LC_ALL"} <= names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}


def test_damage_behind_a_good_signature_is_damage(shell: list[str], disk: Disk) -> None:
    """What the signed sums name must be what lies there."""
    (disk.bundle / "runtime.tar.gz").write_bytes(b"another")
    done = install(shell, disk, "--allowed-signers", disk.allowed)
    assert done.returncode == 5
    assert "runtime.tar.gz is damaged or altered" in done.stderr
    assert not disk.dest.exists()


def test_a_drive_that_says_something_else_the_second_time(disk: Disk) -> None:
    """What is believed and unpacked is what was checked: all that is read to be kept comes out altered."""
    tools = tools_without_ssh_keygen(disk.root / "tools")
    (tools / "cat").unlink()
    (tools / "cat").write_text(f'#!/bin/sh\n{shutil.which("cat")} "$@"\necho more\n')
    (tools / "cat").chmod(0o755)
    done = install(
        ["sh"], disk, PATH=f"{tools}:{os.environ['PATH']}", BUNDLER_ALLOWED_SIGNERS=str(disk.allowed)
    )
    refused(disk, done, "not a good one")
    done = install(["sh"], disk, PATH=str(tools))
    assert done.returncode == 5, done.stderr
    assert "read differently" in done.stderr
    assert not (disk.dest / "runtime").exists()
    assert not list((disk.dest / ".bundler").glob("*.gz"))
