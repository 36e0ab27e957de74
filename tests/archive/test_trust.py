"""Signatures and digests: whose bundle gets past `verify` and `unpack`, and what is said of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from bundler.archive import trust
from bundler.archive.bundle import Bundle
from bundler.archive.writer import write_bundle
from bundler.cli.main import bundler_command
from bundler.errors import BundlerError, DamagedError, InputError, UntrustedError, UsageError
from tests.archive.make import files_of, flip, make_tree, recipe_of
from tests.support.ssh_keys import KeyPair, agent, make_key, needs_ssh_keygen

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_ssh_keygen


@dataclass(frozen=True)
class Scene:
    """A bundle signed by an allowed signer, and one that was made to take its place."""

    root: Path
    key: KeyPair
    other: KeyPair

    @property
    def bundle(self) -> Path:
        """The bundle, signed."""
        return self.root / "bundle"

    @property
    def forged(self) -> Path:
        """A bundle of other content, sound by its own sums; its signature is the other bundle's."""
        return self.root / "forged"

    @property
    def allowed(self) -> Path:
        """The file of allowed signers."""
        return self.root / "allowed_signers"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return both bundles; the host asks for no signature by itself."""
    monkeypatch.delenv(trust.ALLOWED_SIGNERS_VARIABLE, raising=False)
    monkeypatch.setattr(trust, "ALLOWED_SIGNERS", tmp_path / "etc" / "allowed_signers")
    made = Scene(tmp_path, make_key(tmp_path / "key"), make_key(tmp_path / "other"))
    tree = make_tree(tmp_path / "tree", sizes=(1, 70_000, 140_000))
    write_bundle(recipe_of(tree), [made.bundle])
    made.key.sign(made.bundle / "SHA256SUMS")
    (tree / "weights/m0/file-0").write_bytes(b"!")
    write_bundle(recipe_of(tree), [made.forged])
    shutil.copy(made.bundle / "SHA256SUMS.sig", made.forged)
    made.allowed.write_text(made.key.line())
    return made


def call(*words: object) -> Result:
    return CliRunner().invoke(bundler_command, [str(word) for word in words])


def unpack(bundle: Path, to: Path, *words: object) -> Result:
    return call("unpack", bundle, to, "--no-install", "--skip-preflight", *words)


def receipt(installation: Path) -> dict[str, Any]:
    """Return what the receipt says of the last bundle."""
    said: dict[str, Any] = json.loads((installation / ".bundler/receipt.json").read_bytes())["bundles"][-1]
    return said


def digest(bundle: Path) -> str:
    return hashlib.sha256((bundle / "SHA256SUMS").read_bytes()).hexdigest()


def test_a_good_signature_is_in_the_receipt(scene: Scene) -> None:
    """Who signed, with which key, when it was checked, and against what."""
    done = unpack(scene.bundle, scene.root / "to", "--allowed-signers", scene.allowed)
    assert done.exit_code == 0, done.output
    said = receipt(scene.root / "to")
    seen = said["provenance"]["signature"]
    assert seen["principal"] == "packer@example.org"
    assert seen["key"] == scene.key.fingerprint
    assert seen["allowed_signers"] == str(scene.allowed)
    assert seen["checked"] <= said["finished"]
    assert said["provenance"]["sums_sha256"] == digest(scene.bundle)
    assert f"signed by packer@example.org ({scene.key.fingerprint})" in said["checked"]
    shown = call("verify", scene.bundle, "--allowed-signers", scene.allowed)
    assert scene.key.fingerprint in shown.stdout and digest(scene.bundle) in shown.stdout
    assert "signed by packer@example.org" in call("inspect", scene.root / "to").stdout


def expired(scene: Scene) -> None:
    scene.allowed.write_text(scene.key.line(options='valid-before="20200101"'))


def early(scene: Scene) -> None:
    scene.allowed.write_text(scene.key.line(options='valid-after="29990101"'))


def revoked(scene: Scene) -> None:
    scene.allowed.write_text(scene.other.line())


def of_another_use(scene: Scene) -> None:
    scene.allowed.write_text(scene.key.line(options='namespaces="git"'))


def nobody(scene: Scene) -> None:
    scene.allowed.write_text("")


def by_another(scene: Scene) -> None:
    scene.other.sign(scene.bundle / "SHA256SUMS")


def in_another_namespace(scene: Scene) -> None:
    scene.key.sign(scene.bundle / "SHA256SUMS", "file")


def missing(scene: Scene) -> None:
    (scene.bundle / "SHA256SUMS.sig").unlink()


def empty(scene: Scene) -> None:
    (scene.bundle / "SHA256SUMS.sig").write_bytes(b"")


def altered(scene: Scene) -> None:
    flip(scene.bundle / "SHA256SUMS.sig", 150)


def exchanged(scene: Scene) -> None:
    shutil.rmtree(scene.bundle)
    scene.forged.rename(scene.bundle)


HARMS = [
    *(expired, early, revoked, of_another_use, nobody, by_another, in_another_namespace),
    *(missing, empty, altered, exchanged),
]


@pytest.mark.parametrize("harm", HARMS)
def test_nothing_else_gets_past(scene: Scene, harm: Callable[[Scene], None]) -> None:
    """The bundle itself is sound; verify and unpack refuse it, and not a byte is written."""
    harm(scene)
    assert call("verify", scene.bundle).exit_code == 0, "without allowed signers nothing tells"
    words = ("--allowed-signers", scene.allowed)
    for done in (
        call("verify", scene.bundle, *words),
        unpack(scene.bundle, scene.root / "to", *words),
        unpack(scene.bundle, scene.root / "to", "--partial", *words),
        unpack(scene.bundle, scene.root / "to", "--dry-run", *words),
    ):
        assert isinstance(done.exception, UntrustedError), done.output
        assert done.exception.hint
    assert not (scene.root / "to").exists()
    shown = call("inspect", scene.bundle, *words)
    assert shown.exit_code == 0 and "NOT TO BE TRUSTED" in shown.stdout
    (told,) = json.loads(call("inspect", "--json", scene.bundle, *words).stdout)["bundles"]
    assert told["signed"] is False and told["signature_problem"]


def test_the_reason_is_said(scene: Scene) -> None:
    """What ``ssh-keygen`` found is shown, each once."""
    expired(scene)
    done = call("verify", scene.bundle, "--allowed-signers", scene.allowed)
    assert isinstance(done.exception, UntrustedError)
    assert sum("key has expired" in finding for finding in done.exception.findings) == 1


def test_one_of_several_principals_and_keys_suffices(scene: Scene) -> None:
    scene.allowed.write_text(
        scene.other.line() + scene.key.line("first@example.org,second@example.org", 'namespaces="bundler"')
    )
    done = call("verify", scene.bundle, "--allowed-signers", scene.allowed, "--json")
    (told,) = json.loads(done.stdout)["subjects"]
    assert told["provenance"]["signature"]["principal"] == "first@example.org"


def test_a_certificate_of_an_allowed_authority_signs(scene: Scene) -> None:
    """One line allows all keys that an authority certified; the receipt names the key's own principal."""
    words = ["ssh-keygen", "-q", "-s", scene.other.path, "-I", "x", "-n", "one@example.org", scene.key.public]
    subprocess.run(words, check=True)
    certificate = scene.key.path.with_name("key-cert.pub")
    scene.allowed.write_text(scene.other.line("*@example.org", "cert-authority"))
    KeyPair(certificate).sign(scene.bundle / "SHA256SUMS")
    told = json.loads(call("verify", scene.bundle, "--allowed-signers", scene.allowed, "--json").stdout)
    assert told["subjects"][0]["provenance"]["signature"]["principal"] == "one@example.org"


