"""Doctor's checks, each with a host that passes and one that doesn't."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from bundler.errors import InputError
from bundler.host import facts
from bundler.host.doctor import examine, examine_all
from bundler.host.facts import HostFacts, describe, read_target, visible_gpus
from bundler.host.finding import Finding, table, worst
from bundler.host.gpu import Gpu, GpuProcess
from bundler.host.needs import Needs, choose_tp_size, divides, version_in
from bundler.manifest import Environment, Model
from bundler.model import Fit, ModelFacts, ModelSpec, Requirements
from bundler.serve.environment_checks import check_place, compiler
from bundler.serve.launch import Served, Software
from bundler.serve.weights import check_folder, check_weights
from bundler.stack import Stack
from tests.serve.conftest import make_installation, safetensors

GB = 10**9
GLM = ModelFacts(
    weight_bytes=717 * GB, attention_heads=96, kv_heads=8, kv_bytes_per_token=376_832, architecture="Glm4Moe"
)


def h200(index: int = 0, **changes: object) -> Gpu:
    facts = {
        "index": index,
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H200",
        "memory": 150 * GB,
        "free": 149 * GB,
        "compute_capability": "9.0",
        "nvlinks": 18,
    }
    return Gpu(**(facts | changes))


HOST = HostFacts(
    hostname="gpu1",
    address="10.0.0.5",
    machine="x86_64",
    glibc="2.35",
    driver="570.124.06",
    driver_cuda="12.8",
    gpus=tuple(h200(index) for index in range(8)),
    cpus=96,
    memory=2000 * GB,
    memory_available=1900 * GB,
    shm=1000 * GB,
    shm_free=1000 * GB,
    limits={"nofile": 1024, "nofile_hard": 1048576, "memlock": None},
    libraries={"libcuda.so.1": "/lib/libcuda.so.1", "libcuda.so": None, "libnuma.so.1": None},
    ldconfig="/sbin/ldconfig",
    nvidia_smi="/usr/bin/nvidia-smi",
    listening=(22,),
    interfaces={"lo": ("127.0.0.1",), "eth0": ("10.0.0.5",)},
)
NEEDS = Needs(
    stack=Stack(cuda="12.8", sglang="0.5.7", glibc="2.28"),
    model="GLM-4.7",
    facts=GLM,
    requires=Requirements(host_memory_gb=1000, sglang=">=0.5.7", min_compute_capability="8.0"),
    mem_fraction=0.9,
    port=30000,
)


def host(**changes: object) -> HostFacts:
    return msgspec.structs.replace(HOST, **changes)


def needs(**changes: object) -> Needs:
    stack = {name: changes.pop(name) for name in ("cuda", "torch", "sglang", "cudnn") if name in changes}
    return msgspec.structs.replace(NEEDS, stack=msgspec.structs.replace(NEEDS.stack, **stack), **changes)


def gpus(count: int = 8, **changes: object) -> tuple[Gpu, ...]:
    return tuple(h200(index, **changes) for index in range(count))


def test_a_fit_host_is_good() -> None:
    """Eight H200 with room: nothing but good findings, each shown."""
    findings = examine(HOST, NEEDS)
    assert worst(findings) == "good", table([one for one in findings if one.level != "good"])
    assert len(findings) > 15


FAILING: list[tuple[str, str, HostFacts, Needs]] = [
    ("no driver", "NVIDIA driver", host(driver=None, gpus=(), gpu_problem="NVML: not found"), NEEDS),
    ("an old branch", "NVIDIA driver", host(driver="515.1", driver_cuda="11.7"), NEEDS),
    ("an old major", "NVIDIA driver", host(driver="570.1", driver_cuda="12.8"), needs(cuda="13.0")),
    (
        "Blackwell with cu126",
        "compute capability",
        host(gpus=gpus(compute_capability="10.0")),
        needs(cuda="12.6"),
    ),
    ("too old a GPU", "compute capability", host(gpus=gpus(compute_capability="7.5")), NEEDS),
    ("no GPU", "GPUs", host(gpus=()), NEEDS),
    ("too few GPUs", "GPUs", HOST, needs(tp_size=16)),
    ("hidden GPUs", "GPUs", host(cuda_visible_devices="0,1"), needs(tp_size=8)),
    ("heads that don't divide", "attention heads", HOST, needs(tp_size=5)),
    ("KV heads that don't divide", "attention heads", HOST, needs(tp_size=6)),
    ("two generations", "kind of GPUs", host(gpus=(*gpus(7), h200(7, compute_capability="8.0"))), NEEDS),
    ("MIG", "MIG", host(gpus=gpus(mig=True)), NEEDS),
    ("fabric under way", "fabric manager", host(gpus=gpus(nvswitch=True, fabric="in progress")), NEEDS),
    ("80 GB for BF16", "GPU memory", host(gpus=gpus(memory=85 * GB, free=84 * GB)), NEEDS),
    ("one occupied", "occupied GPUs", host(gpus=(*gpus(7), h200(7, free=120 * GB))), NEEDS),
    ("no main memory", "main memory", host(memory_available=10 * GB), NEEDS),
    ("a container's shm", "/dev/shm", host(shm=64 << 20, shm_free=64 << 20), NEEDS),
    ("no shm", "/dev/shm", host(shm=None, shm_free=None), NEEDS),
    ("another processor", "processor", host(machine="aarch64"), NEEDS),
    ("an old glibc", "glibc", host(glibc="2.17"), NEEDS),
    ("few files", "open files", host(limits={"nofile": 1024, "nofile_hard": 1024}), NEEDS),
    ("no libcuda", "libcuda.so.1", host(libraries={}), NEEDS),
    ("an empty libcuda", "libcuda.so.1", host(unusable_libraries={"libcuda.so.1": "is empty"}), NEEDS),
    ("an old SGLang", "SGLang", HOST, needs(sglang="0.5.6")),
    (
        "an old cuDNN for images",
        "cuDNN",
        HOST,
        needs(facts=ModelFacts(vision=True), torch="2.9.1+cu128", cudnn="9.10.2.21"),
    ),
    ("no loopback", "loopback", host(interfaces={"eth0": ("10.0.0.5",)}), NEEDS),
    ("a taken port", "port", host(listening=(30000,)), NEEDS),
    (
        "no network for two nodes",
        "interfaces",
        host(interfaces={"lo": ("127.0.0.1",)}),
        needs(nnodes=2, tp_size=16),
    ),
]
WARNING: list[tuple[str, str, HostFacts, Needs]] = [
    ("a newer toolkit", "NVIDIA driver", host(driver="560.1", driver_cuda="12.6"), NEEDS),
    ("Blackwell without nvcc", "compute capability", host(gpus=gpus(compute_capability="10.0")), NEEDS),
    ("two kinds", "kind of GPUs", host(gpus=(*gpus(7), h200(7, name="NVIDIA H100"))), NEEDS),
    (
        "GPUs that aren't there",
        "CUDA_VISIBLE_DEVICES",
        host(cuda_visible_devices="2,99"),
        needs(tp_size=1, facts=ModelFacts()),
    ),
    ("PCIe", "NVLink", host(gpus=gpus(nvlinks=0)), NEEDS),
    ("a hidden fabric manager", "fabric manager", host(gpus=gpus(nvswitch=True)), NEEDS),
    ("a short context", "GPU memory", host(gpus=gpus(free=100 * GB, memory=101 * GB)), NEEDS),
    ("others on the GPUs", "occupied GPUs", host(gpus=gpus(processes=(GpuProcess(7, None),))), NEEDS),
    ("less memory than asked", "main memory", host(memory=500 * GB), NEEDS),
    ("a small shm", "/dev/shm", host(shm=GB, shm_free=GB // 2), NEEDS),
    ("locked memory", "locked memory", host(limits={"memlock": 65536}), needs(nnodes=2, tp_size=16)),
    ("no nvidia-smi", "nvidia-smi", host(nvidia_smi=None), NEEDS),
    ("no nvcc for a new SGLang", "nvcc", HOST, needs(sglang="0.5.17")),
    ("a name that doesn't resolve", "hostname", host(address=None), NEEDS),
]


@pytest.mark.parametrize(("case", "name", "seen", "wanted"), FAILING, ids=[case[0] for case in FAILING])
def test_failures(case: str, name: str, seen: HostFacts, wanted: Needs) -> None:
    """Each of these keeps the server from running, says what was seen, and gives a fix or what is wanted."""
    found = _named(examine(seen, wanted), name)
    assert found.level == "fail"
    assert found.seen and (found.fix or found.wanted)


@pytest.mark.parametrize(("case", "name", "seen", "wanted"), WARNING, ids=[case[0] for case in WARNING])
def test_warnings(case: str, name: str, seen: HostFacts, wanted: Needs) -> None:
    """Each of these may do harm, and nothing fails for it."""
    findings = examine(seen, wanted)
    assert _named(findings, name).level == "warn"
    assert worst(findings) == "warn"


def test_bf16_on_80_gb_is_answered_with_the_publishers_advice() -> None:
    """The misfit that costs a team a week: the fix is the model's own advice."""
    small = host(gpus=gpus(memory=85 * GB, free=84 * GB))
    asked = needs(requires=Requirements(advice="pack GLM-4.7-FP8 for 8 × 80 GB"))
    assert _named(examine(small, asked), "GPU memory").fix == "pack GLM-4.7-FP8 for 8 × 80 GB"


