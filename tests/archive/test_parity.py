"""Parity mends what it promises to, refuses more, and never makes anything worse."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter, namedtuple
from pathlib import Path

import msgspec
import pytest
import zfec
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler import manifest as manifests
from bundler.archive import parity, parity_stripes
from bundler.archive.bundle import Bundle
from bundler.archive.parity_found import find_protected
from bundler.archive.parity_repair import repair_bundle
from bundler.archive.verify import verify_bundle
from bundler.archive.writer import write_bundle
from bundler.errors import DamagedError, DestinationError, InputError, MissingVolumeError, PreflightError
from tests.archive.make import GROUP, STRIPE, files_of, flip, make_tree, recipe_of, unpack
from tests.archive.test_kill import SIZES, command
from tests.support.disk import WatchedDisk

PARITY = 2
SMALL = ("manifest.json", "SHA256SUMS")


@pytest.fixture(autouse=True)
def small_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "STRIPE", STRIPE)
    monkeypatch.setattr(parity, "MOST_DATA", GROUP)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("parity") / "tree")


@pytest.fixture(scope="module")
def sound(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "STRIPE", STRIPE)
        patch.setattr(parity, "MOST_DATA", GROUP)
        folder = tmp_path_factory.mktemp("parity") / "bundle"
        write_bundle(recipe_of(tree, parity=PARITY), [folder])
    return folder


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "bundle")


Harm = namedtuple("Harm", "name kind at")


def harms() -> st.SearchStrategy[list[Harm]]:
    """Return lists of harms; a file's place is drawn as a number, for names are known later."""
    kinds = st.sampled_from(["flip", "flip", "flip", "cut", "missing", "longer", "noise"])
    return st.lists(st.builds(Harm, st.integers(0, 99), kinds, st.floats(0, 1, exclude_max=True)), max_size=9)


class Model:
    """What a bundle's damage amounts to, counted apart from the code under test."""

    def __init__(self, folder: Path) -> None:
        found = find_protected([folder])
        self.folder = folder
        self.header = len(found.header)
        self.groups = found.groups
        self.names = [file.name for group in found.groups for file in group.files]
        self.names += [name for group in found.groups for name in group.names]
        self.bad: set[tuple[int, int, str]] = set()
        self.headers_lost: set[str] = set()

    def pieces(self, harm: Harm) -> set[tuple[int, int, str]]:
        """Return the stripes that a harm touches: group, stripe, name."""
        group = next(g for g in self.groups if harm.name in (*g.names, *(f.name for f in g.files)))
        size = (self.folder / harm.name).stat().st_size
        at = int(harm.at * size)
        count = -(-group.longest // STRIPE)
        if harm.name in group.names:
            record = STRIPE + group.row
            first = (at - self.header) // record if at >= self.header else 0
            only = at >= self.header
        else:
            count, first, only = -(-size // STRIPE), at // STRIPE, True
        touched = {
            "flip": range(first, first + 1) if only else range(0),
            "cut": range(first, count),
            "noise": range(first, count),
            "missing": range(count),
            "longer": range(0),
        }[harm.kind]
        return {(group.number, number, harm.name) for number in touched}

    def hurts_header(self, harm: Harm) -> bool:
        size = (self.folder / harm.name).stat().st_size
        return harm.name.startswith("parity-") and (
            harm.kind == "missing" or (harm.kind != "longer" and int(harm.at * size) < self.header)
        )

    def worst(self, more: set[tuple[int, int, str]] = frozenset()) -> int:
        """Return how many pieces the worst stripe has lost."""
        counts = Counter((group, number) for group, number, _ in self.bad | more)
        return max(counts.values(), default=0)

    def apply(self, folder: Path, harm: Harm) -> None:
        path = folder / harm.name
        self.bad |= self.pieces(harm)
        if self.hurts_header(harm):
            self.headers_lost.add(harm.name)
        if not path.exists():
            return
        data = path.read_bytes()
        at = min(int(harm.at * (self.folder / harm.name).stat().st_size), max(len(data) - 1, 0))
        if harm.kind == "missing":
            path.unlink()
        elif harm.kind == "flip" and data:
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        elif harm.kind == "cut":
            path.write_bytes(data[:at])
        elif harm.kind == "longer":
            path.write_bytes(data + b"more")
        elif harm.kind == "noise":
            path.write_bytes(data[:at] + random.Random(at).randbytes(len(data) - at))


def damage(model: Model, folder: Path, drawn: list[Harm], *, most: int) -> None:
    """Do harm, as far as no stripe loses more than so many pieces, and one harm a file: two may undo."""
    seen = set()
    for one in drawn:
        harm = one._replace(name=model.names[one.name % len(model.names)])
        if harm.name not in seen and model.worst(model.pieces(harm)) <= most:
            seen.add(harm.name)
            model.apply(folder, harm)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    drawn=harms(), small=st.sampled_from([None, *SMALL]), gone=st.booleans(), threads=st.sampled_from([1, 3])
)
def test_damage_of_up_to_n_in_each_stripe_is_mended(
    sound: Path,
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[Harm],
    small: str | None,
    gone: bool,
    threads: int,
) -> None:
    """To another folder first, where the damaged bundle stays as it is, and then in place."""
    base = tmp_path_factory.mktemp("mend")
    folder = shutil.copytree(sound, base / "bundle")
    model = Model(sound)
    damage(model, folder, drawn, most=PARITY)
    carried = len(model.headers_lost) < len(list(sound.glob("parity-*")))
    if small and carried:
        flip(folder / small, len(drawn) * 997)
        if gone:
            (folder / small).unlink()
    hurt = files_of(folder)
    repair_bundle([folder], base / "other", threads=threads)
    assert files_of(base / "other") == files_of(sound)
    assert files_of(folder) == hurt
    repair_bundle([folder], threads=threads)
    assert files_of(folder) == files_of(sound)
    assert repair_bundle([folder]).written == 0
    shutil.rmtree(base)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=harms())