@pytest.mark.parametrize("how", ["option", "variable", "host"])
def test_the_file_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The option before the variable before the host's own; an empty variable opens no way round."""
    strict = scene.root / "strict"
    strict.write_text(scene.other.line())
    words: tuple[object, ...] = ()
    if how == "host":
        trust.ALLOWED_SIGNERS.parent.mkdir()
        trust.ALLOWED_SIGNERS.write_text(scene.other.line())
        monkeypatch.setenv(trust.ALLOWED_SIGNERS_VARIABLE, "")
    elif how == "variable":
        monkeypatch.setenv(trust.ALLOWED_SIGNERS_VARIABLE, str(strict))
    else:
        monkeypatch.setenv(trust.ALLOWED_SIGNERS_VARIABLE, str(scene.allowed))
        words = ("--allowed-signers", strict)
    assert isinstance(unpack(scene.bundle, scene.root / "to", *words).exception, UntrustedError)
    assert isinstance(call("verify", scene.bundle, *words).exception, UntrustedError)
    assert not (scene.root / "to").exists()


@pytest.mark.parametrize("kind", ["nothing", "folder", "dangling"])
def test_a_file_that_cannot_be_read_refuses(scene: Scene, kind: str) -> None:
    """It is never taken for one that isn't there: neither a named one nor the host's own."""
    trust.ALLOWED_SIGNERS.parent.mkdir()
    if kind == "folder":
        trust.ALLOWED_SIGNERS.mkdir()
    elif kind == "dangling":
        trust.ALLOWED_SIGNERS.symlink_to("nowhere")
    words = ("--allowed-signers", scene.root / "nowhere") if kind == "nothing" else ()
    done = unpack(scene.bundle, scene.root / "to", *words)
    assert isinstance(done.exception, UntrustedError), done.output
    assert "allowed signers" in done.exception.what
    assert not (scene.root / "to").exists()