@pytest.mark.parametrize(
    ("variable", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("2,0", [2, 0]),
        ("", []),
        ("1,9,2", [1]),
        ("GPU-3", [3]),
        ("-1", []),
        ("0,0", [0]),
    ],
)
def test_visible(variable: str | None, indices: list[int]) -> None:
    """CUDA_VISIBLE_DEVICES is read as CUDA reads it."""
    assert [gpu.index for gpu in visible_gpus(gpus(4), variable)] == indices


@pytest.mark.parametrize(
    ("visible", "nnodes", "size"),
    [(8, 1, 8), (7, 1, 4), (6, 1, 4), (3, 1, 2), (1, 1, 1), (0, 1, 1), (8, 2, 16)],
)
def test_tp_size(visible: int, nnodes: int, size: int) -> None:
    """The largest tp-size that heads and KV heads allow, over all nodes."""
    assert choose_tp_size(visible, GLM, nnodes) == size
    assert divides(GLM, size)


def test_versions() -> None:
    """Specifiers hold post-releases, and an unknown version lies in none."""
    assert version_in("0.5.10.post1", "<0.5.11")
    assert not version_in("0.5.17", "<0.5.11")
    assert version_in("2.9.1+cu128", "==2.9.1")
    assert not version_in(None, ">=0") and version_in(None, None)


