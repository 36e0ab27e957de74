"""The plan: of the real environments, and of small ones whose every number is known."""

from __future__ import annotations

import resource
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bundler.artifact import Artifact
from bundler.collect.network import open_network
from bundler.collect.plan import ModelListing, Plan, make_plan
from bundler.store import Store
from bundler.workspace import EnvironmentLock, Workspace, required_environments
from tests.collect.conftest import content, sha

if TYPE_CHECKING:
    from tests.support.fileserver import FileServer

PROJECT = Path(__file__).resolve().parent.parent.parent


def test_the_real_environments(tmp_path: Path) -> None:
    workspace = Workspace.load(PROJECT)
    plan = make_plan(required_environments(workspace, ["cu126", "cu128"]), Store(tmp_path))
    by_name = {one.name: one for one in plan.environments}
    assert {name: (one.count("conda"), one.count("wheel")) for name, one in by_name.items()} == {
        "default": (60, 162),
        "cu128": (60, 162),
        "bundler": (25, 38),
    }
    text = (PROJECT / "pixi.lock").read_text()
    for one in plan.environments:
        for artifact in one.artifacts:
            entry = text[text.index("\npackages:") :].split(f": {artifact.url}\n", 1)[1].split("\n- ", 1)[0]
            assert f"sha256: {artifact.sha256}\n" in entry + "\n"
            if artifact.kind == "conda":
                assert f"size: {artifact.size}\n" in entry + "\n"
    distinct = {artifact.url for one in plan.environments for artifact in one.artifacts}
    assert plan.files == plan.missing_files == len(distinct)
    assert plan.unknown_sizes == sum(url.endswith(".whl") for url in distinct)
    assert "CUDA 12.6: 525 or newer, better 560" in plan.target[0]
    assert "CUDA 12.8: 525 or newer, better 570" in plan.target[1]
    assert "glibc 2.28" in plan.target[-1]


def test_it_takes_little_time(tmp_path: Path) -> None:
    """The goal is 1 s for a lock of 160 packages and a model of 1,000 files; this counts CPU time only."""
    model = listed(tmp_path, files=1000, size=10**12)
    before = resource.getrusage(resource.RUSAGE_SELF)
    plan = make_plan([Workspace.load(PROJECT).environment("cu128")], Store(tmp_path), models=[model])
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert plan.files == 1222
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3.0


def listed(
    place: Path,
    *,
    size: int,
    files: int = 3,
    missing: int | None = None,
    streamed: bool = False,
    advice: tuple[str, ...] = (),
) -> ModelListing:
    return ModelListing(
        name="m",
        origin="folder",
        revision=None,
        files=files,
        size=size,
        missing=size if missing is None else missing,
        streamed=streamed,
        place=place,
        advice=advice,
    )


def small(server: FileServer, count: int = 4) -> EnvironmentLock:
    artifacts = []
    for number in range(count):
        data = content(1000 + number, seed=number)
        (server.folder / f"p{number}").write_bytes(data)
        size = len(data) if number % 2 else None
        artifacts.append(Artifact("wheel", f"p{number}", "1", f"{server.url}p{number}", sha(data), size))
    return EnvironmentLock("small", (), "linux-64", tuple(artifacts))


def test_totals(server: FileServer, tmp_path: Path) -> None:
    environment, store = small(server), Store(tmp_path / "store")
    path = store.path(environment.artifacts[0].url)
    path.parent.mkdir(parents=True)
    shutil.copy(server.folder / "p0", path)
    damaged = store.path(environment.artifacts[1].url)
    damaged.write_bytes(b"\0" * 1001)
    store.table("rates").update({"download": 1000})
    model = listed(tmp_path, size=5000, missing=4000, advice=("8 × 141 GB", "more"))
    plan = make_plan([environment, environment], store, models=[model])
    assert plan.files == 4 + 3
    assert plan.size == 1000 + 1001 + 1003 + 5000, "p2's size is unknown"
    assert (plan.missing_files, plan.unknown_sizes) == (3, 1)
    assert plan.missing_size == 1001 + 1003 + 4000
    assert plan.seconds == plan.missing_size / 1000
    assert [one.present for one in plan.environments[0].artifacts] == [True, False, False, False]
    assert plan.target[0] == "m: 8 × 141 GB"
    with closing(open_network(None)) as network:
        asked = make_plan([environment], store, network=network)
    assert asked.unknown_sizes == 0 and asked.missing_size == 1001 + 1002 + 1003


