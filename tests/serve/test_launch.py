"""The command line and the environment, without starting anything."""

import socket
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from bundler.collect.models.specs import load_spec
from bundler.errors import UsageError
from bundler.host.facts import HostFacts
from bundler.host.network import client_host, interface_towards, own_addresses, split_address
from bundler.model import Fit, LaunchVariant, ModelFacts, ModelSpec, Requirements
from bundler.model import Launch as LaunchSpec
from bundler.serve.environment_checks import check_home, check_speculation
from bundler.serve.flags import merge, parse, value_of
from bundler.serve.launch import Served, ServerLaunch, Software, Wishes, build
from bundler.serve.sglang_versions import CACHES
from bundler.stack import Stack
from tests.host.test_checks import gpus

TEAM = {
    "tool-call-parser": "glm47",
    "reasoning-parser": "glm45",
    "trust-remote-code": True,
    "mem-fraction-static": 0.9,
    "disable-cuda-graph-padding": True,
    "cuda-graph-max-bs": 32,
}
SPEC = ModelSpec(name="GLM-4.7", served_name="glm-4.7", launch=LaunchSpec(flags=TEAM))
HOST = HostFacts(gpus=gpus(8), libraries={"libcuda.so.1": "/lib/libcuda.so.1"})


SOFTWARE_FIELDS = ("environment", "prefix", "python", "stack", "probed")
SOFTWARE = Software(
    environment="cu128",
    prefix=Path("/opt/glm/.pixi/envs/cu128"),
    python=Path("/opt/glm/.pixi/envs/cu128/bin/python"),
    stack=Stack(sglang="0.5.7"),
)


def target(**changes: object) -> Served:
    base = Served(
        root=Path("/opt/glm"),
        spec=SPEC,
        facts=ModelFacts(attention_heads=96, kv_heads=8),
        weights=Path("/opt/glm/weights/GLM-4.7"),
        software=SOFTWARE,
        caches=Path("/opt/glm/.bundler/cache"),
    )
    if "sglang" in changes:
        changes["stack"] = Stack(sglang=changes.pop("sglang"))
    own = {name: changes.pop(name) for name in SOFTWARE_FIELDS if name in changes}
    return replace(base, software=replace(SOFTWARE, **own), **changes)


def launch(
    wishes: Wishes | None = None,
    host: HostFacts = HOST,
    base: dict[str, str] | None = None,
    **changes: object,
) -> ServerLaunch:
    base = base if base is not None else {"PATH": "/usr/bin"}
    return build(target(**changes), wishes or Wishes(), host, base, base)


def flag(one: ServerLaunch, name: str) -> str | None:
    words = list(one.argv)
    return words[words.index(name) + 1] if name in words else None


def test_the_teams_command() -> None:
    """The flags that the team types, each once, and SGLang's module run by the environment's interpreter."""
    one = launch()
    assert one.argv[:3] == ("/opt/glm/.pixi/envs/cu128/bin/python", "-m", "sglang.launch_server")
    wanted = {
        "--model-path": "/opt/glm/weights/GLM-4.7",
        "--served-model-name": "glm-4.7",
        "--tp-size": "8",
        "--host": "0.0.0.0",
        "--port": "30000",
        "--tool-call-parser": "glm47",
        "--reasoning-parser": "glm45",
        "--mem-fraction-static": "0.9",
        "--cuda-graph-max-bs": "32",
        "--attention-backend": "fa3",
    }
    for name, value in wanted.items():
        assert flag(one, name) == value
        assert one.argv.count(name) == 1
    assert "--trust-remote-code" in one.argv and "--disable-cuda-graph-padding" in one.argv
    assert one.url == "http://127.0.0.1:30000"