def test_facts_travel(tmp_path: Path) -> None:
    """A described host comes back as it was; anything else is refused by name."""
    here = describe()
    path = tmp_path / "target.json"
    path.write_bytes(msgspec.json.encode(here))
    assert read_target(path) == here
    for text in ("{}", "no json", '{"hostname": 3}'):
        path.write_text(text)
        with pytest.raises(InputError, match="no described host"):
            read_target(path)
    with pytest.raises(InputError, match="can't read"):
        read_target(tmp_path / "absent")


@pytest.fixture
def place(tmp_path: Path) -> tuple[Served, dict[str, str]]:
    """An environment with all that a server needs, and the variables that the server will have."""
    prefix = tmp_path / "env"
    (prefix / "lib/python3.11/site-packages/sglang-0.5.7.dist-info").mkdir(parents=True)
    (prefix / "lib/libnuma.so.1").touch()
    (prefix / "bin").mkdir()
    for program in ("python", "gcc"):
        (prefix / "bin" / program).touch(0o755)
    target = Served(
        root=tmp_path,
        spec=ModelSpec(name="tiny"),
        facts=ModelFacts(),
        weights=tmp_path,
        software=Software("cu128", prefix, prefix / "bin/python", Stack(sglang="0.5.7")),
        caches=tmp_path / "caches",
    )
    return target, {"PATH": str(prefix / "bin")}


def has_free(size: int) -> Callable[[Path], SimpleNamespace]:
    return lambda path: SimpleNamespace(free=size)