def test_the_disk_does_not_vouch_for_itself(scene: Scene) -> None:
    """A file of allowed signers in the bundle is none, also through a link."""
    inside = scene.bundle / "allowed_signers"
    shutil.copy(scene.allowed, inside)
    link = scene.root / "link"
    link.symlink_to(inside)
    for path in (inside, link):
        done = call("verify", scene.bundle, "--allowed-signers", path)
        assert isinstance(done.exception, UntrustedError)
        assert "vouch" in done.exception.what


@pytest.mark.parametrize("harm", [missing, exchanged])
def test_the_only_way_round_is_in_the_receipt(scene: Scene, harm: Callable[[Scene], None]) -> None:
    harm(scene)
    words = ("--allowed-signers", scene.allowed, "--insecure-unsigned")
    assert unpack(scene.bundle, scene.root / "to", *words).exit_code == 0
    said = receipt(scene.root / "to")
    assert "--insecure-unsigned" in said["checked"]
    assert said["provenance"]["insecure_unsigned"] is True
    assert said["provenance"]["signature"] is None
    assert call("verify", scene.bundle, *words).exit_code == 0


def test_what_nobody_checked_is_not_called_signed(scene: Scene) -> None:
    """Neither a real signature without allowed signers, nor an empty file, nor none."""
    for harm, words in (
        (lambda _: None, "a signature lies there, not checked"),
        (empty, "a signature lies there, not checked"),
        (missing, "not signed"),
    ):
        harm(scene)
        shown = call("inspect", scene.bundle).stdout
        assert f"signature: {words}\n" in shown
        (told,) = json.loads(call("inspect", "--json", scene.bundle).stdout)["bundles"]
        assert told["signed"] is (False if harm is missing else None)
        assert told["provenance"]["signature"] is None
    words = ("--json", "--allowed-signers", scene.allowed)
    (told,) = json.loads(call("inspect", scene.forged, *words).stdout)["bundles"]
    assert told["signed"] is False


def test_inspect_says_by_whom_and_against_what(scene: Scene) -> None:
    words = ("--allowed-signers", scene.allowed)
    (told,) = json.loads(call("inspect", "--json", scene.bundle, *words).stdout)["bundles"]
    assert told["signed"] is True
    assert told["provenance"]["signature"]["principal"] == "packer@example.org"
    expected = f"signed by packer@example.org ({scene.key.fingerprint}), checked against {scene.allowed}"
    assert expected in call("inspect", scene.bundle, *words).stdout


def test_the_manifest_is_not_believed_before_the_signature(scene: Scene) -> None:
    """One that can't even be decoded is refused for its signature; with a good one, for what it is."""
    (scene.forged / "manifest.json").write_bytes(b"{")
    sums = scene.forged / "SHA256SUMS"
    lines = [line for line in sums.read_text().splitlines() if "manifest.json" not in line]
    sums.write_text("\n".join([*lines, f"{hashlib.sha256(b'{').hexdigest()}  manifest.json", ""]))
    words = ("--allowed-signers", scene.allowed)
    assert isinstance(unpack(scene.forged, scene.root / "to", *words).exception, UntrustedError)
    scene.key.sign(sums)
    done = unpack(scene.forged, scene.root / "to", *words)
    assert isinstance(done.exception, BundlerError) and not isinstance(done.exception, UntrustedError)
    assert not (scene.root / "to").exists()


def test_the_manifest_must_be_the_one_that_was_signed(scene: Scene) -> None:
    shutil.copy(scene.forged / "manifest.json", scene.bundle)
    done = unpack(scene.bundle, scene.root / "to", "--allowed-signers", scene.allowed)
    assert isinstance(done.exception, DamagedError)
    assert not (scene.root / "to").exists()