def test_route_without_nvcc() -> None:
    """SGLang 0.5.7 gets what keeps it from compiling with nvcc, and caches in the installation."""
    added = launch().added
    assert added["CUDA_HOME"] == "/opt/glm/.pixi/envs/cu128"
    assert added["SGLANG_IS_FLASHINFER_AVAILABLE"] == added["SGLANG_ENABLE_JIT_DEEPGEMM"] == "false"
    assert added["GLOO_SOCKET_IFNAME"] == "lo"
    assert added["TRITON_LIBCUDA_PATH"] == "/opt/glm/.bundler/cache/libcuda"
    assert all(added[name].startswith("/opt/glm/.bundler/cache/") for name in CACHES)


def test_route_with_nvcc() -> None:
    """A newer SGLang keeps its own choice of kernels, and the host's CUDA_HOME."""
    one = launch(sglang="0.5.17")
    assert not {"CUDA_HOME", "SGLANG_IS_FLASHINFER_AVAILABLE"} & set(one.added)
    assert "--sampling-backend" not in one.argv and "--attention-backend" not in one.argv
    assert one.added["HF_HUB_OFFLINE"] == "1"


def test_variants_hold_where_they_match() -> None:
    """Variants of the manifest are laid over in order, by environment, GPU family and SGLang version."""
    variants = (
        LaunchVariant(gpu_families=("hopper",), flags={"attention-backend": "x1"}, env={"A": "1"}),
        LaunchVariant(gpu_families=("blackwell",), flags={"attention-backend": "x2"}),
        LaunchVariant(environments=("cu128",), flags={"trust-remote-code": False}),
        LaunchVariant(sglang=">=0.5.8", flags={"mem-fraction-static": 0.5}),
    )
    spec = msgspec.structs.replace(SPEC, launch=LaunchSpec(flags=TEAM, variants=variants))
    one = launch(spec=spec)
    assert flag(one, "--attention-backend") == "x1" and one.added["A"] == "1"
    assert "--trust-remote-code" not in one.argv
    assert one.mem_fraction == 0.9
    older = launch(spec=spec, environment="default")
    assert "--trust-remote-code" in older.argv


def test_the_users_flags_win() -> None:
    """Flags after ``--`` replace ours in any spelling and stand last as typed."""
    extra = (
        "--tensor-parallel-size",
        "4",
        "--mem-fraction-static=0.8",
        "--cuda-graph-bs",
        "1",
        "2",
        "--port",
        "8000",
    )
    one = launch(Wishes(extra=extra))
    assert "--tp-size" not in one.argv and one.argv[-len(extra) :] == extra
    assert (one.tp_size, one.mem_fraction, one.port) == (4, 0.8, 8000)
    assert one.url.endswith(":8000")


def test_options_win_over_the_manifest() -> None:
    """``--tp-size``, ``--host`` and ``--port`` replace the manifest's."""
    spec = msgspec.structs.replace(SPEC, launch=LaunchSpec(flags=TEAM | {"host": "0.0.0.0", "port": 30000}))
    one = launch(Wishes(tp_size=2, host="127.0.0.1", port=31000), spec=spec)
    assert (flag(one, "--tp-size"), flag(one, "--host"), flag(one, "--port")) == ("2", "127.0.0.1", "31000")


@pytest.mark.parametrize("wishes", [Wishes(tp_size=2), Wishes(extra=("--tp", "2")), Wishes()])
def test_the_users_tp_size_wins_over_the_manifests(wishes: Wishes) -> None:
    """Over that of a variant too; where the user says none, it is the manifest's and not the host's GPUs."""
    variant = LaunchVariant(gpu_families=("hopper",), flags={"tp-size": 4})
    spec = msgspec.structs.replace(SPEC, launch=LaunchSpec(flags=TEAM | {"tp-size": 8}, variants=(variant,)))
    one = launch(wishes, spec=spec)
    given = bool(wishes.tp_size or wishes.extra)
    assert one.tp_size == (2 if given else 4)
    assert [flag(one, "--tp-size") or flag(one, "--tp")] == [str(one.tp_size)]
    assert one.argv.count("--tp-size") + one.argv.count("--tp") == 1