@pytest.fixture
def bare_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose loader knows no library, with room for caches."""
    monkeypatch.setattr(facts, "LIBRARY_FOLDERS", ())
    monkeypatch.setattr(facts, "_loader_cache", dict)
    monkeypatch.setattr(shutil, "disk_usage", has_free(10 * GB))


@pytest.mark.usefixtures("bare_host")
def test_place(place: tuple[Served, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpreter, compiler, libnuma and caches are each looked at."""
    target, variables = place
    prefix = target.software.prefix
    assert worst(list(check_place(target, variables))) == "good"
    for name, path in (
        ("interpreter", "bin/python"),
        ("C compiler", "bin/gcc"),
        ("libnuma.so.1", "lib/libnuma.so.1"),
    ):
        (prefix / path).rename(prefix / "away")
        assert _named(check_place(target, variables), name).level == "fail"
        (prefix / "away").rename(prefix / path)
    unfit = replace(target, caches=prefix / "bin/gcc/caches")
    assert "is no folder" in _named(check_place(unfit, variables), "kernel caches").seen
    monkeypatch.setattr(shutil, "disk_usage", has_free(GB))
    assert _named(check_place(target, variables), "kernel caches").level == "warn"


@pytest.mark.usefixtures("bare_host")
def test_a_newer_sglang_may_do_without_libnuma(place: tuple[Served, dict[str, str]]) -> None:
    """Its absence is a warning then."""
    target, variables = place
    (target.software.prefix / "lib/libnuma.so.1").unlink()
    (packages,) = target.software.prefix.glob("lib/python*/site-packages")
    (packages / "sglang-0.5.7.dist-info").rename(packages / "sglang-0.5.17.dist-info")
    assert _named(check_place(target, variables), "libnuma.so.1").level == "warn"


