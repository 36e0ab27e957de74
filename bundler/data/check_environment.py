"""Checks an environment from inside, run by that environment's interpreter: bundler isn't in it.

Its argument is JSON: ``wanted``, modules to import; ``if_there``, modules to import where they exist;
``compute``, whether to try what torch computes with too; ``loaded``, whether to say which files were loaded.
"""

import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import traceback

MARK = "BUNDLER-CHECK "


def report(name, check):
    """Run one part and print its outcome as a line of JSON, after a line that says it is begun."""
    print(MARK + json.dumps({"name": name}), flush=True)
    began, versions = time.monotonic(), {}
    try:
        seen, passed = check(), True
        if isinstance(seen, dict):
            seen, versions = f"{name.partition(' ')[2]} {next(iter(seen.values()))}".strip(), seen
    except BaseException:
        seen, passed = traceback.format_exc(), False
    outcome = {
        "name": name,
        "passed": passed,
        "seconds": round(time.monotonic() - began, 2),
        "seen": str(seen),
        "versions": versions,
    }
    print("\n" + MARK + json.dumps(outcome), flush=True)
    return passed


def import_one(name):
    """Import a module and return its version, an empty one where it states none."""
    module = importlib.import_module(name)
    versions = {name: str(getattr(module, "__version__", None) or "")}
    if name == "torch":
        versions["torch.version.cuda"] = str(module.version.cuda)
        versions["torch.cuda.device_count"] = str(module.cuda.device_count())
    return versions


def is_there(name):
    """Return whether a module exists; one whose package is broken does, and says so when it is imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as problem:
        return not f"{name}.".startswith(f"{problem.name}.")
    except Exception:
        return True


def loaded():
    """Return the files that are mapped into this process, a line each."""
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        rows = (line.rstrip("\n").split(maxsplit=5) for line in maps)
        return "\n".join(sorted({row[5] for row in rows if len(row) == 6 and row[5].startswith("/")}))


def devices():
    """Return what torch sees, as the team's own check prints it."""
    import torch

    available = torch.cuda.is_available()
    count = torch.cuda.device_count() if available else 0
    return f"torch.version.cuda {torch.version.cuda}, cuda_available {available}, device_count {count}"


def compile_kernel():
    """Compile a Triton kernel, run it on each GPU and compare its result."""
    import torch
    import triton
    import triton.language as tl

    if not torch.cuda.is_available():
        return "no GPU: nothing to compile for"

    @triton.jit
    def add(x_pointer, y_pointer, out_pointer, size, BLOCK: tl.constexpr):  # noqa: N803
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = offsets < size
        x = tl.load(x_pointer + offsets, mask=mask)
        y = tl.load(y_pointer + offsets, mask=mask)
        tl.store(out_pointer + offsets, x + y, mask=mask)

    for index in range(torch.cuda.device_count()):
        with torch.cuda.device(index):
            x = torch.arange(1000, device="cuda", dtype=torch.float32)
            out = torch.empty_like(x)
            add[(8,)](x, x, out, 1000, BLOCK=128)
            if not torch.equal(out, x + x):
                raise AssertionError(f"GPU {index} computed a wrong sum")
    return f"triton {triton.__version__}: compiled, right on {torch.cuda.device_count()} GPUs"


def reduce_rank(rank, world, meeting, backend):
    """Take part in an all-reduce as one rank."""
    import torch
    import torch.distributed as dist

    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=world)
    value = torch.full((1 << 20,), float(rank + 1), device=device)
    dist.all_reduce(value)
    wanted = world * (world + 1) / 2
    if not torch.all(value == wanted).item():
        raise AssertionError(f"rank {rank}: the sum is {value[0].item()}, wanted {wanted}")
    dist.destroy_process_group()


def all_reduce():
    """Reduce over all visible GPUs by NCCL, each in a process of its own; over two CPU ranks without GPUs."""
    import torch
    import torch.multiprocessing as multiprocessing

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    backend, world = ("nccl", gpus) if gpus else ("gloo", 2)
    # A file, since a port that was free a moment ago may be another's by now.
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(reduce_rank, args=(world, f"{folder}/ranks", backend), nprocs=world)
    return f"{backend}: right sum over {world} ranks"


def main():
    """Run all parts; exit 1 if one failed."""
    task = json.loads(sys.argv[1])
    modules = task["wanted"] + [name for name in task["if_there"] if is_there(name)]
    passed = [report(f"import {name}", lambda name=name: import_one(name)) for name in modules]
    if task["compute"] and "torch" in modules:
        passed.append(report("devices", devices))
        passed.append(report("triton kernel", compile_kernel))
        passed.append(report("all-reduce", all_reduce))
    if task["loaded"]:
        passed.append(report("loaded", loaded))
    sys.stdout.flush()
    # What libraries leave behind at exit is no part of the check.
    os._exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
