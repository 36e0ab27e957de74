"""Checks of the driver and the GPUs: pure functions of what the host has and what is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.common.units import size_text
from bundler.host.drivers import branches
from bundler.host.finding import fail, good, warn
from bundler.host.fit import GB, fit_text, share
from bundler.host.needs import divides, numbers, version_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundler.host.facts import HostFacts
    from bundler.host.finding import Finding
    from bundler.host.gpu import Gpu
    from bundler.host.needs import Needs

TORCH_CAPABILITIES = {"12.6": ((5, 0), (9, 0)), "12.8": ((7, 0), (12, 0)), "13.0": ((7, 5), (12, 1))}
"""The oldest and newest compute capability that torch's wheels for a CUDA version hold code for."""

BALANCE = 0.9
"""SGLang refuses to start when a GPU has less than this share of another's free memory."""

NOMINAL = 0.95
"""The share of its nominal memory that a GPU has at the least."""

FEW_TOKENS = 8192
"""A KV cache of fewer tokens serves one short conversation at a time."""


def check_driver(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The driver's branch and its CUDA against the CUDA that torch was built for."""
    name = "NVIDIA driver"
    oldest, own = branches(needs.stack.cuda) if needs.stack.cuda else (None, None)
    wanted = f"branch {oldest} or newer for CUDA {needs.stack.cuda}" if oldest else "a driver with NVML"
    if host.driver is None:
        fix = "install the driver on the host; it can't travel in a bundle"
        yield fail("driver", name, host.gpu_problem or "none", wanted, fix)
        return
    seen = f"{host.driver} (CUDA {host.driver_cuda or 'unknown'})"
    if needs.stack.cuda is None:
        yield good("driver", name, seen)
        return
    asked, offered = numbers(needs.stack.cuda), numbers(host.driver_cuda)
    branch = numbers(host.driver)[:1]
    if branch < (oldest or 0,) or (offered and offered[0] < asked[0]):
        yield fail("driver", name, seen, wanted, f"update the driver to branch {own or oldest} or newer")
    elif offered < asked if offered else branch < (own or 0,):
        fix = "it runs by minor-version compatibility; kernels shipped as PTX don't: update the driver" + (
            f" to branch {own} or newer" if own else ""
        )
        yield warn("driver", name, seen, f"CUDA {needs.stack.cuda}, which the environment was built for", fix)
    else:
        yield good("driver", name, seen, f"CUDA {needs.stack.cuda}")


def check_capability(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Each GPU's generation against the code in torch's build and the model's own wish."""
    name = "compute capability"
    for text in sorted({gpu.compute_capability for gpu in host.visible if gpu.compute_capability}):
        have = numbers(text)
        lowest, highest = TORCH_CAPABILITIES.get(needs.stack.cuda or "", ((0, 0), (99, 0)))
        least = numbers(needs.requires.min_compute_capability)
        if have > highest:
            fix = "pack an environment built for a newer CUDA: --env cu128"
            yield fail(
                "driver", name, text, f"at most {_dotted(highest)} (torch for CUDA {needs.stack.cuda})", fix
            )
        elif have < lowest:
            wanted = f"at least {_dotted(lowest)} (torch for CUDA {needs.stack.cuda})"
            yield fail("driver", name, text, wanted, "serve on newer GPUs")
        elif least and have < least:
            fix = "serve it on newer GPUs, or serve another model here"
            yield fail("driver", name, text, f"at least {_dotted(least)} for {needs.model}", fix)
        elif have >= (10, 0) and host.nvcc is None and version_in(needs.stack.sglang, "<0.5.11"):
            fix = "install the CUDA toolkit (nvcc) on the host; or serve on Hopper or Ampere"
            yield warn("driver", name, text, "9.0: newer GPUs are unproven without nvcc", fix)
        elif have < (8, 0):
            yield warn("driver", name, text, "8.0 or newer", "SGLang's kernels for older GPUs are few")
        else:
            yield good("driver", name, text)


def check_count(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The number of GPUs against tp-size, and tp-size against the model's heads."""
    if not host.gpus:
        # Where there is no driver, or nothing of it in this container, that is the one thing to mend.
        if host.driver is not None and host.libraries.get("libcuda.so.1"):
            fix = f"{host.gpu_problem or 'the driver sees none'}; nvidia-smi and dmesg say more"
            yield fail("gpus", "GPUs", "none", "at least one", fix)
        return
    tp_size = needs.tp_on(len(host.visible))
    here = -(-tp_size // needs.nnodes)
    seen = f"{len(host.visible)} visible of {len(host.gpus)}"
    if host.cuda_visible_devices is not None:
        seen += f" (CUDA_VISIBLE_DEVICES={host.cuda_visible_devices})"
    wanted = f"{here} for tp-size {tp_size}" + (f" on {needs.nnodes} nodes" if needs.nnodes > 1 else "")
    if len(host.visible) < here:
        yield fail("gpus", "GPUs", seen, wanted, "a smaller --tp-size, or make more GPUs visible")
    elif tp_size % needs.nnodes:
        yield fail("gpus", "GPUs", seen, f"a tp-size divisible by {needs.nnodes} nodes", "another --tp-size")
    else:
        yield good("gpus", "GPUs", seen, wanted)
    named = [word for word in (host.cuda_visible_devices or "").split(",") if word.strip()]
    if len(named) > len(host.visible) > 0:
        fix = "name GPUs that are there, each once: CUDA ends the list at the first that isn't"
        yield warn("gpus", "CUDA_VISIBLE_DEVICES", seen, f"{len(named)} GPUs", fix)
    heads, kv = needs.facts.attention_heads, needs.facts.kv_heads
    if heads is None:
        return
    split = f"{heads} heads, {kv or heads} KV heads"
    if divides(needs.facts, tp_size):
        yield good("gpus", "attention heads", split, f"divisible by tp-size {tp_size}")
    else:
        sizes = ", ".join(str(size) for size in range(1, tp_size + 1) if divides(needs.facts, size))
        yield fail("gpus", "attention heads", split, f"divisible by tp-size {tp_size}", f"--tp-size {sizes}")


def check_sameness(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Whether the GPUs that work together are alike, whole and linked."""
    used = used_gpus(host, needs)
    if not used:
        return
    names = sorted({gpu.name for gpu in used})
    if len({gpu.compute_capability for gpu in used}) > 1:
        fix = "choose alike GPUs with CUDA_VISIBLE_DEVICES"
        yield fail("gpus", "kind of GPUs", ", ".join(names), "one generation", fix)
    elif len(names) > 1:
        fix = "the slowest sets the pace; choose alike GPUs with CUDA_VISIBLE_DEVICES"
        yield warn("gpus", "kind of GPUs", ", ".join(names), "one kind", fix)
    else:
        yield good("gpus", "kind of GPUs", f"{len(used)} x {names[0]}")
    if any(gpu.mig for gpu in used):
        yield fail("gpus", "MIG", "on", "off", "nvidia-smi -mig 0, by the host's administrator")
    if len(used) > 1 and not all(gpu.nvlinks for gpu in used):
        text = "tensor parallelism over PCIe is slower; --disable-custom-all-reduce where it fails at capture"
        yield warn("gpus", "NVLink", "not on every GPU", "links between the GPUs", text)
    elif len(used) > 1:
        yield good("gpus", "NVLink", f"{min(gpu.nvlinks for gpu in used)} links up on each GPU")


def check_fabric(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """The fabric manager, where the GPUs hang on NVSwitch."""
    used = used_gpus(host, needs)
    states = {gpu.fabric for gpu in used if gpu.fabric}
    if len(used) < 2 or not (any(gpu.nvswitch for gpu in used) or states):
        return
    name, fix = "fabric manager", "systemctl start nvidia-fabricmanager (its version must be the driver's)"
    if states and states != {"completed"}:
        yield fail("gpus", name, f"state: {', '.join(sorted(states))}", "completed", fix)
    elif states or host.fabric_manager:
        yield good("gpus", name, "completed" if states else "runs", "with NVSwitch")
    else:
        yield warn("gpus", name, "not seen (in a container it may run outside)", "with NVSwitch", fix)


def check_gpu_memory(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Free memory of each GPU against its share of the weights, and what is left for the KV cache."""
    used = used_gpus(host, needs)
    if not used:
        return
    if not needs.facts.weight_bytes:
        yield from _against_publisher(used, host, needs)
        return
    tp_size, least = needs.tp_on(len(host.visible)), min(used, key=lambda gpu: gpu.free)
    part = share(needs.facts, tp_size, least.free, needs.mem_fraction)
    seen = f"{size_text(least.free)} free of {size_text(least.memory)} on GPU {least.index}"
    least_free = part.weights / needs.mem_fraction
    wanted = f"{size_text(least_free)} ({size_text(part.weights)} of weights / {needs.mem_fraction:g})"
    if part.room <= 0:
        fits = least.memory * needs.mem_fraction > part.weights
        fix = "free the GPUs" if fits else needs.requires.advice or "more GPUs, larger ones, or an FP8 model"
        yield fail("gpus", "GPU memory", seen, wanted, fix)
    elif part.tokens is not None and part.tokens < FEW_TOKENS:
        fix = "more or larger GPUs; a longer request than that is refused"
        yield warn("gpus", "GPU memory", f"{seen}: a KV cache of {part.tokens:,} tokens", wanted, fix)
    else:
        room_text = f": a KV cache of about {part.tokens:,} tokens" if part.tokens is not None else ""
        yield good("gpus", "GPU memory", seen + room_text, wanted)


def _against_publisher(used: tuple[Gpu, ...], host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Hold the GPUs against the sets the manifest names, where the model's files aren't here to count."""
    sets = needs.requires.gpus
    if not sets:
        return
    each, count = min(gpu.memory for gpu in used), needs.tp_on(len(host.visible))
    seen, wanted = f"{count} × {size_text(each)}", " or ".join(fit_text(fit) for fit in sets)
    # A GPU has a little less or more than it is sold as.
    if count * each < NOMINAL * min(fit.count * fit.memory_gb * GB for fit in sets):
        fix = needs.requires.advice or "more GPUs, or larger ones"
        yield fail("gpus", "GPU memory", seen, wanted, fix)
    else:
        yield good("gpus", "GPU memory", seen, wanted)


def check_occupied(host: HostFacts, needs: Needs) -> Iterator[Finding]:
    """Whether something else holds memory on the GPUs that are to serve."""
    used = used_gpus(host, needs)
    if not used:
        return
    name = "occupied GPUs"
    holders = [f"GPU {gpu.index}: pid {one.pid}" for gpu in used for one in gpu.processes]
    most, least = max(gpu.free for gpu in used), min(used, key=lambda gpu: gpu.free)
    who = ", ".join(holders) or "no process is told"
    if least.free < BALANCE * most:
        seen = f"GPU {least.index} has {size_text(least.free)} free, another {size_text(most)}; {who}"
        fix = "end what runs there, or leave that GPU out with CUDA_VISIBLE_DEVICES"
        yield fail("gpus", name, seen, "about the same free memory on each", fix)
    elif holders:
        yield warn("gpus", name, who, "none", "end what runs there, or lower --mem-fraction-static")
    else:
        yield good("gpus", name, "none")


def used_gpus(host: HostFacts, needs: Needs) -> tuple[Gpu, ...]:
    """Return the GPUs that the server will take on this node: the first of those visible."""
    return host.visible[: -(-needs.tp_on(len(host.visible)) // needs.nnodes)]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
