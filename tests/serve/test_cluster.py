"""The nodes as launchers of jobs tell of them."""

import pytest

from bundler.errors import UsageError
from bundler.serve.cluster import Nodes, first_of, nodes_of

from .conftest import Bench

SLURM = {
    "SLURM_NNODES": "4",
    "SLURM_NODEID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "gpu[03-04,07],x",
}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
TORCH = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("variables", "nodes"),
    [
        (SLURM, Nodes(4, 2, "gpu03:50000")),
        (SLURM | {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "b1,b2"}, Nodes(2, 2, "b1:50000")),
        (MPI, Nodes(2, 1, None)),
        (MPI | {"MASTER_ADDR": "fd00::1"}, Nodes(2, 1, "[fd00::1]:50000")),
        (TORCH, Nodes(2, 1, "10.0.0.1:29500")),
        (TORCH | {"TORCHELASTIC_RUN_ID": "x"}, Nodes(2, 1, "10.0.0.1:29502")),
        (TORCH | {"NNODES": "3", "NODE_RANK": "0"}, Nodes(3, 0, "10.0.0.1:29500")),
    ],
)
def test_nodes(variables: dict[str, str], nodes: Nodes) -> None:
    """Number, rank and first address are each launcher's own."""
    assert nodes_of(variables) == nodes


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({}, "nothing here says"),
        (SLURM | {"SLURM_LOCALID": "1"}, "several tasks"),
        (TORCH | {"WORLD_SIZE": "two"}, "not a number"),
    ],
)
def test_refused(variables: dict[str, str], word: str) -> None:
    """What can't be is one message."""
    with pytest.raises(UsageError, match=word):
        nodes_of(variables)


def test_the_first_of_a_list() -> None:
    """Slurm folds names that differ in a number."""
    lists = {"gpu[03-04,07],x": "gpu03", "a": "a", "a,b": "a", "n[1,3]-ib": "n1-ib", "r1n[09-12]": "r1n09"}
    assert {text: first_of(text) for text in lists} == lists


def test_the_whole_of_a_start(bench: Bench) -> None:
    """``srun bundler serve --nnodes auto`` needs no other word of the nodes."""
    variables = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "127.0.0.1"}
    done = bench.run(*bench.serve("--dry-run", "--nnodes", "auto"), **variables)
    assert done.returncode == 0, done.stderr
    assert "--nnodes 2" in done.stdout and "--node-rank 1" in done.stdout
    assert "--dist-init-addr 127.0.0.1:50000" in done.stdout and "NCCL_SOCKET_IFNAME=lo" in done.stdout
    alone = bench.run(*bench.serve("--dry-run", "--nnodes", "auto"))
    assert alone.returncode == UsageError.exit_code and "nothing here says" in alone.stderr
    single = bench.run(
        *bench.serve("--dry-run", "--nnodes", "auto"),
        **variables | {"SLURM_NNODES": "1", "SLURM_NODEID": "0"},
    )
    assert single.returncode == 0 and "--dist-init-addr" not in single.stdout
    assert (
        bench.run("systemd", "--python", bench.python, "--nnodes", "auto").returncode == UsageError.exit_code
    )
    assert bench.run(*bench.serve("--dry-run", "--nnodes", "0")).returncode == UsageError.exit_code
