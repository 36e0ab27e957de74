"""install.sh: what it refuses, all at once, and how it goes on after an interruption."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bundler.common.digest import sha256_of
from bundler.manifest import Runtime
from bundler.runtime.build import install_script
from tests.runtime.conftest import write_small_bundle
from tests.runtime.mounts import needs_mounts, run_mounted
from tests.runtime.roots import entering, find_static_busybox, make_root, shell_parameters

SHELLS = [["sh"]] + ([["busybox", "sh"]] if shutil.which("busybox") else [])


@pytest.fixture(params=SHELLS, ids=lambda words: words[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """Return the command of each POSIX shell that is here."""
    return request.param


def install(
    shell: list[str], bundle: Path, *words: str | Path, path: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a bundle's install.sh."""
    before = f"{path}:" if path else ""
    return subprocess.run(
        [*shell, bundle / "install.sh", *words],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": before + os.environ["PATH"]},
        cwd=cwd,
        timeout=120,
    )


def stand_in(folder: Path, name: str, said: str) -> Path:
    """Write a program that says something, to go before the real one on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nprintf '%s\\n' '{said}'\n")
    (folder / name).chmod(0o755)
    return folder


def spoil(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_script_without_a_destination_shows_its_usage(shell: list[str], small_bundle: Path) -> None:
    done = install(shell, small_bundle)
    assert done.returncode == 2
    assert "usage: sh install.sh" in done.stderr
    assert install(shell, small_bundle, "--help").returncode == 0


def test_the_sizes_are_in_the_script() -> None:
    facts = Runtime(source="x", python="3", bundler="0", unpacked_bytes=10_240, inodes=2)
    text = install_script(facts, 1025).decode()
    assert "\nruntime_kib=14\n" in text
    assert "\npayload_kib=2\n" in text
    assert "\noldest_glibc=2.28\n" in text
    assert install_script(facts, 1025) == text.encode()
    newer = msgspec.structs.replace(facts, glibc="2.34")
    assert b"\noldest_glibc=2.34\n" in install_script(newer, 1025)
    older = msgspec.structs.replace(facts, glibc="2.17")
    assert b"\noldest_glibc=2.28\n" in install_script(older, 1025)


def test_damage_is_found_before_anything_is_written(
    shell: list[str], small_bundle: Path, tmp_path: Path
) -> None:
    spoil(small_bundle / "runtime.tar.gz")
    spoil(small_bundle / "manifest.json")
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode == 5
    assert "runtime.tar.gz is damaged or altered" in done.stderr
    assert "manifest.json is damaged or altered" in done.stderr
    assert not (tmp_path / "dest").exists()


def test_damage_elsewhere_is_left_to_bundler(shell: list[str], small_bundle: Path, tmp_path: Path) -> None:
    with (small_bundle / "SHA256SUMS").open("a") as file:
        file.write("0" * 64 + "  data-00001.tar.zst\n")
    done = install(shell, small_bundle, tmp_path / "dest")
    assert "not ready" not in done.stderr
    assert "unpacking bundler's own runtime" in done.stderr


def test_a_file_that_the_sums_do_not_list_is_refused(
    shell: list[str], small_bundle: Path, tmp_path: Path
) -> None:
    sums = small_bundle / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.open() if "manifest.json" not in line))
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode == 5
    assert "SHA256SUMS doesn't list manifest.json" in done.stderr


def test_missing_files_are_all_named(shell: list[str], small_bundle: Path, tmp_path: Path) -> None:
    (small_bundle / "runtime.tar.gz").unlink()
    (small_bundle / "manifest.json").unlink()
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode == 8
    assert "runtime.tar.gz is missing" in done.stderr
    assert "manifest.json is missing" in done.stderr


def test_all_obstacles_are_named_at_once(small_bundle: Path, tmp_path: Path) -> None:
    # Not in busybox's shell, which takes its own uname before any other.
    fake = stand_in(tmp_path / "fake", "uname", "aarch64")
    stand_in(fake, "getconf", "glibc 2.17")
    (small_bundle / "SHA256SUMS").unlink()
    (tmp_path / "file").write_bytes(b"")
    done = install(["sh"], small_bundle, tmp_path / "file" / "x:y", path=fake)
    assert done.returncode == 8
    for words in ("aarch64", "glibc is 2.17", "holds one of", "is not a folder", "SHA256SUMS is missing"):
        assert words in done.stderr
    assert done.stderr.count("fix: ") == 5


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("glibc 2.27", True),
        ("glibc 2.28", False),
        ("glibc 2.4", True),
        ("glibc 3.0", False),
        ("glibc 2.31.9", False),
    ],
)
def test_glibc_versions_are_compared_as_numbers(
    shell: list[str], small_bundle: Path, tmp_path: Path, said: str, refused: bool
) -> None:
    fake = stand_in(tmp_path / "fake", "getconf", said)
    (small_bundle / "manifest.json").unlink()
    done = install(shell, small_bundle, tmp_path / "dest", path=fake)
    assert (f"{said.replace(' ', ' is ')}; the runtime needs" in done.stderr) == refused


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("ldd (Ubuntu GLIBC 2.23-0ubuntu11.3) 2.23", "glibc is 2.23"),
        ("ldd (GNU libc) 2.17", "glibc is 2.17"),
        ("musl libc (x86_64)", "the C library here is musl"),
    ],
)
def test_without_getconf_ldd_is_asked(
    shell: list[str], small_bundle: Path, tmp_path: Path, said: str, words: str
) -> None:
    fake = stand_in(tmp_path / "fake", "getconf", "")
    stand_in(fake, "ldd", said)
    assert words in install(shell, small_bundle, tmp_path / "dest", path=fake).stderr


@pytest.mark.parametrize("name", ["it's", 'a"b', "a:b", "a$b", "a`b", "a\\b"])
def test_a_path_that_cannot_work_is_refused(
    shell: list[str], small_bundle: Path, tmp_path: Path, name: str
) -> None:
    done = install(shell, small_bundle, tmp_path / name)
    assert done.returncode == 8
    assert "the destination's path holds one of" in done.stderr


def test_a_path_too_long_for_environments_is_refused(
    shell: list[str], small_bundle: Path, tmp_path: Path
) -> None:
    done = install(shell, small_bundle, tmp_path / ("x" * 200))
    assert done.returncode == 8
    assert "bytes long" in done.stderr


def test_a_destination_inside_the_bundle_is_refused(shell: list[str], small_bundle: Path) -> None:
    done = install(shell, small_bundle, small_bundle / "here")
    assert done.returncode == 8
    assert "inside the bundle" in done.stderr


@needs_mounts
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("ro", "nothing can be written to /mnt"),
        ("noexec", "programs can't be run from /mnt"),
        ("size=20m", "20 MiB are free at /mnt; 193 MiB are needed"),
    ],
)
def test_an_unfit_file_system_is_refused_and_left_as_it_was(
    shell: list[str], small_bundle: Path, options: str, words: str
) -> None:
    command = [*shell, small_bundle / "install.sh", "/mnt/g l m"]
    done = run_mounted(
        f"mount -t tmpfs -o {options} tmpfs /mnt",
        ["sh", "-c", '"$@"; echo "exit $?"; ls -A /mnt', "x", *command],
    )
    assert words in done.stderr
    assert done.stdout == "exit 8\n"


@needs_mounts
def test_space_that_an_earlier_run_took_counts(shell: list[str], tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path / "bundle", payload=100_000_000)
    setup = "mount -t tmpfs -o size=300m tmpfs /mnt; mkdir /mnt/glm; head -c 80000000 /dev/zero >/mnt/%s"
    words = [*shell, bundle / "install.sh", "/mnt/glm"]
    assert "are needed" in run_mounted(setup % "other", words).stderr
    assert "are needed" not in run_mounted(setup % "glm/part", words).stderr


@needs_mounts
def test_the_brave_go_on_without_space(shell: list[str], small_bundle: Path) -> None:
    words = [*shell, small_bundle / "install.sh", "/mnt/glm", "--skip-preflight"]
    done = run_mounted("mount -t tmpfs -o size=20m tmpfs /mnt", words)
    assert "warning: 20 MiB are free" in done.stderr
    assert "unpacking bundler's own runtime" in done.stderr


@needs_mounts
@pytest.mark.skipif(find_static_busybox() is None, reason="no static busybox (Debian: busybox-static)")
def test_a_root_with_musl_is_told_so(small_bundle: Path, tmp_path: Path) -> None:
    root = make_root(tmp_path / "root", "busybox", glibc=False)
    (root / "lib").mkdir()
    (root / "lib/ld-musl-x86_64.so.1").write_bytes(b"")
    script = ["chroot", root, "/bin/sh", "/media/disk/install.sh", "/opt/glm"]
    done = run_mounted(entering(root, small_bundle), script)
    assert done.returncode == 8
    assert "the C library here is musl" in done.stderr
    (root / "lib/ld-musl-x86_64.so.1").unlink()
    assert "no glibc was found" in run_mounted(entering(root, small_bundle), script).stderr


@pytest.mark.parametrize("name", shell_parameters())
def test_bundler_runs_in_a_root_without_python(real_bundle: Path, tmp_path: Path, name: str) -> None:
    root = make_root(tmp_path / "root", name)
    setup = entering(root, real_bundle.parent)
    script = f"/media/disk/{real_bundle.name}/install.sh"
    clean = [
        "env",
        "-i",
        "PATH=/bin",
        shutil.which("chroot", path=os.defpath + ":/usr/sbin:/sbin"),
        root,
        "/bin/sh",
    ]
    done = run_mounted(setup, [*clean, script, "--runtime-only", "/opt/g l m"])
    assert done.returncode == 0, done.stderr
    said = run_mounted(setup, [*clean, "-c", "cd / && '/opt/g l m/bin/bundler' --version"])
    assert said.stdout.startswith("bundler, version "), said.stderr
    again = run_mounted(setup, [*clean, script, "--runtime-only", "/opt/g l m"])
    assert "already" in again.stderr


def test_a_host_of_a_rack_gets_bundler_from_the_one_that_shares(real_bundle: Path, tmp_path: Path) -> None:
    """As docs/UPDATING.md says it: four files, and the script that one of them is."""
    here = tmp_path / "fetched"
    here.mkdir()
    text = (Path(__file__).parents[2] / "docs/UPDATING.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("for f in "))
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(real_bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        fetch = line.replace("http://10.0.0.5:8000/", f"http://127.0.0.1:{port}/")
        subprocess.run(["bash", "-ec", fetch], cwd=here, check=True)
        server.terminate()
    digest = sha256_of(real_bundle / "SHA256SUMS")
    words = ["sh", "install.sh", "--runtime-only", str(tmp_path / "d"), "--sha256", digest]
    done = subprocess.run(words, cwd=here, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d/bin/bundler").is_file()


def test_the_work_is_handed_over_to_unpack(real_bundle: Path, tmp_path: Path) -> None:
    done = install(["sh"], real_bundle, "dest", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bundler unpack" in done.stdout


def test_further_disks_and_options_come_before_the_destination(real_bundle: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    assert install(["sh"], real_bundle, "--runtime-only", dest).returncode == 0
    # In place of the runtime's interpreter: it shows what it is given, once it has written the launchers.
    python = dest / "runtime/bin/python"
    python.unlink()
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    done = install(["sh"], real_bundle, dest, "/other disk", "--partial")
    assert done.stdout.splitlines()[-5:] == [
        "unpack",
        str(real_bundle),
        "/other disk",
        "--partial",
        str(dest),
    ]


def test_the_umask_decides_nothing(real_bundle: Path, tmp_path: Path) -> None:
    closed = ["sh", "-c", 'umask 077; exec sh "$@"', "sh"]
    assert install(closed, real_bundle, "--runtime-only", tmp_path / "d").returncode == 0
    seen = [path for path in (tmp_path / "d").rglob("*") if not path.is_symlink()]
    assert (tmp_path / "d/bin/bundler") in seen
    assert [path for path in seen if path.stat().st_mode & 0o044 != 0o044] == []


def test_an_interrupted_run_is_done_again(real_bundle: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    words = (["sh"], real_bundle, "--runtime-only", dest)
    # As after a cut while unpacking, and as after one between the rename and the relocation.
    (dest / ".bundler/runtime.partial/bin").mkdir(parents=True)
    (dest / ".bundler/runtime.partial/bin/python").write_bytes(b"half")
    (dest / "runtime/bin").mkdir(parents=True)
    (dest / "runtime/bin/python").write_bytes(b"half")
    assert install(*words).returncode == 0
    assert not list((dest / ".bundler").glob("runtime.[!r]*"))
    before = (dest / "runtime/bin/python3").stat()
    assert "already" in install(*words).stderr
    (dest / ".bundler/runtime.ready").unlink()
    assert "already" not in install(*words).stderr
    assert (dest / "runtime/bin/python3").stat().st_ino != before.st_ino
    done = subprocess.run([dest / "bin/bundler", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("bundler, version ")
    # On a full disk Python would leave compiled modules cut short: it is to leave none.
    assert not list((dest / "runtime").rglob("*.pyc"))


def test_a_folder_with_other_things_is_refused_and_left_as_it_was(
    shell: list[str], small_bundle: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "a home"
    (dest / "lost+found").mkdir(parents=True)
    (dest / "bin").mkdir()
    assert "holds other things" not in install(shell, small_bundle, dest, "--partial").stderr
    shutil.rmtree(dest / ".bundler")
    (dest / ".profile").write_text("mine")
    done = install(shell, small_bundle, dest)
    assert done.returncode == 8
    assert "the destination holds other things: .profile" in done.stderr
    assert sorted(path.name for path in dest.iterdir()) == [".profile", "bin", "lost+found"]


def test_what_stock_tools_took_out_of_the_bundle_is_adopted(
    shell: list[str], small_bundle: Path, tmp_path: Path
) -> None:
    facts = Runtime(source="x", python="3", bundler="0", unpacked_bytes=10_240, inodes=2)
    names = [".pkg-cache", "pixi.lock", "pixi.toml", "weights", "a b", "it's", "$(x)"]
    script = install_script(facts, 1000, names)
    assert b"\npayload_names='.pkg-cache pixi.lock pixi.toml weights'\n" in script
    (small_bundle / "install.sh").write_bytes(script)
    dest = tmp_path / "dest"
    for name in names[:4]:
        (dest / name).mkdir(parents=True)
    assert "holds other things" not in install(shell, small_bundle, dest).stderr
    shutil.rmtree(dest / ".bundler")
    (dest / "weight").mkdir()
    assert "the destination holds other things: weight" in install(shell, small_bundle, dest).stderr


@pytest.mark.parametrize("name", ["SHA256SUMS", "manifest.json"])
def test_what_is_larger_than_any_bundles_is_not_read(
    shell: list[str], small_bundle: Path, tmp_path: Path, name: str
) -> None:
    os.truncate(small_bundle / name, 2**40)
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode == 8
    assert f"{name} is larger than any bundle's" in done.stderr
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to itself", "link to /dev/zero", "NULs"])
@pytest.mark.parametrize("name", ["SHA256SUMS", "manifest.json", "runtime.tar.gz"])
def test_what_is_no_file_of_a_bundle_is_neither_waited_for_nor_read(
    shell: list[str], small_bundle: Path, tmp_path: Path, name: str, kind: str
) -> None:
    path = small_bundle / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "NULs":
        path.write_bytes(bytes(10_000))
    else:
        path.symlink_to(name if kind == "link to itself" else "/dev/zero")
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode in (5, 8)
    assert "  - " in done.stderr and "fix: " in done.stderr
    assert not (tmp_path / "dest").exists()


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock here (util-linux)")
def test_a_second_run_waits_for_the_first(real_bundle: Path, tmp_path: Path) -> None:
    """And then finds all done: the runtime is unpacked once."""
    command = ["sh", real_bundle / "install.sh", "--runtime-only", tmp_path / "d"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert sum("unpacking bundler's own runtime" in one for one in said) == 1
    assert sum("another install.sh is at work" in one for one in said) >= 1
    assert subprocess.run([tmp_path / "d/bin/bundler", "--version"], check=False).returncode == 0


def test_the_last_line_can_be_pasted(shell: list[str], real_bundle: Path, tmp_path: Path) -> None:
    """Whatever the bundle's folder is called."""
    odd = tmp_path / "b u'n$(touch x)d"
    shutil.copytree(real_bundle, odd, copy_function=os.link)
    done = install(shell, odd, "--runtime-only", tmp_path / "d", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    line = done.stderr.splitlines()[-1].partition("go on with: ")[2]
    again = subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True, cwd=tmp_path)
    # The bundle's manifest is none: that it was found there is what counts.
    assert again.returncode == 3 and f"where: {odd}/manifest.json" in again.stderr, again.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("own", [".bundler", "bin", "runtime", ".pixi"])