def test_the_users_environment_wins() -> None:
    """What the user has set stays, and is told where it differs."""
    base = {"PATH": "/usr/bin", "CUDA_HOME": "/usr/local/cuda", "HF_HUB_OFFLINE": "1"}
    one = launch(base=base)
    assert one.kept == {"CUDA_HOME": "/usr/local/cuda"}
    assert one.environment(base)["CUDA_HOME"] == "/usr/local/cuda"
    assert "CUDA_HOME" not in one.added


def test_visible_gpus_set_the_tp_size() -> None:
    """CUDA_VISIBLE_DEVICES is respected; without GPUs the publisher's first choice is shown."""
    assert launch(host=msgspec.structs.replace(HOST, cuda_visible_devices="4,5")).tp_size == 2
    assert launch(host=msgspec.structs.replace(HOST, gpus=gpus(6))).tp_size == 4
    assert launch(host=HostFacts()).tp_size == 1


@pytest.mark.parametrize(("visible", "size"), [(8, 1), (0, 1)])
def test_unknown_heads_take_the_publishers_size(visible: int, size: int) -> None:
    """28 heads, as Qwen2-VL has, aren't split over 8 GPUs only because its files aren't here to be read."""
    spec = ModelSpec(name="Qwen2-VL", requires=Requirements(gpus=(Fit(count=1, memory_gb=24),)))
    host = msgspec.structs.replace(HOST, gpus=gpus(visible))
    assert launch(host=host, spec=spec, facts=ModelFacts()).tp_size == size
    known = ModelFacts(attention_heads=28, kv_heads=4)
    assert launch(host=host, spec=spec, facts=known).tp_size == (4 if visible else size)


def test_several_nodes() -> None:
    """GLOO and NCCL get the interface that leads to the first node; the flags are SGLang's own."""
    one = launch(Wishes(nnodes=2, node_rank=1, dist_init_addr="127.0.0.1:50000"))
    assert flag(one, "--nnodes") == "2" and flag(one, "--node-rank") == "1"
    assert flag(one, "--dist-init-addr") == "127.0.0.1:50000"
    assert one.tp_size == 16
    assert one.added["GLOO_SOCKET_IFNAME"] == one.added["NCCL_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(nnodes=2),
        Wishes(nnodes=2, node_rank=2, dist_init_addr="127.0.0.1:50000"),
        Wishes(nnodes=2, dist_init_addr="127.0.0.1"),
        Wishes(nnodes=2, dist_init_addr="nowhere.invalid:50000"),
        Wishes(extra=("--tp-size", "eight")),
        Wishes(extra=("--mem-fraction-static", "1.5")),
    ],
)
def test_what_does_not_fit_together(wishes: Wishes) -> None:
    """Arguments that contradict each other are refused with a message."""
    with pytest.raises(UsageError):
        launch(wishes)


