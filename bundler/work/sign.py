"""Signing a bundle: one signature, over ``SHA256SUMS``, stands for every byte of it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bundler.archive import ssh_keygen, sums
from bundler.archive.bundle import Bundle, is_bundle
from bundler.archive.trust import ASK_NOTHING
from bundler.common.durable import write_atomically
from bundler.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bundler.archive.trust import Trust

Seen = tuple[int, int]
"""A file's inode, and when it was changed."""


def sign_packed(
    folders: Sequence[Path], key: Path, before: Sequence[Seen], say: Callable[[str], None]
) -> str:
    """Sign a bundle that was packed just now, on those of the folders that got a part of it.

    One that an earlier run finished may have been anywhere since: it isn't signed unseen.

    :param before: what :func:`sums_seen` said before the pack.
    :returns: the key's fingerprint.
    :raises InputError: it can't be signed, or an earlier run finished it; it is whole all the same.
    """
    filled = [folder for folder in folders if is_bundle(folder)]
    words = ["bundler", "sign", *map(str, filled), "--key", str(key), "--sha256"]
    if sums_seen(folders) == before:
        fingerprint = _signed_before(filled, key)
        if fingerprint is not None:
            return fingerprint
        raise InputError(
            "an earlier run finished this bundle, and pack signs only what it has just written",
            where=filled[0],
            hint=f"sign what lies there by the digest which that run printed: {shlex.join(words)} DIGEST",
        )
    try:
        return sign_bundle(filled, key, ASK_NOTHING, say)[1]
    except InputError as problem:
        raise InputError(
            f"the bundle is whole, and not signed: {problem.what}",
            where=problem.where,
            findings=problem.findings,
            hint=f"{problem.hint}; then: {shlex.join([*words, sums.digest_in(filled)])}",
        ) from problem


def sums_seen(folders: Sequence[Path]) -> list[Seen]:
    """Return which sums file lies in each folder, so that one that was written anew is told from it."""
    paths = (folder / sums.SUMS for folder in folders)
    return [(state.st_ino, state.st_mtime_ns) for path in paths if path.is_file() and (state := path.stat())]


def _signed_before(folders: Sequence[Path], key: Path) -> str | None:
    """Return the key's fingerprint if each folder holds its signature."""
    found = None
    for folder in folders:
        path = folder / sums.SIGNATURE
        if not path.is_file():
            return None
        found = ssh_keygen.signed_by((folder / sums.SUMS).read_bytes(), path.read_bytes(), key)
        if found is None:
            return None
    return found


def sign_bundle(
    folders: Sequence[Path], key: Path, trust: Trust, say: Callable[[str], None]
) -> tuple[str, str]:
    """Put ``SHA256SUMS.sig`` into each of a bundle's folders, in place of one that is there.

    :param key: a private key of OpenSSH, or the public key of one that an agent holds.
    :param trust: what is asked of the bundle before it is signed.
    :param say: shown what the key asks for, a touch for instance.
    :returns: the sha256 of ``SHA256SUMS``, and the key's fingerprint.
    :raises BundlerError: no sound bundle, or a key that can't be used.
    """
    ssh_keygen.check_key(key)
    with Bundle.open(folders, trust) as bundle:
        signature, fingerprint = ssh_keygen.sign(bundle.sums_data, key, say)
        for folder in folders:
            try:
                write_atomically(folder / sums.SIGNATURE, signature)
            except OSError as problem:
                raise InputError(
                    f"the signature can't be written: {problem.strerror}",
                    where=folder,
                    hint="mount the disk read-write, or sign a copy",
                ) from problem
        return bundle.provenance.sums_sha256, fingerprint
