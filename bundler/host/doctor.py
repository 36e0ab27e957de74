"""The host against everything that serving needs of it, all at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from bundler.host import gpu_checks, system_checks
from bundler.host.needs import needs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bundler.host.facts import HostFacts
    from bundler.host.finding import Finding
    from bundler.host.needs import Needs
    from bundler.manifest import Environment, Model

CHECKS: tuple[Callable[[HostFacts, Needs], Iterator[Finding]], ...] = (
    gpu_checks.check_driver,
    gpu_checks.check_capability,
    gpu_checks.check_count,
    gpu_checks.check_sameness,
    gpu_checks.check_fabric,
    gpu_checks.check_gpu_memory,
    gpu_checks.check_occupied,
    system_checks.check_memory,
    system_checks.check_shm,
    system_checks.check_platform,
    system_checks.check_limits,
    system_checks.check_libraries,
    system_checks.check_versions,
    system_checks.check_cudnn,
    system_checks.check_names,
    system_checks.check_port,
)
"""Every check that needs the host's facts alone, in the order shown."""


def examine(host: HostFacts, needs: Needs) -> list[Finding]:
    """Compare a host with what is wanted of it; changes nothing and raises nothing.

    The same for the host at hand and for a described one, at plan, at unpack and before serving.
    """
    return [finding for check in CHECKS for finding in check(host, needs)]


def examine_all(
    host: HostFacts,
    environments: Sequence[Environment],
    models: Sequence[Model],
    *,
    tp_size: int | None = None,
    port: int | None = None,
) -> list[Finding]:
    """Compare a host with each environment together with each model, each finding once.

    Environments alone, or models alone, are compared by themselves.
    """
    found: dict[tuple[str, str, str], Finding] = {}
    # Environments for other work lie beside those that serve.
    serving = [one for one in environments if one.sglang] or environments
    for environment, model in itertools.product(serving or (None,), models or (None,)):
        needs = needs_of(environment, model, tp_size=tp_size, port=port)
        found |= {(one.group, one.name, one.seen + one.wanted): one for one in examine(host, needs)}
    return list(found.values())
