"""The server's command line and environment, from the manifest, the host and what the user gave."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.errors import UsageError
from bundler.host.fit import DEFAULT_MEM_FRACTION
from bundler.host.needs import choose_tp_size
from bundler.host.network import client_host, interface_towards, split_address
from bundler.host.surroundings import SAFE_PATH, withheld
from bundler.pixi_manifest import PIXI, find_manifest
from bundler.serve import flags
from bundler.serve.environment_checks import can_write
from bundler.serve.server_record import run_folder, secret_path, server_name
from bundler.serve.sglang_versions import matching_variants, version_environment, version_flags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bundler.host.facts import HostFacts
    from bundler.model import FlagValue, LaunchVariant, ModelFacts, ModelSpec
    from bundler.stack import Stack

DEFAULT_HOST = "0.0.0.0"
DEFAULT_PORT = 30000
SHIM = "libcuda"
"""The folder among the caches with a link libcuda.so, which Triton's linker asks for by that name."""


@dataclass(frozen=True, slots=True)
class Software:
    """What serves: an environment of the installation, or an interpreter from elsewhere."""

    environment: str | None
    """The pixi environment's name, or ``None`` with an interpreter from elsewhere."""
    prefix: Path
    """The environment's folder, or the interpreter's own prefix."""
    python: Path
    stack: Stack
    probed: bool = False
    """Whether it is an interpreter from elsewhere, by its own account."""

    @property
    def activated(self) -> Path | None:
        """The folder of the environment to activate, where there is one."""
        return None if self.probed else self.prefix


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and with what."""

    root: Path
    """The installation or the workspace."""
    spec: ModelSpec
    facts: ModelFacts
    weights: Path
    software: Software
    caches: Path
    pixi: bool = False
    """Whether the command is shown as ``pixi run``, the environment not being installed here."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user gave beside the manifest."""

    tp_size: int | None = None
    host: str | None = None
    port: int | None = None
    nnodes: int = 1
    node_rank: int = 0
    dist_init_addr: str | None = None
    extra: Sequence[str] = ()
    """What stood after ``--``."""
    keep_env: Sequence[str] = ()
    """The caller's variables that reach the server though their kind is withheld."""
    allow_launch: Sequence[str] = ()
    """Names that the model's launch may set though they aren't on the lists."""
    key_file: Path | None = None
    """The file with the key that clients must give; it reaches SGLang in a file of flags."""