def test_the_folder_is_not_named_by_what_nobody_vouches_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a destination its name comes from the manifest, after that was checked."""
    (scene.forged / "manifest.json").write_bytes(b"{")
    monkeypatch.chdir(scene.root)
    monkeypatch.delenv("BUNDLER_HOME", raising=False)
    done = call("unpack", scene.forged, "--no-install", "--allowed-signers", scene.allowed)
    assert isinstance(done.exception, UntrustedError)
    shutil.copytree(scene.bundle, scene.root / "bundles/little")
    good = call("unpack", "bundles/little", "--no-install", "--skip-preflight")
    assert good.exit_code == 0 and (scene.root / "little-installed").is_dir()


def test_all_of_a_bundles_disks_have_the_sums_that_were_signed(scene: Scene) -> None:
    """The second disk's sums are its own to write: they must be the first's."""
    second = scene.root / "second"
    shutil.copytree(scene.bundle, second)
    (second / "SHA256SUMS").write_text((second / "SHA256SUMS").read_text() + "0" * 64 + "  extra\n")
    words = ("--allowed-signers", scene.allowed, "--no-install", "--skip-preflight")
    done = call("unpack", scene.bundle, second, scene.root / "to", *words)
    assert isinstance(done.exception, InputError) and "different bundles" in done.exception.what
    shutil.copy(scene.bundle / "SHA256SUMS", second)
    (scene.bundle / "SHA256SUMS.sig").unlink()
    assert call("unpack", scene.bundle, second, scene.root / "to", *words).exit_code == 0


def test_a_digest_on_paper(scene: Scene) -> None:
    """`verify` prints it, ``--sha256`` enforces it, and the receipt says so."""
    assert digest(scene.bundle) in call("verify", scene.bundle).stdout
    assert digest(scene.bundle) in call("inspect", scene.bundle).stdout
    paper = ("--sha256", digest(scene.bundle))
    for done in (call("verify", scene.forged, *paper), unpack(scene.forged, scene.root / "to", *paper)):
        assert isinstance(done.exception, UntrustedError)
        assert digest(scene.forged) in done.exception.what
    assert not (scene.root / "to").exists()
    assert call("verify", scene.bundle, *paper).exit_code == 0
    assert unpack(scene.bundle, scene.root / "to", *paper).exit_code == 0
    said = receipt(scene.root / "to")
    assert said["provenance"]["digest_given"] and "digest that was given" in said["checked"]
    assert call("verify", scene.bundle, "--sha256", "abc").exit_code == 2
    nothing = call("verify", scene.root / "to", *paper)
    assert isinstance(nothing.exception, UsageError), "an installation isn't compared with it"


def test_a_digest_does_not_stand_for_a_signature(scene: Scene) -> None:
    missing(scene)
    words = ("--sha256", digest(scene.bundle), "--allowed-signers", scene.allowed)
    assert isinstance(call("verify", scene.bundle, *words).exception, UntrustedError)


def test_sign_later_on_another_machine(scene: Scene) -> None:
    """Each disk gets the signature; what isn't the bundle that was meant isn't signed."""
    missing(scene)
    second = Path(shutil.copytree(scene.bundle, scene.root / "second"))
    before = files_of(scene.bundle)
    refused = call("sign", scene.bundle, "--key", scene.key.path, "--sha256", digest(scene.forged))
    assert isinstance(refused.exception, UntrustedError)
    assert files_of(scene.bundle) == before
    done = call("sign", scene.bundle, second, "--key", scene.key.path, "--sha256", digest(scene.bundle))
    assert done.exit_code == 0, done.output
    assert scene.key.fingerprint in done.stdout and digest(scene.bundle) in done.stdout
    for bundle in (scene.bundle, second):
        assert call("verify", bundle, "--allowed-signers", scene.allowed).exit_code == 0
        assert {**files_of(bundle), "SHA256SUMS.sig": b""} == {**before, "SHA256SUMS.sig": b""}


def test_an_agents_key_signs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the public key is on the disk."""
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        pytest.skip("no ssh-agent here")
    missing(scene)
    socket = scene.root / "s"
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    with agent(socket):
        subprocess.run(["ssh-add", "-q", scene.key.path], check=True)
        scene.key.path.unlink()
        done = call("sign", scene.bundle, "--key", scene.key.public)
        assert done.exit_code == 0, done.output
    assert call("verify", scene.bundle, "--allowed-signers", scene.allowed).exit_code == 0
    without = call("sign", scene.bundle, "--key", scene.key.public)
    assert isinstance(without.exception, InputError) and without.exception.findings


def test_a_key_that_cannot_sign(scene: Scene) -> None:
    """It is said, and the signature that lies there stays."""
    before = files_of(scene.bundle)
    for key in (scene.root / "nowhere", scene.allowed, scene.root):
        done = call("sign", scene.bundle, "--key", key)
        assert isinstance(done.exception, InputError)
        assert done.exception.hint
    assert files_of(scene.bundle) == before