@pytest.mark.usefixtures("bare_host")
def test_libnuma_is_looked_for_as_the_server_will(
    place: tuple[Served, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's LD_LIBRARY_PATH, which is withheld from the server, is no help to it; its own is."""
    target, variables = place
    (target.software.prefix / "lib/libnuma.so.1").rename(target.root / "libnuma.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(target.root))
    assert _named(check_place(target, variables), "libnuma.so.1").level == "fail"
    monkeypatch.delenv("LD_LIBRARY_PATH")
    kept = {**variables, "LD_LIBRARY_PATH": str(target.root)}
    assert _named(check_place(target, kept), "libnuma.so.1").level == "good"


def test_an_environment_is_looked_at_for_sglang(place: tuple[Served, dict[str, str]]) -> None:
    """What the manifest says an environment holds isn't taken on trust; what an interpreter tells is."""
    target, variables = place
    (target.software.prefix / "lib/python3.11/site-packages/sglang-0.5.7.dist-info").rmdir()
    assert "has no SGLang" in _named(check_place(target, variables), "interpreter").seen
    told = replace(target, software=replace(target.software, probed=True))
    assert _named(check_place(told, variables), "interpreter").level == "good"
    none = replace(target, software=replace(target.software, probed=True, stack=Stack()))
    assert "has no SGLang" in _named(check_place(none, variables), "interpreter").seen


def test_an_environment_without_sglang_serves_no_model() -> None:
    """It fails beside a model, also before anything is unpacked; alone it may be for other work."""
    wanted = Needs(environment="other", model="GLM-4.7")
    assert _named(examine(HOST, wanted), "SGLang").level == "fail"
    assert not [one for one in examine(HOST, Needs(environment="other")) if one.name == "SGLang"]


@pytest.mark.parametrize("sglang", ["0.5.7", None])
def test_environments_for_other_work_are_left_alone(sglang: str | None) -> None:
    """A bundle's environment without SGLang matters only where none has it."""
    environments = [
        Environment(name=name, platform="linux-64", sglang=version)
        for name, version in (("other", None), ("serving", sglang))
    ]
    model = Model(spec=ModelSpec(name="tiny"), path="weights/tiny", origin="folder", facts=ModelFacts())
    bad = [one.name for one in examine_all(HOST, environments, [model]) if one.level == "fail"]
    assert bad == ([] if sglang else ["SGLang", "SGLang"])


@pytest.mark.parametrize(
    ("memory", "tp_size", "level"),
    [(85 * GB, 8, "fail"), (85 * GB, 16, "good"), (150 * GB, 8, "good"), (150 * GB, 4, "fail")],
)
def test_without_files_the_publishers_sets_count(memory: int, tp_size: int, level: str) -> None:
    """Before the weights are fetched, the GPUs' memory is held against what the manifest asks for."""
    requires = Requirements(
        gpus=(Fit(count=8, memory_gb=141), Fit(count=16, memory_gb=80)), advice="pack GLM-4.7-FP8"
    )
    nnodes = tp_size // 8 or 1
    host = msgspec.structs.replace(HOST, gpus=tuple(h200(index, memory=memory) for index in range(8)))
    wanted = Needs(model="GLM-4.7", requires=requires, tp_size=tp_size, nnodes=nnodes)
    found = _named(examine(host, wanted), "GPU memory")
    assert found.level == level
    assert found.wanted == "8 × 141 GB or 16 × 80 GB"
    assert found.fix == ("pack GLM-4.7-FP8" if level == "fail" else "")


def test_sizes_are_as_people_read_them() -> None:
    """A small model's weights aren't 0.0 GB."""
    small = Needs(facts=ModelFacts(weight_bytes=16_700_000), tp_size=1, mem_fraction=0.5)
    assert _named(examine(HOST, small), "GPU memory").wanted == "33.4 MB (16.7 MB of weights / 0.5)"


def test_compiler(tmp_path: Path) -> None:
    """The compiler is the one that CC names with the environment's PATH, else gcc."""
    for name in ("x86_64-conda-linux-gnu-cc", "gcc"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": str(tmp_path)}
    assert compiler(path) == str(tmp_path / "gcc")
    assert compiler(path | {"CC": "x86_64-conda-linux-gnu-cc"}) == str(tmp_path / "x86_64-conda-linux-gnu-cc")
    assert compiler(path | {"CC": "absent"}) is None


def test_weights(tmp_path: Path) -> None:
    """A missing, truncated, touched and flipped file: the first two at once, the last by its bytes alone."""
    from bundler.installation import Installation

    root = make_installation(tmp_path / "i")
    files = Installation(root).receipt.files
    shard = root / "weights/Tiny/model-00001-of-00002.safetensors"

    def check(deep: bool = False) -> list[Finding]:
        return list(check_weights(root, "weights/Tiny", files, deep=deep))

    assert worst(check()) == worst(check(deep=True)) == "good"
    whole, times = shard.read_bytes(), (shard.stat().st_atime_ns, shard.stat().st_mtime_ns)
    import os

    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert worst(check()) == "warn"  # its time
    os.utime(shard, ns=times)
    assert worst(check()) == "good"
    assert _named(check(deep=True), shard.relative_to(root).as_posix()).seen == "its sha256 differs"
    shard.write_bytes(whole)
    os.utime(shard, ns=times)
    shard.rename(tmp_path / "on another disk")
    shard.symlink_to(tmp_path / "on another disk")
    assert worst(check()) == worst(check(deep=True)) == "good"
    shard.unlink()
    shard.write_bytes(whole[:-5])
    assert "truncated" in _named(check(), shard.relative_to(root).as_posix()).seen
    shard.unlink()
    assert worst(check()) == "fail"
    assert worst(list(check_weights(root, "weights/Other", files))) == "fail"


def test_folder_without_receipt(tmp_path: Path) -> None:
    """A folder is judged by its config, its index and its headers."""
    assert worst(list(check_folder(tmp_path))) == "fail"
    (tmp_path / "config.json").write_text("{}")
    assert worst(list(check_folder(tmp_path))) == "warn"
    (tmp_path / "a.safetensors").write_bytes(safetensors())
    assert worst(list(check_folder(tmp_path))) == "good"
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "b.safetensors"}}')
    found = _named(list(check_folder(tmp_path)), "b.safetensors")
    assert found.seen == "not there" and "copy it here again" in found.fix
    # A snapshot of Hugging Face's cache that was copied without its blobs: a fetch doesn't mend that.
    (tmp_path / "tokenizer.json").symlink_to("../../blobs/0123")
    found = _named(list(check_folder(tmp_path)), "tokenizer.json")
    assert found.seen == "a link that leads nowhere" and "cp -rL" in found.fix


def _named(findings: Iterable[Finding], name: str) -> Finding:
    findings = list(findings)
    found = [one for one in findings if one.name == name]
    assert found, [one.name for one in findings]
    return next((one for one in found if one.level != "good"), found[0])
