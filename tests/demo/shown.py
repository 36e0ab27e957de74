"""What the demo shows after the plain way: damage, a kill, a signature, a disk more, an update, the sheet."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import DamagedError, UntrustedError
from tests.demo.shell import StepError

if TYPE_CHECKING:
    from tests.demo.run import Demo

SIGNER = "packer@example.org"


def damage(demo: Demo) -> None:
    """Flip one bit, as a disk does; find it, and mend it by parity."""
    volume = sorted(demo.bundle.glob("data-*"))[0]
    place = volume.stat().st_size // 2
    demo.shell.say(f"(one bit of {volume.name} is flipped, at byte {place:,})")
    with volume.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    if not demo.shell.bundler("verify", demo.bundle, allowed=(DamagedError.exit_code,)):
        raise StepError("verify found nothing wrong with a damaged volume")
    demo.shell.bundler("repair", demo.bundle)
    demo.shell.bundler("verify", demo.bundle)


def sign(demo: Demo) -> None:
    """Sign the bundle, and let nothing pass that another key signed."""
    keys = demo.folder / "keys"
    shutil.rmtree(keys, ignore_errors=True)
    keys.mkdir()
    for name in ("packer", "stranger"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(keys / name)]
        subprocess.run(words, check=True)
        public = (keys / f"{name}.pub").read_text().rsplit(maxsplit=1)[0]
        (keys / f"allow-{name}").write_text(f'{SIGNER} namespaces="bundler" {public}\n')
    demo.shell.bundler("sign", demo.bundle, "--key", keys / "packer")
    demo.shell.bundler("verify", demo.bundle, "--allowed-signers", keys / "allow-packer")
    words = ("verify", demo.bundle, "--allowed-signers", keys / "allow-stranger")
    if not demo.shell.bundler(*words, allowed=(UntrustedError.exit_code,)):
        raise StepError("a signature of another key was taken for good")


def kill(demo: Demo) -> None:
    """Kill an unpack where it hurts, amid the installation; the same command goes on."""
    killed = demo.folder / "killed"
    shutil.rmtree(killed, ignore_errors=True)
    words = [demo.shell.command, "unpack", demo.bundle, killed, *demo.installer]
    demo.shell.show(words)
    process = subprocess.Popen(
        [*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        print(line, end="", flush=True)
        if line.startswith("unpack: "):
            break
    process.send_signal(signal.SIGKILL)
    process.stderr.close()
    process.wait()
    demo.shell.say(f"(killed by SIGKILL: exit code {process.returncode})")
    demo.shell.bundler(*words[1:])
    demo.shell.bundler("verify", "--deep", killed)
    shutil.rmtree(killed)


def second_disk(demo: Demo) -> None:
    """Copy the bundle to another disk, and read it back from there."""
    shutil.rmtree(demo.disk, ignore_errors=True)
    demo.disk.mkdir()
    demo.shell.bundler("copy", demo.bundle, demo.disk)


def update(demo: Demo) -> None:
    """Change one shard: carry what is new alone, update, look at it, go back."""
    shard = min((demo.folder / demo.model).glob("*.safetensors"))
    before = shard.read_bytes()
    demo.shell.say(f"(one number in {shard.name} is another)")
    shard.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    delta = demo.bundle.parent / "next"
    shutil.rmtree(delta, ignore_errors=True)
    words = ("-C", demo.workspace, "--env", "default", "--model", demo.manifest, "-o", delta.parent)
    try:
        demo.shell.bundler("pack", *words, "--since", demo.bundle, "--name", delta.name)
    finally:
        shard.write_bytes(before)
    demo.shell.cut_off(demo.shell.command, "unpack", delta, demo.installed, *demo.installer)
    demo.shell.bundler("history", "-C", demo.installed)
    demo.shell.bundler("rollback", "-C", demo.installed)


def sheet(demo: Demo) -> None:
    """Write what is signed before the disk leaves."""
    demo.shell.bundler("report", demo.bundle, "--verify", "-o", demo.sheet)
    demo.shell.say(f"(look at it in a browser: {demo.sheet.absolute().as_uri()})")


def has_gpu(driver: Path = Path("/proc/driver/nvidia")) -> bool:
    """Return whether the kernel has NVIDIA's driver."""
    return driver.exists()