def test_space_is_added_up_by_file_system(server: FileServer, tmp_path: Path) -> None:
    model = listed(tmp_path / "weights", size=10**18)
    plan = make_plan([small(server)], Store(tmp_path / "store"), models=[model], output=tmp_path / "bundles")
    (space,) = plan.space
    assert space.purposes == (
        "the store",
        "the rehearsal's and the runtime's copies",
        "the weights of m",
        "the bundle",
    )
    packages = plan.size - 10**18
    assert plan.bundle == (packages + 75 * 10**16, plan.size), "packages are packed already"
    unpacked = (int(packages * 1.5), int(packages * 2.5))
    assert space.needed == plan.missing_size + unpacked[0] + plan.bundle[0]
    assert space.most == plan.missing_size + unpacked[1] + plan.bundle[1]
    assert plan.installed == (plan.size + unpacked[0], plan.size + unpacked[1])
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "data-00001.tar.zst").write_bytes(bytes(1000))
    again = make_plan([small(server)], Store(tmp_path / "store"), models=[model], output=tmp_path / "bundles")
    assert again.space[0].needed == space.needed - 1000, "what is written isn't wanted twice"
    assert not space.enough
    assert make_plan([small(server)], Store(tmp_path / "store")).space[0].enough


def test_what_is_known_of_packages_and_lies_unpacked_already_is_told(
    server: FileServer, tmp_path: Path
) -> None:
    environment, store = small(server), Store(tmp_path / "store")
    store.table("installed").update({str(one.sha256): [3000, 7] for one in environment.artifacts})
    plan = make_plan([environment], store)
    assert plan.installed == (plan.size + 12_000, plan.size + 12_000)
    assert plan.space[0].needed == plan.missing_size + 12_000
    unpacked = store.root / "pypi/uv/archive-v0/x"
    unpacked.mkdir(parents=True)
    (unpacked / "y").write_bytes(bytes(9000))
    assert make_plan([environment], store).space[0].needed == plan.missing_size + 3000
    assert make_plan([environment], store, rehearsed=False).space[0].needed == plan.missing_size


def test_a_plan_is_one_screen_of_80_columns(tmp_path: Path) -> None:
    from bundler.cli.plan_text import plan_text

    model = listed(tmp_path / "w", size=10**12, advice=("8 × 141 GB, " + "and so on, " * 10, "more"))
    workspace = Workspace.load(PROJECT)
    plan = make_plan(required_environments(workspace, ["cu128"]), Store(tmp_path), models=[model])
    lines = plan_text(plan).splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines if " " in line.strip()) <= 80
    assert len(plan_text(plan, every=True).splitlines()) > 222


def test_packages_that_an_md5_alone_fixes_are_told(server: FileServer, tmp_path: Path) -> None:
    from bundler.cli.plan_text import plan_text

    old = Artifact("conda", "old", "1", f"{server.url}old-1-0.conda", None, 10, md5="0" * 32)
    environment = small(server)
    assert "an md5 alone" not in plan_text(make_plan([environment], Store(tmp_path)))
    environment = EnvironmentLock("e", (), "linux-64", (*environment.artifacts, old))
    told = plan_text(make_plan([environment], Store(tmp_path)), every=True)
    assert "of these the lock fixes 1 by an md5 alone" in told
    assert f"md5 {'0' * 32}" in told


def test_without_an_earlier_fetch_the_time_is_unknown(server: FileServer, tmp_path: Path) -> None:
    plan = make_plan([small(server)], Store(tmp_path))
    assert plan.rate is None and plan.seconds is None


def test_json(server: FileServer, tmp_path: Path) -> None:
    plan = make_plan([small(server)], Store(tmp_path))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_a_streamed_model_is_downloaded_and_takes_no_room_beside_the_bundle(tmp_path: Path) -> None:
    """`pack --stream --dry-run` must not say that hundreds of gigabytes are here already."""
    from bundler.cli.plan_text import plan_text

    model = listed(tmp_path / "weights", size=10**9, streamed=True)
    plan = make_plan([], Store(tmp_path / "store"), models=[model], output=tmp_path / "bundles")
    assert plan.missing_size == 10**9
    (space,) = plan.space
    assert space.needed == 750_000_000
    assert "the weights of m" not in space.purposes
    text = " ".join(plan_text(plan).split())
    assert "1.0 GB to download, straight into the bundle" in text
    assert "all here" not in text and "all is here" not in text
