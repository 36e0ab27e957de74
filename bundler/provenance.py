"""Whose a bundle is: what was held against its ``SHA256SUMS``, for the receipt and for whoever asks."""

from __future__ import annotations

import msgspec


class CheckedSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature over ``SHA256SUMS`` that was checked and is good."""

    principal: str
    """The signer's name in the file of allowed signers."""
    key: str
    """The key's fingerprint, as ``ssh-keygen -l`` prints it: ``SHA256:…``."""
    allowed_signers: str
    """The file that allows this signer."""
    checked: str
    """When it was checked: UTC, ISO 8601. A signature itself holds no time."""


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of who made a bundle, and how."""

    sums_sha256: str
    """The sha256 of ``SHA256SUMS``: it stands for every byte of the bundle."""
    signature: CheckedSignature | None = None
    """``None``: no signature was checked."""
    unchecked_signature: bool = False
    """Whether a signature lies there that nobody checked."""
    digest_given: bool = False
    """Whether ``sums_sha256`` was compared with a digest that the user gave."""
    insecure_unsigned: bool = False
    """Whether the user said that no signature is to be asked for."""

    @property
    def signature_text(self) -> str:
        """Say what is known of the signature, and nothing more."""
        if self.signature is not None:
            one = self.signature
            return f"signed by {one.principal} ({one.key}), checked against {one.allowed_signers}"
        found = "a signature lies there, not checked" if self.unchecked_signature else "not signed"
        return found + (" (--insecure-unsigned)" if self.insecure_unsigned else "")

    @property
    def text(self) -> str:
        """Say what was compared, for the receipt's ``checked``."""
        given = "; SHA256SUMS against the digest that was given" if self.digest_given else ""
        return self.signature_text + given