@dataclass(frozen=True, slots=True)
class ServerLaunch:
    """A server about to be started."""

    target: Served
    wishes: Wishes
    argv: tuple[str, ...]
    added: dict[str, str]
    """Variables that bundler sets."""
    kept: dict[str, str]
    """Variables that bundler would set and the user had set already: the user's values."""
    host: str
    port: int
    tp_size: int
    nnodes: int
    node_rank: int
    dist_init_addr: str | None
    served_name: str
    weights: Path
    mem_fraction: float
    activation: dict[str, str] = field(default_factory=dict)
    """Variables of the environment's activation that differ from the user's."""
    withheld: tuple[str, ...] = ()
    """The user's variables that the server doesn't get."""

    @property
    def folder(self) -> Path:
        """Where the servers of the installation are recorded."""
        return run_folder(self.target.root)

    @property
    def name(self) -> str:
        """The stem of its files there."""
        return server_name(self.port, self.node_rank)

    @property
    def secret(self) -> Path:
        """The file of the flags that must not be seen in the process list: the key."""
        return secret_path(self.folder, self.port)

    @property
    def url(self) -> str:
        """Where a client on this host reaches the server."""
        return f"http://{client_host(self.host)}:{self.port}"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return all variables of the server's process: activation, ours, and the user's over ours."""
        passed = {name: value for name, value in base.items() if name not in self.withheld}
        return {**passed, **self.activation, **self.added, **self.kept}

    def shown(self) -> str:
        """Return the command as one would type it."""
        path = os.environ.get("PATH", "")
        ours = {**self.activation, **self.added}
        words = ["env", *(f"-u {shlex.quote(name)}" for name in self.withheld if name not in ours)]
        for name, value in sorted(ours.items()):
            if name == "PATH" and value.endswith(path) and path:
                words.append(f'PATH={shlex.quote(value.removesuffix(path))}"$PATH"')
            else:
                words.append(f"{name}={shlex.quote(value)}")
        pixi = _pixi_run(self.target) if self.target.pixi else ()
        command = [*pixi, "python", *self.argv[1:]] if pixi else list(self.argv)
        head = " ".join(shlex.quote(word) for word in command[: command.index("-m") + 2])
        lines = [*_pairs(command[command.index("-m") + 2 :])]
        env = " \\\n    ".join(words) + " \\\n  " if len(words) > 1 else ""
        return env + " \\\n    ".join([head, *lines])


def build(
    target: Served, wishes: Wishes, host: HostFacts, base: Mapping[str, str], activation: Mapping[str, str]
) -> ServerLaunch:
    """Build the launch.

    :param host: for the GPUs that are visible and for libcuda.
    :param base: the user's environment, which wins over what bundler would set.
    :param activation: what the server inherits of ``base``, with the pixi environment activated where one is.
    :raises UsageError: arguments that don't fit together.
    """
    users = flags.anchored(flags.parse(wishes.extra), Path.cwd())
    out = withheld(base, wishes.keep_env)
    driver = _driver_path(host, base) if "LD_LIBRARY_PATH" in out else {}
    base = {name: value for name, value in base.items() if name not in out}
    family = host.visible[0].family if host.visible else None
    ours = _our_flags(target, wishes, host, family)

    def chosen(name: str, default: str) -> str:
        return flags.value_of(name, ours, users) or default

    port = _whole("port", chosen("port", str(DEFAULT_PORT)))
    if wishes.key_file is not None:
        ours = {"config": str(secret_path(run_folder(target.root), port)), **ours}
    nnodes, rank = _whole("nnodes", chosen("nnodes", "1")), _whole("node-rank", chosen("node-rank", "0"))
    address = flags.value_of("dist-init-addr", ours, users)
    _check_nodes(nnodes, rank, address)
    variables = driver | _variables(target, host, family, nnodes, address)
    home = {} if base.get("HOME") and can_write(Path(base["HOME"])) is None else _own_home(target)
    return ServerLaunch(
        target=target,
        wishes=wishes,
        argv=(str(target.software.python), "-m", "sglang.launch_server", *flags.merge(ours, users)),
        added={name: value for name, value in variables.items() if name not in base} | home,
        kept={name: base[name] for name, value in variables.items() if base.get(name, value) != value},
        host=chosen("host", DEFAULT_HOST),
        port=port,
        tp_size=_whole("tp-size", chosen("tp-size", "1")),
        nnodes=nnodes,
        node_rank=rank,
        dist_init_addr=address,
        served_name=chosen("served-model-name", target.spec.name),
        weights=Path(chosen("model-path", str(target.weights))),
        mem_fraction=_fraction(chosen("mem-fraction-static", str(DEFAULT_MEM_FRACTION))),
        activation={name: value for name, value in activation.items() if base.get(name) != value},
        withheld=out,
    )


def _own_home(target: Served) -> dict[str, str]:
    """Return a home in place of one that can't be written.

    SGLang keeps there which GPUs reach each other, and without it gives up its own all-reduce.
    """
    return {"HOME": str(target.caches / "home")}


def _driver_path(host: HostFacts, base: Mapping[str, str]) -> dict[str, str]:
    """Keep of LD_LIBRARY_PATH the driver's folder alone, which containers name nowhere else."""
    folder = str(Path(host.libraries.get("libcuda.so.1") or "/").parent)
    named = base["LD_LIBRARY_PATH"].split(os.pathsep)
    return {"LD_LIBRARY_PATH": folder} if folder in named and folder != "/" else {}


def _pixi_run(target: Served) -> tuple[str, ...]:
    """Return what runs a command in a workspace's environment, from the folder where one is."""
    manifest = find_manifest(target.root) or target.root / PIXI
    elsewhere = ("--manifest-path", str(manifest)) if target.root != Path.cwd() else ()
    return ("pixi", "run", "--frozen", *elsewhere, "--environment", target.software.environment or "default")