def test_links_that_another_planted_are_refused(
    shell: list[str], small_bundle: Path, tmp_path: Path, own: str
) -> None:
    """What they lead to stays as it was; nothing is written there."""
    outside, dest = tmp_path / "outside", tmp_path / "dest"
    outside.mkdir()
    (dest / ".bundler").mkdir(parents=True)
    if own == ".bundler":
        (dest / own).rmdir()
    (dest / own).symlink_to(outside)
    done = install(shell, small_bundle, dest)
    assert done.returncode == 8
    assert f"{own} in the destination is a link or no folder" in done.stderr
    assert not list(outside.iterdir()) and not list(dest.glob(".bundler-try*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folders_of_another_user_are_refused(shell: list[str], small_bundle: Path, tmp_path: Path) -> None:
    """By the number of their owner."""
    own = tmp_path / "dest" / ".bundler"
    own.mkdir(parents=True)
    os.chown(own, 65534, 65534)
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode == 8
    assert ".bundler in the destination belongs to another user (uid 65534)" in done.stderr


def test_an_installation_that_refuses_the_bundle_keeps_its_runtime(real_bundle: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    (dest / ".bundler").mkdir(parents=True)
    (dest / ".bundler/receipt.json").write_text("{}")
    (dest / "runtime").mkdir()
    (dest / "runtime/mine").write_text("as before")
    done = install(["sh"], real_bundle, dest)
    # The bundle's manifest is none, which only bundler itself can tell.
    assert done.returncode not in (0, 8, 10)
    assert "manifest.json" in done.stderr and done.stderr.count("fix:") == 1
    assert [path.name for path in (dest / "runtime").iterdir()] == ["mine"]
    assert [path.name for path in (dest / ".bundler").iterdir()] == ["receipt.json"]


def test_a_runtime_without_pixi_leaves_the_pixi_that_is_here(real_bundle: Path, tmp_path: Path) -> None:
    dest = tmp_path / "d"
    # As a run leaves it that was killed between setting the old runtime aside and placing the new one.
    pixi = dest / ".bundler/runtime.old/bin/pixi"
    pixi.parent.mkdir(parents=True)
    pixi.write_text("#!/bin/sh\necho pixi 0.77.0\n")
    pixi.chmod(0o755)
    assert install(["sh"], real_bundle, "--runtime-only", dest).returncode == 0
    done = subprocess.run([dest / "runtime/bin/pixi"], check=True, capture_output=True, text=True)
    assert done.stdout == "pixi 0.77.0\n"


def test_a_runtime_that_does_not_unpack_is_an_error(
    shell: list[str], small_bundle: Path, tmp_path: Path
) -> None:
    done = install(shell, small_bundle, tmp_path / "dest")
    assert done.returncode in (5, 10)
    assert "the runtime could not be unpacked" in done.stderr or "could not be read" in done.stderr
    assert not (tmp_path / "dest/runtime").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck here")
def test_shellcheck_finds_nothing() -> None:
    folder = Path(__file__).parents[2] / "bundler/runtime/data"
    done = subprocess.run(
        ["shellcheck", "-s", "sh", *sorted(folder.glob("*.sh"))], check=False, capture_output=True, text=True
    )
    assert done.stdout == ""
