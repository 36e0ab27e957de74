"""The nodes of a start by a launcher of jobs: how many, which one this is, and the first one's address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bundler.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT = 50000
"""The rendezvous port on the first node, where nothing names one."""
TASKS = ("SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK")
"""Tell which of a node's tasks this is."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """What a launcher tells of the nodes."""

    nnodes: int
    rank: int
    first: str | None
    """``HOST:PORT`` of the first node, where it is told."""


def nodes_of(variables: Mapping[str, str]) -> Nodes:
    """Return the nodes that Slurm's, Open MPI's or torchrun's variables tell of.

    :raises UsageError: none of them is there, one isn't a number, or a node has several tasks.
    """
    known = (
        ("SLURM_STEP_NUM_NODES", "SLURM_NODEID"),
        ("SLURM_NNODES", "SLURM_NODEID"),
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("NNODES", "NODE_RANK"),
        ("GROUP_WORLD_SIZE", "GROUP_RANK"),
        ("WORLD_SIZE", "RANK"),
    )
    found = next(((size, rank) for size, rank in known if size in variables and rank in variables), None)
    if found is None:
        raise UsageError(
            "nothing here says how many nodes there are",
            hint="start it by srun, mpirun or torchrun, one task on each node; "
            "or give --nnodes N --node-rank N --dist-init-addr HOST:PORT",
        )
    _refuse_several_tasks(variables)
    nnodes, rank = (_number(name, variables[name]) for name in found)
    return Nodes(nnodes, rank, _first(variables, slurm=found[0].startswith("SLURM_")))


def first_of(nodelist: str) -> str:
    """Return the first host of Slurm's list: ``gpu[03-04,07],gpu9`` gives ``gpu03``."""
    found = re.match(r"([^,\[]*)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodelist)
    return "".join(part or "" for part in found.groups()) if found else nodelist


def _first(variables: Mapping[str, str], *, slurm: bool) -> str | None:
    nodelist = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
    if slurm and nodelist:
        return f"{first_of(nodelist)}:{PORT}"
    if not (host := variables.get("MASTER_ADDR")):
        return None
    port = _number("MASTER_PORT", variables.get("MASTER_PORT", str(PORT)))
    # torchrun itself listens on its port, and the link between the nodes takes the one below SGLang's.
    port += 2 if "TORCHELASTIC_RUN_ID" in variables else 0
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refuse_several_tasks(variables: Mapping[str, str]) -> None:
    for name in TASKS:
        if variables.get(name, "0") != "0":
            raise UsageError(
                f"several tasks on one node: {name}={variables[name]}",
                hint="one bundler on each node starts all its ranks: srun --ntasks-per-node=1, mpirun "
                "--map-by ppr:1:node, torchrun --nproc-per-node=1",
            )


def _number(name: str, text: str) -> int:
    if not text.isdigit():
        raise UsageError(f"{name}={text!r} is not a number")
    return int(text)