def test_more_is_refused_and_nothing_is_written(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, drawn: list[Harm]
) -> None:
    """Whatever the damage: the bundle is whole afterwards, or as damaged as before."""
    base = tmp_path_factory.mktemp("mend")
    folder = shutil.copytree(sound, base / "bundle")
    model = Model(sound)
    damage(model, folder, drawn, most=99)
    hurt = files_of(folder)
    if model.worst() <= PARITY:
        repair_bundle([folder])
        assert files_of(folder) == files_of(sound)
    else:
        with pytest.raises(DamagedError, match=r"beyond|can't be mended"):
            repair_bundle([folder], base / "other")
        # Where a stripe's digests are all lost, only its group's mending tells: others may be done before.
        there = files_of(base / "other") if (base / "other").exists() else {}
        assert all(files_of(sound)[name] == data for name, data in there.items())
        with pytest.raises(DamagedError, match=r"beyond|can't be mended"):
            repair_bundle([folder])
        whole, now = files_of(sound), files_of(folder)
        assert all(data in (hurt.get(name), whole.get(name)) for name, data in now.items())
        assert now.keys() >= hurt.keys()
    shutil.rmtree(base)


def test_the_bytes_are_as_the_format_says(sound: Path) -> None:
    """Read by ``docs/FORMAT.md`` alone: groups, header, records, digests, and the parity itself."""
    manifest = manifests.read(sound / "manifest.json")
    stated = manifest.parity
    assert stated is not None
    names = [one.name for one in manifest.volumes] + [one.name for one in stated.files]
    assert names[-2:] == ["README.txt", "install.sh"]
    lines = (sound / "SHA256SUMS").read_text().splitlines(keepends=True)
    listed = "".join(line for line in lines if "  parity-" not in line).encode()
    groups = -(-len(names) // stated.data)
    assert groups > 1
    for group in range(groups):
        contents = [(sound / name).read_bytes() for name in names[group::groups]]
        longest = max(map(len, contents))
        volumes = []
        for index in range(PARITY):
            number = group * PARITY + index + 1
            data = (sound / f"parity-{number:05}.zfec").read_bytes()
            body = (sound / "manifest.json").read_bytes()
            body = struct.pack("<8sQQQ", b"bndlPAR1", number, len(body), len(listed)) + body + listed
            header = body + blake3(body).digest()
            assert data.startswith(header)
            volumes.append(data[len(header) :])
        count, at = len(contents), 0
        for start in range(0, longest, STRIPE):
            width = min(STRIPE, longest - start)
            pieces = [content[start : start + STRIPE] for content in contents]
            padded = tuple(piece.ljust(width, b"\0") for piece in pieces)
            made = zfec.Encoder(count, count + PARITY).encode(padded, tuple(range(count, count + PARITY)))
            row = b"".join(blake3(piece).digest(16) for piece in (*pieces, *made))
            row += blake3(row).digest(16)
            for volume, piece in zip(volumes, made, strict=True):
                assert volume[at : at + len(row) + width] == row + piece
            at += len(row) + width
        assert {len(volume) for volume in volumes} == {at}


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_same_bytes_whatever_the_threads(tree: Path, sound: Path, tmp_path: Path, threads: int) -> None:
    write_bundle(recipe_of(tree, parity=PARITY), [tmp_path / "again"], threads=threads)
    assert files_of(tmp_path / "again") == files_of(sound)


def test_a_bundle_without_parity_is_what_it_was(tree: Path, sound: Path, tmp_path: Path) -> None:
    """The volumes are the same, and nothing speaks of parity."""
    write_bundle(recipe_of(tree), [tmp_path / "plain"])
    plain = files_of(tmp_path / "plain")
    assert not any("parity" in name for name in plain)
    assert b'"parity":null' in plain["manifest.json"]
    assert all(files_of(sound)[name] == data for name, data in plain.items() if name.startswith("data-"))
    with pytest.raises(InputError, match="no parity to be mended by"):
        repair_bundle([tmp_path / "plain"])
    with pytest.raises(InputError, match="not a bundle"):
        repair_bundle([tree])


def test_stock_tools_and_unpack_ignore_it(tree: Path, bundle: Path, tmp_path: Path) -> None:
    """Sums hold for all files; unpack needs none of the parity."""
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle, check=True)
    for path in bundle.glob("parity-*"):
        path.unlink()
    unpack(bundle, tmp_path / "out")
    with (
        pytest.raises(DamagedError, match=r"parity-00001\.zfec can't be read") as found,
        Bundle.open([bundle]) as one,
    ):
        verify_bundle(one)
    assert f"parity-00004.zfec: bundler repair {bundle}" in str(found.value)


