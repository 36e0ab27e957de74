"""What is asked of a bundle before anything of it is believed: a signature, a digest, or neither."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.archive import ssh_keygen, sums
from bundler.errors import UntrustedError
from bundler.provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence

ALLOWED_SIGNERS = Path("/etc/bundler/allowed_signers")
"""The host's own file of allowed signers: where it is there, signatures are asked for."""
ALLOWED_SIGNERS_VARIABLE = "BUNDLER_ALLOWED_SIGNERS"

_LARGEST_SIGNATURE = 2**16
"""Bytes; one by a certificate of RSA keys has less than a tenth."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What the user and the host ask of a bundle; without words, nothing."""

    allowed_signers: Path | None = None
    """The file of those whose signature is asked for, in the form that ``man ssh-keygen`` describes."""
    insecure_unsigned: bool = False
    """Whether the user said that no signature is to be asked for, whatever file is there."""
    sha256: str | None = None
    """The sha256 that ``SHA256SUMS`` must have."""

    def check(self, listed: bytes, folders: Sequence[Path]) -> Provenance:
        """Hold a bundle's sums against what is asked for; nothing else of the bundle needs to be read before.

        :param listed: ``SHA256SUMS``, the very bytes that will be believed.
        :param folders: where the bundle lies, and its signature with it.
        :raises UntrustedError: unsigned, altered, expired, by somebody else, or another digest; or the file
            of allowed signers can't be read.
        """
        digest = hashlib.sha256(listed).hexdigest()
        if self.sha256 is not None and digest != self.sha256:
            raise UntrustedError(
                f"{sums.SUMS} is not the one that --sha256 names: its sha256 is {digest}",
                where=folders[0],
                hint="compare the digest with what pack printed, letter for letter; where they differ, "
                "don't use what is on this disk",
            )
        provenance = Provenance(
            sums_sha256=digest,
            unchecked_signature=find_signature(folders) is not None,
            digest_given=self.sha256 is not None,
            insecure_unsigned=self.insecure_unsigned,
        )
        if self.allowed_signers is None or self.insecure_unsigned:
            return provenance
        return self._check_signature(provenance, listed, self.allowed_signers, folders)

    def _check_signature(
        self, provenance: Provenance, listed: bytes, allowed: Path, folders: Sequence[Path]
    ) -> Provenance:
        _check_file(allowed, folders)
        path = find_signature(folders)
        if path is None:
            raise UntrustedError(
                f"the bundle is not signed, and {allowed} asks for a signature",
                where=folders[0],
                hint="have it signed by one whom the file allows: bundler sign BUNDLE --key KEY; "
                "--insecure-unsigned goes on without, and the receipt says so",
            )
        try:
            with path.open("rb") as file:
                signature = file.read(_LARGEST_SIGNATURE)
        except OSError as problem:
            raise UntrustedError(f"the signature can't be read: {problem.strerror}", where=path) from problem
        try:
            checked = ssh_keygen.verify(listed, signature, allowed)
        except UntrustedError as problem:
            raise UntrustedError(
                problem.what, where=path, hint=problem.hint, findings=problem.findings
            ) from problem
        return msgspec.structs.replace(provenance, signature=checked, unchecked_signature=False)


ASK_NOTHING = Trust()
"""For bundles that this very host has made, and for looking at others without believing them."""


def host_trust(
    *, allowed_signers: Path | None, insecure_unsigned: bool = False, sha256: str | None = None
) -> Trust:
    """Return what is asked for on this host.

    :param allowed_signers: the file that the user named; ``None``: the host's own, where there is one.
    """
    allowed = allowed_signers or (ALLOWED_SIGNERS if _may_be_there(ALLOWED_SIGNERS) else None)
    return Trust(allowed_signers=allowed, insecure_unsigned=insecure_unsigned, sha256=sha256)


def find_signature(folders: Sequence[Path]) -> Path | None:
    """Return the first signature that lies in a bundle's folders."""
    return next((path for folder in folders if (path := folder / sums.SIGNATURE).is_file()), None)


def _may_be_there(path: Path) -> bool:
    """Tell whether a file is there; one that can't be seen for want of rights may be."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _check_file(allowed: Path, folders: Sequence[Path]) -> None:
    try:
        with allowed.open("rb"):
            pass
    except OSError as problem:
        raise UntrustedError(
            f"the file of allowed signers can't be read: {problem.strerror}",
            where=allowed,
            hint="name a file with --allowed-signers or "
            f"{ALLOWED_SIGNERS_VARIABLE}, in the form of `man ssh-keygen`, ALLOWED SIGNERS",
        ) from problem
    if any(allowed.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise UntrustedError(
            "the file of allowed signers lies in the bundle, which can't vouch for itself",
            where=allowed,
            hint=f"name one of this host's own, {ALLOWED_SIGNERS} for instance",
        )
