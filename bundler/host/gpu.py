"""The GPUs as NVML tells of them. A host without the driver or the library is a finding, not an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

DRIVER_FILE = Path("/proc/driver/nvidia/version")
"""Where the kernel's NVIDIA module says its version; also in a container without the driver's libraries."""

MAX_LINKS = 18
"""NVLinks of one GPU at most; asked in turn until one doesn't exist."""

FABRIC_STATES = {0: "not supported", 1: "not started", 2: "in progress", 3: "completed"}


class GpuProcess(msgspec.Struct, frozen=True):
    """A process that holds memory on a GPU."""

    pid: int
    memory: int | None
    """Bytes, or ``None`` where the driver doesn't say (in containers)."""


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU."""

    index: int
    uuid: str = ""
    name: str = ""
    memory: int = 0
    """Bytes in all."""
    free: int = 0
    """Bytes free when it was read."""
    compute_capability: str = ""
    """``9.0``."""
    nvlinks: int = 0
    """Links that are up."""
    nvswitch: bool = False
    """Whether its links end at an NVSwitch."""
    fabric: str | None = None
    """How far the fabric manager got with this GPU, where the GPU has a fabric."""
    mig: bool = False
    processes: tuple[GpuProcess, ...] = ()

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability as numbers; ``(0, 0)`` where unknown."""
        major, _, minor = self.compute_capability.partition(".")
        return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)

    @property
    def family(self) -> str:
        """``ampere``, ``ada``, ``hopper``, ``blackwell``, or ``older``."""
        major, minor = self.capability
        if major >= 10:
            return "blackwell"
        if major == 9:
            return "hopper"
        if major == 8:
            return "ada" if minor == 9 else "ampere"
        return "older"


@dataclass(frozen=True, slots=True)
class Reading:
    """What NVML said."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    driver_cuda: str | None = None
    problem: str | None = None


def read_gpus() -> Reading:
    """Read driver and GPUs through NVML; what can't be read is said in ``problem``."""
    try:
        import pynvml
    except ImportError:
        return Reading(driver=driver_version(), problem="the Python package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as problem:
        return Reading(driver=driver_version(), problem=f"NVML doesn't start: {problem}")
    try:
        return _read(pynvml)
    except pynvml.NVMLError as problem:
        return Reading(driver=driver_version(), problem=f"NVML failed: {problem}")
    finally:
        pynvml.nvmlShutdown()


def driver_version(driver_file: Path = DRIVER_FILE) -> str | None:
    """Return the loaded NVIDIA kernel module's version, such as ``570.86.15``, or ``None``."""
    try:
        text = driver_file.read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"NVRM version:.*?\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else None


def used_memory() -> dict[int, int]:
    """Return the bytes in use on each GPU, by index; empty where they can't be read."""
    return {gpu.index: gpu.memory - gpu.free for gpu in read_gpus().gpus}


def _read(nvml: Any) -> Reading:
    def ask(function: str, *arguments: Any) -> Any:
        """Ask what older drivers, virtual GPUs and containers may refuse."""
        try:
            call: Callable[..., Any] = getattr(nvml, function)
            return call(*arguments)
        except (nvml.NVMLError, AttributeError, TypeError):
            return None

    cuda = ask("nvmlSystemGetCudaDriverVersion_v2")
    gpus = tuple(
        _gpu(index, nvml.nvmlDeviceGetHandleByIndex(index), nvml, ask)
        for index in range(nvml.nvmlDeviceGetCount())
    )
    return Reading(
        gpus=gpus,
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        driver_cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        problem=None if gpus else "the driver sees no GPU",
    )


def _gpu(index: int, handle: Any, nvml: Any, ask: Callable[..., Any]) -> Gpu:
    memory = ask("nvmlDeviceGetMemoryInfo", handle)
    capability = ask("nvmlDeviceGetCudaComputeCapability", handle)
    links = _links(handle, ask)
    mig = ask("nvmlDeviceGetMigMode", handle)
    processes = ask("nvmlDeviceGetComputeRunningProcesses", handle) or []
    return Gpu(
        index=index,
        uuid=_text(ask("nvmlDeviceGetUUID", handle)),
        name=_text(ask("nvmlDeviceGetName", handle)),
        memory=memory.total if memory else 0,
        free=memory.free if memory else 0,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else "",
        nvlinks=len(links),
        nvswitch=getattr(nvml, "NVML_NVLINK_DEVICE_TYPE_SWITCH", 2) in links,
        fabric=_fabric(handle, nvml, ask),
        mig=bool(mig and mig[0]),
        processes=tuple(GpuProcess(one.pid, one.usedGpuMemory) for one in processes),
    )


def _links(handle: Any, ask: Callable[..., Any]) -> list[int]:
    """Return the kind of device at the far end of each link that is up; -1 where it isn't told."""
    kinds: list[int] = []
    for link in range(MAX_LINKS):
        state = ask("nvmlDeviceGetNvLinkState", handle, link)
        if state is None:
            break
        if state:
            kind = ask("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
            kinds.append(-1 if kind is None else kind)
    return kinds


def _fabric(handle: Any, nvml: Any, ask: Callable[..., Any]) -> str | None:
    structure = getattr(nvml, "c_nvmlGpuFabricInfo_t", None)
    if structure is None:
        return None
    from ctypes import byref

    info = structure()
    if ask("nvmlDeviceGetGpuFabricInfo", handle, byref(info)) is None:
        return None
    state = FABRIC_STATES.get(int(info.state), "unknown")
    return None if state == "not supported" else state


def _text(value: Any) -> str:
    """NVML's binding returns bytes in old versions and text in new ones."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