def test_messages_about_damage_name_the_repair(bundle: Path, tmp_path: Path) -> None:
    """Verify says whether it would do; unpack says that there is one."""
    flip(bundle / "data-00003.tar.zst", 9000)
    fix = f"its parity mends data-00003.tar.zst: bundler repair {bundle}"
    with pytest.raises(DamagedError) as found, Bundle.open([bundle]) as opened:
        verify_bundle(opened)
    assert fix in str(found.value)
    with pytest.raises(DamagedError) as found:
        unpack(bundle, tmp_path / "out")
    assert f"or mend it by its parity: bundler repair {bundle}" in str(found.value)
    (bundle / "data-00003.tar.zst").unlink()
    with pytest.raises(MissingVolumeError) as missing, Bundle.open([bundle]) as opened:
        verify_bundle(opened)
    assert fix in str(missing.value)
    for name in ("data-00001.tar.zst", "data-00005.tar.zst"):
        (bundle / name).unlink()
    with pytest.raises(MissingVolumeError) as missing, Bundle.open([bundle]) as opened:
        verify_bundle(opened)
    text = str(missing.value)
    assert "its parity can't mend that" in text
    assert "data-00001.tar.zst, data-00003.tar.zst, data-00005.tar.zst: 3 damaged, parity mends 2" in text
    assert "bundler repair" not in text


