"""Keys and files of allowed signers, made by the real ``ssh-keygen``."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="no ssh-keygen here (a Debian package: openssh-client)"
)


@dataclass(frozen=True)
class KeyPair:
    """A private key without a passphrase, and its public key beside it."""

    path: Path

    @property
    def public(self) -> Path:
        """The public key's file."""
        return self.path.with_name(self.path.name + ".pub")

    @property
    def fingerprint(self) -> str:
        """What ``ssh-keygen -l`` calls it."""
        said = subprocess.run(["ssh-keygen", "-lf", self.public], check=True, capture_output=True, text=True)
        return said.stdout.split()[1]

    def line(self, principal: str = "packer@example.org", options: str = "") -> str:
        """Return the key's line of a file of allowed signers."""
        kind, key, *_ = self.public.read_text().split()
        return " ".join(filter(None, [principal, options, kind, key])) + "\n"

    def sign(self, file: Path, namespace: str = "bundler") -> Path:
        """Sign a file by hand, and return the signature that then lies beside it."""
        signature = file.with_name(file.name + ".sig")
        signature.unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.path), str(file)]
        subprocess.run(words, check=True, capture_output=True)
        return signature


def make_key(path: Path) -> KeyPair:
    """Make an ed25519 key."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return KeyPair(path)


@contextmanager
def agent(socket: Path) -> Iterator[None]:
    """Run an ``ssh-agent`` at a socket, and end it."""
    words = ["ssh-agent", "-D", "-a", str(socket)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # It says its socket once it listens there.
        try:
            yield
        finally:
            process.terminate()
