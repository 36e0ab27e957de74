"""OpenSSH's ``ssh-keygen -Y``: signs bytes, and checks signatures against a file of allowed signers.

Checking needs 8.2, which brought ``find-principals``. Times of validity in the file of allowed signers
need 8.8; an older one takes such a line for none of its own, and so refuses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import InputError, UntrustedError
from bundler.installation import now
from bundler.provenance import CheckedSignature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAMESPACE = "bundler"
"""What the signatures are for: one that was made for another purpose is none."""

_FOR_KEYS = (
    *("HOME", "TERM", "DISPLAY", "WAYLAND_DISPLAY"),
    *("SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "SSH_SK_PROVIDER"),
)
"""Variables by which a key is found and unlocked."""
_FINGERPRINT = re.compile(r"key (SHA256:\S+)")
_TOO_OLD = re.compile(r"option -- '?Y|Unsupported operation", re.IGNORECASE)
_INSTALL = "install OpenSSH's client, 8.2 or newer (openssh-client, openssh-clients)"


def verify(data: bytes, signature: bytes, allowed_signers: Path) -> CheckedSignature:
    """Check that a signature over bytes is good now, and by an allowed signer.

    :raises UntrustedError: it is not, or ``ssh-keygen`` isn't here or too old to tell.
    """
    program = _find_program()
    if program is None:
        raise UntrustedError(
            "the signature can't be checked: there is no ssh-keygen here", hint=f"{_INSTALL}, here"
        )
    with _file_of(signature) as path:
        common = ("-s", str(path), "-f", str(allowed_signers))
        found = _run(program, ["-Y", "find-principals", *common])
        said = found.stderr
        for principal in found.stdout.decode("utf-8", "replace").splitlines():
            words = ["-Y", "verify", *common, "-n", NAMESPACE, "-I", principal]
            done = _run(program, words, data)
            key = _FINGERPRINT.search(done.stdout.decode("utf-8", "replace"))
            if done.returncode == 0 and key:
                return CheckedSignature(
                    principal=principal, key=key[1], allowed_signers=str(allowed_signers), checked=now()
                )
            said += done.stderr
    raise _refused(said, allowed_signers)


def sign(data: bytes, key: Path, say: Callable[[str], None]) -> tuple[bytes, str]:
    """Sign bytes, with whatever the key needs: a passphrase, an agent, a touch.

    :param key: a private key, or the public key of one that an agent holds.
    :param say: shown what ``ssh-keygen`` asks for.
    :returns: the signature, and the key's fingerprint.
    :raises InputError: the key can't be used.
    """
    program = check_key(key)
    words = [program, "-Y", "sign", "-n", NAMESPACE, "-f", str(key)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=_clean(_FOR_KEYS), **pipes) as process:  # type: ignore[call-overload]
        try:
            process.stdin.write(data)
            process.stdin.close()
        except BrokenPipeError:
            pass  # It ended before it read; what it says tells why.
        said = []
        for line in process.stderr:
            said.append(line)
            if b"standard input" not in line:
                say(line.decode("utf-8", "replace").rstrip())
        signature: bytes = process.stdout.read()
    with _file_of(signature) as path:
        done = _run(program, ["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path)], data)
    fingerprint = _FINGERPRINT.search(done.stdout.decode("utf-8", "replace"))
    if process.returncode != 0 or done.returncode != 0 or not fingerprint:
        raise InputError(
            "ssh-keygen did not sign with this key",
            where=key,
            findings=_lines(b"".join(said)),
            hint="name a private key of OpenSSH, or the public key (.pub) of one that ssh-agent holds",
        )
    return signature, fingerprint[1]


def signed_by(data: bytes, signature: bytes, key: Path) -> str | None:
    """Tell whether a signature over bytes is this very key's.

    :returns: the key's fingerprint, or ``None``.
    :raises InputError: the key can't be read.
    """
    program = check_key(key)
    said = _run(program, ["-l", "-E", "sha256", "-f", str(key)]).stdout.decode("utf-8", "replace").split()
    with _file_of(signature) as path:
        done = _run(program, ["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path)], data)
    found = _FINGERPRINT.search(done.stdout.decode("utf-8", "replace"))
    return found[1] if done.returncode == 0 and found and found[1] in said else None


def check_key(key: Path) -> str:
    """Check that there is a key and a program to sign with.

    :returns: the program.
    :raises InputError: there is not.
    """
    program = _find_program()
    if program is None:
        raise InputError("signing needs ssh-keygen, which isn't here", hint=_INSTALL)
    if not key.is_file() or not os.access(key, os.R_OK):
        raise InputError("the key to sign with can't be read", where=key, hint="name a key of ssh-keygen's")
    return program


def _refused(said: bytes, allowed_signers: Path) -> UntrustedError:
    if _TOO_OLD.search(said.decode("utf-8", "replace")):
        return UntrustedError(
            "the signature can't be checked: the ssh-keygen here is too old", hint=f"{_INSTALL}, here"
        )
    return UntrustedError(
        f"the bundle's signature is not a good one by an allowed signer ({allowed_signers})",
        findings=_lines(said),
        hint="don't use what is on this disk; ask who packed it for a bundle that an allowed signer signed",
    )


def _find_program() -> str | None:
    return shutil.which("ssh-keygen", path=_search_path())


def _search_path() -> str:
    """Return ``PATH`` without relative folders: the current one may be the disk that is to be checked."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder).is_absolute())


def _clean(kept: Sequence[str] = ()) -> dict[str, str]:
    """Return the child's environment: nothing of ours but what it needs."""
    passed = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": _search_path(), "LC_ALL": "C", **passed}


def _run(program: str, words: Sequence[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program, *words], input=given, capture_output=True, env=_clean(), check=False)


@contextmanager
def _file_of(signature: bytes) -> Iterator[Path]:
    """Lend a file that holds the signature, for nobody else to change."""
    with tempfile.TemporaryDirectory(prefix="bundler-") as folder:
        path = Path(folder) / "signature"
        path.write_bytes(signature)
        yield path


def _lines(said: bytes, most: int = 6) -> list[str]:
    """Return what ``ssh-keygen`` said, each line once, without its usage."""
    text = said.decode("utf-8", "replace").partition("usage:")[0]
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))[:most]