def prepare(launch: ServerLaunch, host: HostFacts) -> None:
    """Make the caches and the link libcuda.so that Triton's linker needs."""
    for name, value in launch.added.items():
        if Path(value).is_relative_to(launch.target.caches) and name != "CUDA_HOME":
            Path(value).mkdir(parents=True, exist_ok=True)
    library = host.libraries.get("libcuda.so.1")
    if library is None:
        return
    link = launch.target.caches / SHIM / "libcuda.so"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or str(link.readlink()) != library:
        fresh = link.with_name(f"libcuda.so.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(library)
        fresh.replace(link)


def _our_flags(target: Served, wishes: Wishes, host: HostFacts, family: str | None) -> dict[str, FlagValue]:
    """Lay the manifest's flags, its variants, the version's and the user's options over each other."""
    ours: dict[str, FlagValue] = {
        "model-path": str(target.weights),
        "served-model-name": target.spec.served_name or target.spec.name,
        "tp-size": wishes.tp_size or _tp_size(target, host, wishes.nnodes),
        "host": DEFAULT_HOST,
        "port": DEFAULT_PORT,
    }
    ours |= version_flags(target.software.stack.sglang, family, target.facts)
    ours |= target.spec.launch.flags
    for variant in _variants(target, family):
        ours |= variant.flags
    given = {"tp-size": wishes.tp_size, "host": wishes.host, "port": wishes.port}
    ours |= {name: value for name, value in given.items() if value is not None}
    if wishes.nnodes > 1:
        ours |= {"nnodes": wishes.nnodes, "node-rank": wishes.node_rank}
    if wishes.dist_init_addr:
        ours["dist-init-addr"] = wishes.dist_init_addr
    return ours


def _tp_size(target: Served, host: HostFacts, nnodes: int) -> int:
    """Choose from the visible GPUs; where there are none, name the publisher's first choice.

    Where the model's heads aren't known, its files not being here, none but the publisher's sizes is safe.
    """
    sets, visible = target.spec.requires.gpus, len(host.visible)
    if sets and not visible:
        return sets[0].count
    known = [fit.count for fit in sets if fit.count <= visible * nnodes and fit.count % nnodes == 0]
    if known and target.facts.attention_heads is None:
        return max(known)
    return choose_tp_size(visible, target.facts, nnodes)


def _variables(
    target: Served, host: HostFacts, family: str | None, nnodes: int, address: str | None
) -> dict[str, str]:
    """Return the variables bundler wants to set, whoever wins in the end."""
    software = target.software
    variables = SAFE_PATH | version_environment(software.stack.sglang, target.caches, software.prefix)
    if host.libraries.get("libcuda.so.1"):
        variables["TRITON_LIBCUDA_PATH"] = str(target.caches / SHIM)
    if nnodes > 1 and address:
        interface = interface_towards(*split_address(address))
        variables |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    else:
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    variables |= target.spec.launch.env
    for variant in _variants(target, family):
        variables |= variant.env
    return variables


def _variants(target: Served, family: str | None) -> list[LaunchVariant]:
    software = target.software
    return matching_variants(target.spec, software.environment, family, software.stack.sglang)


def _check_nodes(nnodes: int, rank: int, address: str | None) -> None:
    if nnodes > 1 and not address:
        raise UsageError(
            "several nodes need the first one's address",
            hint="--dist-init-addr HOST:PORT, the same on every node",
        )
    if not 0 <= rank < nnodes:
        raise UsageError(f"--node-rank {rank} is not one of {nnodes} nodes", hint="ranks count from 0")


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as problem:
        raise UsageError(f"--{name} {text!r} is not a whole number") from problem


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError as problem:
        raise UsageError(f"--mem-fraction-static {text!r} is not a number") from problem
    if not 0 < value <= 1:
        raise UsageError(f"--mem-fraction-static {text} is not between 0 and 1")
    return value


def _pairs(words: Sequence[str]) -> list[str]:
    """Join each flag with its values, as one line of a typed command."""
    return [" ".join(shlex.quote(word) for word in flag.words) for flag in flags.parse(words)]