def test_shown_as_typed(tmp_path: Path) -> None:
    """``--dry-run``'s text is a command that a shell runs as it stands, with spaces in paths too."""
    import subprocess

    python = tmp_path / "a folder" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$CUDA_HOME" "$@"\n')
    python.chmod(0o755)
    one = launch(python=python, weights=Path("/w/it's here"), prefix=Path("/opt/a b"))
    done = subprocess.run(["sh", "-c", one.shown()], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["/opt/a b", *one.argv[1:]]


def test_flags() -> None:
    """Words are cut into flags with their values; a false flag is left out."""
    users = parse(["--a", "1", "2", "--b=3", "--c"])
    assert [one.words for one in users] == [("--a", "1", "2"), ("--b=3",), ("--c",)]
    assert merge({"a": 5, "d": True, "e": False, "f": "x"}, users) == [
        "--d",
        "--f",
        "x",
        "--a",
        "1",
        "2",
        "--b=3",
        "--c",
    ]
    assert value_of("b", {}, users) == "3" and value_of("d", {"d": 7}, users) == "7"


def test_addresses() -> None:
    """Addresses are read in both families, and lead to the interface that has the way."""
    assert split_address("[fe80::1]:5000") == ("fe80::1", 5000)
    assert interface_towards("127.0.0.1", 9) == "lo"
    assert client_host("0.0.0.0") == "127.0.0.1"
    assert client_host("::") == "[::1]" and client_host("10.0.0.1") == "10.0.0.1"


def test_a_name_that_leads_to_loopback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian writes the own name as 127.0.1.1, which other nodes don't reach; the address to give is told."""
    answer = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.1.1", 50000))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: answer)
    monkeypatch.setattr("bundler.host.network.own_addresses", lambda: "10.0.0.7 (eth0)")
    with pytest.raises(UsageError, match="gpu01 resolves to 127") as raised:
        launch(Wishes(nnodes=2, dist_init_addr="gpu01:50000"))
    assert "10.0.0.7 (eth0)" in str(raised.value)


def test_own_addresses_leave_loopback_out() -> None:
    """What is told is an address that others may reach."""
    assert "127." not in own_addresses()


FUSION = "--enforce-disable-flashinfer-allreduce-fusion"
MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.mark.parametrize(
    ("version", "passed"),
    [("0.5.7", 0), ("0.5.9", 0), ("0.5.10", 0), ("0.5.10.post1", 1), ("0.5.17", 1), (None, 0)],
)
def test_the_fused_all_reduce_is_off(version: str | None, passed: int) -> None:
    """It hangs without NVLink multicast: versions that have the flag get it, whatever model they serve."""
    assert launch(sglang=version).argv.count(FUSION) == passed
    for path in sorted(MANIFESTS.glob("*.toml")):
        one = launch(sglang=version, spec=load_spec(path))
        assert one.argv.count(FUSION) == passed, path
        if version and not passed:
            assert one.added["SGLANG_IS_FLASHINFER_AVAILABLE"] == "false"


def test_the_fused_all_reduce_by_name() -> None:
    """Who asks for it gets it."""
    for extra in (
        ("--enable-flashinfer-allreduce-fusion",),
        ("--flashinfer-allreduce-fusion-backend", "trtllm"),
    ):
        assert FUSION not in launch(Wishes(extra=extra), sglang="0.5.17").argv


def test_what_forbids_multicast_reaches_the_ranks() -> None:
    """Whatever else the caller's environment loses, and whichever way the server is started."""
    off = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
    base = {"PATH": "/usr/bin", "HOME": "/tmp", **off}
    for version in ("0.5.7", "0.5.17"):
        for path in sorted(MANIFESTS.glob("*.toml")):
            environment = launch(base=base, sglang=version, spec=load_spec(path)).environment(base)
            assert environment.items() >= off.items()


def test_a_home_that_cant_be_written() -> None:
    """SGLang writes there which GPUs reach each other: it gets a home among the caches."""
    one = launch(base={"HOME": "/dev/null/home"})
    assert one.environment({"HOME": "/dev/null/home"})["HOME"] == "/opt/glm/.bundler/cache/home"
    assert "caches" not in str(launch(base={"HOME": "/tmp"}).added.get("HOME"))
    assert "HOME" not in launch(base={"HOME": "/tmp"}).added
    assert "/opt/glm/.bundler/cache/home" in next(check_home(one)).line
    assert list(check_home(launch(base={"HOME": "/tmp"}))) == []


def test_speculation_bounds_the_requests() -> None:
    """Doctor says how many are served at once, unless it was told."""
    spec = load_spec(MANIFESTS / "GLM-4.7-FP8.toml")
    assert "48 at once" in next(check_speculation(launch(spec=spec))).line
    told = Wishes(extra=("--max-running-requests", "64"))
    assert list(check_speculation(launch(told, spec=spec))) == [] == list(check_speculation(launch()))