def run_cli(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bundler", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_the_command(bundle: Path, sound: Path, tmp_path: Path) -> None:
    """Says what was mended; more damage than can be mended has the code of damage."""
    assert "nothing was damaged; nothing was written" in run_cli("repair", bundle).stdout
    (bundle / "data-00002.tar.zst").unlink()
    (bundle / "manifest.json").unlink()
    refused = run_cli("verify", bundle)
    assert f"bundler repair {bundle}" in refused.stderr
    done = run_cli("repair", bundle, "--json")
    assert done.returncode == 0
    assert msgspec.json.decode(done.stdout)["damaged"] == ["data-00002.tar.zst", "manifest.json"]
    assert files_of(bundle) == files_of(sound)
    assert "parity: 4, " in run_cli("inspect", bundle).stdout
    for number in (2, 4, 6):
        flip(bundle / f"data-0000{number}.tar.zst", 5000)
    refused = run_cli("repair", bundle, "--to", tmp_path / "other")
    assert refused.returncode == 5
    assert (
        "bytes 4096 to 8192 of data-00002.tar.zst, data-00004.tar.zst, data-00006.tar.zst" in refused.stderr
    )
    assert "again from where the bundle was packed" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("lost", [["manifest.json"], ["SHA256SUMS"], ["manifest.json", "SHA256SUMS"]])
def test_manifest_and_sums_come_back_from_any_parity_volume(
    bundle: Path, sound: Path, lost: list[str]
) -> None:
    for name in lost:
        (bundle / name).unlink()
    for number in (1, 2, 3):
        flip(bundle / f"parity-0000{number}.zfec", 100)
    repaired = repair_bundle([bundle])
    assert set(lost) <= set(repaired.damaged)
    assert files_of(bundle) == files_of(sound)


def test_what_nothing_carries_any_more_is_named(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    for path in bundle.glob("parity-*"):
        flip(path, 100)
    before = files_of(bundle)
    with pytest.raises(
        DamagedError, match=r"manifest\.json and SHA256SUMS are damaged or missing, and no parity"
    ):
        repair_bundle([bundle])
    assert files_of(bundle) == before


def test_headers_come_back_from_manifest_and_sums(bundle: Path, sound: Path) -> None:
    """And the data are mended by records whose headers are lost."""
    for path in bundle.glob("parity-*"):
        flip(path, 100)
    flip(bundle / "data-00001.tar.zst", 20_000)
    repair_bundle([bundle])
    assert files_of(bundle) == files_of(sound)


def test_a_wrong_line_of_the_sums_is_put_right(bundle: Path, sound: Path) -> None:
    """Of a volume, of parity, of another file: each time the file is sound and its line is not."""
    text = (bundle / "SHA256SUMS").read_text()
    for name in ("data-00002.tar.zst", "parity-00001.zfec", "README.txt"):
        at = text.index(name) - 20
        (bundle / "SHA256SUMS").write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
        assert repair_bundle([bundle]).damaged == ("SHA256SUMS",)
        assert files_of(bundle) == files_of(sound)


def test_another_bundles_parity_is_no_help(bundle: Path, sound: Path, tmp_path: Path) -> None:
    """It is told by its header, and made anew."""
    other = make_tree(tmp_path / "tree", (0, 1, 511, 512, 513, 70_001, 300_000, 140_000, 9))
    write_bundle(recipe_of(other, parity=PARITY), [tmp_path / "other"])
    shutil.copy(tmp_path / "other/parity-00001.zfec", bundle)
    flip(bundle / "data-00003.tar.zst", 9000)
    assert repair_bundle([bundle]).damaged == ("data-00003.tar.zst", "parity-00001.zfec")
    assert files_of(bundle) == files_of(sound)
    shutil.copy(tmp_path / "other/parity-00001.zfec", bundle)
    (bundle / "manifest.json").unlink()
    with pytest.raises(InputError, match="different bundles"):
        repair_bundle([bundle])


def test_several_disks(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data on one, parity on the next; what lies on each comes back from the other disk."""
    room = shutil.disk_usage
    usage = namedtuple("usage", "total used free")

    def narrow(path: Path) -> object:
        used = sum(file.stat().st_size for file in Path(path).glob("*"))
        return usage(2e7, used, 1_500_000 - used) if "disk1" in str(path) else room(path)

    monkeypatch.setattr(shutil, "disk_usage", narrow)
    disks = [tmp_path / "disk1", tmp_path / "disk2"]
    write_bundle(recipe_of(tree, parity=PARITY), disks)
    assert {path.name for path in disks[1].glob("*-0*")} == {path.name for path in disks[1].glob("parity-*")}
    assert "data-*" in (disks[0] / "README.txt").read_text()
    assert "DISK2/data" not in (disks[0] / "README.txt").read_text()
    before = [files_of(disk) for disk in disks]
    with Bundle.open(disks) as opened:
        verify_bundle(opened)
    for path in (disks[0] / "README.txt", disks[0] / "manifest.json", disks[1] / "install.sh"):
        path.unlink()
    flip(disks[0] / "data-00002.tar.zst", 77)
    flip(disks[1] / "parity-00002.zfec", -77)
    repair_bundle(disks)
    assert [files_of(disk) for disk in disks] == before


def test_a_disk_without_room_is_named_before_a_byte_is_written(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(bundle / "data-00002.tar.zst", 77)
    before = files_of(bundle)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000, 1000, 0))
    with pytest.raises(PreflightError, match="--to FOLDER"):
        repair_bundle([bundle])
    assert files_of(bundle) == before


def test_what_a_power_cut_may_leave(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are synced before their names, a repair's sums come last, and before them a pack's parity."""
    (tmp_path / "bundle").mkdir()
    with monkeypatch.context() as watching:
        packed = WatchedDisk(tmp_path / "bundle", watching)
        write_bundle(recipe_of(tree, parity=PARITY), [packed.root], threads=2)
    packed.check_names()
    packed.check_last("SHA256SUMS")
    assert {f"parity-0000{number}.zfec" for number in (1, 2, 3, 4)} < {*packed.names()}
    for name in ("data-00003.tar.zst", "parity-00003.zfec", "README.txt", "manifest.json", "SHA256SUMS"):
        (packed.root / name).unlink()
    with monkeypatch.context() as watching:
        mended = WatchedDisk(packed.root, watching)
        repair_bundle([mended.root], threads=2)
    mended.check_names()
    mended.check_last("SHA256SUMS")
    assert len(mended.names()) == 5


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_stripe_that_lost_all_its_digests(bundle: Path, sound: Path, elsewhere: bool) -> None:
    """Its data are proved by sha256: before anything is written, or of what mending gives."""
    found = find_protected([bundle])
    group = found.groups[0]
    for name in group.names:
        flip(bundle / name, len(found.header) + group.record(3) + 5)
    assert repair_bundle([bundle]).damaged == group.names
    for name in group.names:
        flip(bundle / name, len(found.header) + group.record(3) + 5)
    flip(bundle / group.files[0].name, 3 * STRIPE + 9)
    if elsewhere:
        flip(bundle / group.files[0].name, 9)
    hurt = files_of(bundle)
    words = "can't be mended" if elsewhere else "3 damaged, parity mends 2"
    with pytest.raises(DamagedError, match=words):
        repair_bundle([bundle])
    assert files_of(bundle) == hurt
    shutil.copy(sound / group.files[0].name, bundle)
    repair_bundle([bundle])
    assert files_of(bundle) == files_of(sound)


def test_leftovers_of_a_killed_repair_go(bundle: Path, sound: Path) -> None:
    (bundle / "data-00001.tar.zst.partial").write_bytes(b"half")
    repair_bundle([bundle])
    assert files_of(bundle) == files_of(sound)


def test_another_number_is_another_bundle(tree: Path, bundle: Path, sound: Path, tmp_path: Path) -> None:
    """A finished one is kept unless it may be replaced; what is left of other parity is removed."""
    with pytest.raises(DestinationError, match="finished bundle of other content"):
        write_bundle(recipe_of(tree, parity=1), [bundle])
    write_bundle(recipe_of(tree, parity=1), [tmp_path / "one"])
    shutil.copy(bundle / "parity-00004.zfec", tmp_path / "stale.zfec")
    write_bundle(recipe_of(tree, parity=1), [bundle], replace=True)
    assert files_of(bundle) == files_of(tmp_path / "one")
    (bundle / "SHA256SUMS").unlink()
    shutil.copy(tmp_path / "stale.zfec", bundle / "parity-00004.zfec")
    write_bundle(recipe_of(tree, parity=1), [bundle])
    assert files_of(bundle) == files_of(tmp_path / "one")
    (bundle / "SHA256SUMS").unlink()
    write_bundle(recipe_of(tree), [bundle])
    assert not list(bundle.glob("parity-*"))


@pytest.mark.parametrize("at", [40, -9])
def test_damaged_parity_is_made_again_by_the_next_pack(
    tree: Path, bundle: Path, sound: Path, at: int
) -> None:
    """What an earlier run wrote counts as far as its digests hold: header and pieces."""
    (bundle / "SHA256SUMS").unlink()
    flip(bundle / "parity-00002.zfec", at)
    write_bundle(recipe_of(tree, parity=PARITY), [bundle])
    assert files_of(bundle) == files_of(sound)


def test_one_repair_at_a_time(bundle: Path) -> None:
    holder = os.open(bundle, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(DestinationError, match="another bundler is mending"):
        repair_bundle([bundle])
    os.close(holder)
    repair_bundle([bundle])


def test_few_open_files_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group at a time; where even that is too much, files aren't taken for lost."""
    monkeypatch.setattr(parity, "MOST_DATA", 8)
    write_bundle(recipe_of(make_tree(tmp_path / "tree", SIZES), parity=1), [tmp_path / "bundle"])
    sound = files_of(tmp_path / "bundle")
    assert len(sound) > 50
    (tmp_path / "bundle/data-00003.tar.zst").unlink()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (there + 4, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            repair_bundle([tmp_path / "bundle"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (there + 25, limits[1]))
        repair_bundle([tmp_path / "bundle"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert files_of(tmp_path / "bundle") == sound


def test_the_other_folder_is_an_empty_one(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    with pytest.raises(DestinationError, match=r"thesis\.txt"):
        repair_bundle([bundle], tmp_path / "full")
    with pytest.raises(DestinationError, match="own folder"):
        repair_bundle([bundle], bundle)


def test_what_is_no_file_is_missing(bundle: Path, sound: Path) -> None:
    """What stands in a volume's place and isn't a file is no volume."""
    (bundle / "data-00004.tar.zst").unlink()
    os.mkfifo(bundle / "data-00004.tar.zst")
    repair_bundle([bundle])
    assert files_of(bundle) == files_of(sound)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_killed_pack_goes_on_with_its_parity(tmp_path: Path, threads: int) -> None:
    """Killed while parity is made; the bytes are those of a run in one go, and what was made is kept."""
    tree = make_tree(tmp_path / "tree", SIZES)
    words = command("parity", tree, tmp_path / "whole", threads)
    subprocess.run(words, check=True)
    target, chance = tmp_path / "killed", random.Random(threads)
    for _ in range(30):
        process = subprocess.Popen(command("parity", tree, target, threads))
        while process.poll() is None and not (target.exists() and any(target.glob("parity-*"))):
            pass
        try:
            process.wait(chance.uniform(0, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            break
        shutil.rmtree(target)
    else:
        pytest.fail("no kill met a pack at its parity")
    subprocess.run(command("parity", tree, target, threads), check=True)
    assert files_of(target) == files_of(tmp_path / "whole")


def test_parity_that_is_there_is_not_made_again(tree: Path, sound: Path, tmp_path: Path) -> None:
    """A pack that was killed before the sums goes on after the last sound record."""
    target = shutil.copytree(sound, tmp_path / "target")
    half = target / "parity-00003.zfec"
    half.rename(half.with_name(half.name + ".partial"))
    data = half.with_name(half.name + ".partial").read_bytes()
    half.with_name(half.name + ".partial").write_bytes(data[: len(data) // 2])
    from bundler.archive.parity_writer import write_parity
    from bundler.common.progress import SilentMeter, SilentReporter

    found = find_protected([target])
    done: list[int] = []

    class Meter(SilentMeter):
        def advance(self, amount: int) -> None:
            done.append(amount)

    class Seen(SilentReporter):
        def phase(self, *_: object, **__: object) -> object:
            from contextlib import nullcontext

            return nullcontext(Meter())

    sources = {file.name: target / file.name for group in found.groups for file in group.files}
    places = {name: target for group in found.groups for name in group.names}
    digests = write_parity(found.groups, found.header, sources, places, threads=2, reporter=Seen())
    assert files_of(target) == files_of(sound)
    assert digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sound.glob("parity-*")
    }
    assert done[0] == sum(file.size for file in found.groups[0].files), "the first group was whole"
    assert sum(done) == sum(path.stat().st_size for path in sources.values())


@pytest.mark.parametrize("aside", [False, True])
def test_a_killed_repair_goes_on(tmp_path: Path, aside: bool) -> None:
    """Killed at random moments, no good byte is lost; run again, the bundle is whole."""
    tree = make_tree(tmp_path / "tree", SIZES)
    subprocess.run(command("parity", tree, tmp_path / "whole", 2), check=True)
    whole = files_of(tmp_path / "whole")
    hurt = shutil.copytree(tmp_path / "whole", tmp_path / "hurt")
    names = sorted(path.name for path in hurt.glob("data-*"))
    (hurt / names[0]).unlink()
    for name in names[1:8]:
        flip(hurt / name, 50_000)
    flip(hurt / names[9], 30_000)
    before, chance, met = files_of(hurt), random.Random(aside), 0
    kept = shutil.copytree(hurt, tmp_path / "kept")
    target = tmp_path / "other" if aside else hurt
    for attempt in range(30):
        process = subprocess.Popen(command("repair", hurt, target, 2))
        while process.poll() is None and not list(target.glob("*.partial")):
            pass
        # On a quick machine the repair may be done before the signal comes: sooner, then.
        time.sleep(chance.uniform(0, 0.1 / (attempt + 1)))
        process.kill()
        process.wait()
        for name, data in files_of(target).items():
            assert name.endswith(".partial") or data in (whole[name], before.get(name))
        met += bool(list(target.glob("*.partial")))
        if met == 3:
            break
        if files_of(target) == whole:
            shutil.rmtree(target)
            if not aside:
                shutil.copytree(kept, hurt)
    else:
        pytest.fail("no kill met a repair at work")
    subprocess.run(command("repair", hurt, target, 2), check=True)
    assert files_of(target) == whole


def test_an_interrupt_leaves_nothing_beside(
    tree: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle: the bundle is as it was."""
    (bundle / "data-00002.tar.zst").unlink()
    flip(bundle / "data-00004.tar.zst", 20_000)
    before = files_of(bundle)
    from bundler.archive import parity_repair

    real = parity_repair._rebuild

    def interrupted(found: object, number: int, places: object) -> object:
        if number == 5:
            raise KeyboardInterrupt
        return real(found, number, places)  # type: ignore[arg-type]

    monkeypatch.setattr(parity_repair, "_rebuild", interrupted)
    with pytest.raises(KeyboardInterrupt):
        repair_bundle([bundle])
    assert files_of(bundle) == before


def test_memory_is_bounded_whatever_the_group() -> None:
    """Threads times a stripe's pieces: 256 MiB, or one stripe."""
    files = tuple(parity.CoveredFile(f"f{number}", 2**33, "") for number in range(100))
    for count in (1, 3, 10, 100):
        group = parity.ParityGroup(0, files[:count], 2, 2**20)
        for made in (0, 2, count + 2):
            threads = parity_stripes.threads_for(group, 16, made=made)
            each = (count + 2 + 2 * made) * 2**20
            assert threads == 1 or threads * each <= parity_stripes.MEMORY
            assert threads == 16 or (threads + 1) * each > parity_stripes.MEMORY


@pytest.mark.parametrize(
    "change",
    [
        {"data": 0},
        {"data": 250, "parity": 7},
        {"stripe": 2**21},
        {"files": (manifests.CompanionFile("../up", 1),)},
        {"files": (manifests.CompanionFile("SHA256SUMS", 1),)},
        {"files": (manifests.CompanionFile("a", -1),)},
        {"files": (manifests.CompanionFile("a", 1), manifests.CompanionFile("a", 1))},
    ],
)
def test_hostile_parity_is_refused(sound: Path, change: dict[str, object]) -> None:
    from bundler.archive import validate

    manifest = manifests.read(sound / "manifest.json")
    assert manifest.parity is not None
    forged = msgspec.structs.replace(manifest, parity=msgspec.structs.replace(manifest.parity, **change))
    with pytest.raises(InputError, match=r"parity|absurd"):
        validate.check(forged, "here")