def stand_in(folder: Path, script: str) -> Path:
    """Write a program that is taken for ``ssh-keygen``."""
    folder.mkdir()
    (folder / "ssh-keygen").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ssh-keygen").chmod(0o755)
    return folder


OLD = "echo 'unknown option -- Y' >&2; exit 1"
ALMOST = "echo 'Unsupported operation for -Y: \"find-principals\"' >&2; echo usage: >&2; exit 1"


@pytest.mark.parametrize(("script", "words"), [("", "no ssh-keygen"), (OLD, "too old"), (ALMOST, "too old")])
def test_without_a_program_to_check_with(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    folder = stand_in(scene.root / "bin", script)
    if not script:
        (folder / "ssh-keygen").unlink()
    monkeypatch.setenv("PATH", str(folder))
    done = unpack(scene.bundle, scene.root / "to", "--allowed-signers", scene.allowed)
    assert isinstance(done.exception, UntrustedError)
    assert words in done.exception.what and "8.2" in str(done.exception.hint)
    assert not (scene.root / "to").exists()
    signing = call("sign", scene.bundle, "--key", scene.key.path)
    assert isinstance(signing.exception, InputError)


@pytest.mark.parametrize("script", ["echo packer@example.org", "echo someone with key SHA256:x; exit 1"])
def test_half_a_yes_is_none(scene: Scene, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Success counts only with the key's fingerprint, and the fingerprint only with success."""
    folder = stand_in(scene.root / "bin", script)
    monkeypatch.setenv("PATH", str(folder))
    done = call("verify", scene.bundle, "--allowed-signers", scene.allowed)
    assert isinstance(done.exception, UntrustedError)


def test_the_program_is_none_of_the_disks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder on PATH would be the disk that is looked at."""
    stand_in(
        scene.bundle / "bin", "echo x; echo 'Good \"bundler\" signature for x with ED25519 key SHA256:x'"
    )
    monkeypatch.chdir(scene.bundle)
    monkeypatch.setenv("PATH", f".:bin::{os.environ['PATH']}")
    done = call("verify", scene.forged, "--allowed-signers", scene.allowed)
    assert isinstance(done.exception, UntrustedError)


def test_the_programs_environment_is_clean(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which("ssh-keygen")
    seen = scene.root / "seen"
    folder = stand_in(scene.root / "bin", f"env >>'{seen}'; exec {real} \"$@\"")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    assert call("verify", scene.bundle, "--allowed-signers", scene.allowed).exit_code == 0
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert {"PATH", "LC_ALL"} <= names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}


def test_a_signature_of_other_sums_does_not_stay(scene: Scene) -> None:
    """Packing other content over an unfinished bundle, or in place of one, drops what was signed before."""
    tree = make_tree(scene.root / "new", sizes=(5, 6))
    (scene.bundle / "SHA256SUMS").unlink()  # As a replacement leaves it that was cut off right then.
    write_bundle(recipe_of(tree), [scene.bundle])
    assert not (scene.bundle / "SHA256SUMS.sig").exists()
    write_bundle(recipe_of(tree), [scene.forged], replace=True)
    assert not (scene.forged / "SHA256SUMS.sig").exists()


def test_packing_the_same_again_keeps_the_signature(scene: Scene) -> None:
    tree = scene.root / "tree"
    scene.key.sign(scene.forged / "SHA256SUMS")
    before = files_of(scene.forged)
    write_bundle(recipe_of(tree), [scene.forged])
    assert files_of(scene.forged) == before


def test_stock_tools_check_it_by_hand(scene: Scene) -> None:
    """As README says: the signature over the sums, then the sums."""
    script = (
        f"ssh-keygen -Y verify -f {scene.allowed} -I packer@example.org -n bundler "
        "-s SHA256SUMS.sig <SHA256SUMS && sha256sum --quiet -c SHA256SUMS"
    )
    for bundle, code in ((scene.bundle, 0), (scene.forged, 255)):
        done = subprocess.run(["sh", "-c", script], cwd=bundle, check=False, capture_output=True)
        assert done.returncode == code, done.stderr
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=scene.forged).returncode == 0


def test_a_reader_that_asks_for_nothing_says_so(scene: Scene) -> None:
    with Bundle.open([scene.bundle]) as bundle:
        assert bundle.provenance.signature is None
        assert bundle.provenance.unchecked_signature
