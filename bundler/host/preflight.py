"""Whether a host can take a bundle: everything that stands in the way, found at once and before any write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bundler.errors import PreflightError
from bundler.host import disk_checks
from bundler.host.gpu_checks import check_driver
from bundler.host.needs import needs_of
from bundler.host.space import needs
from bundler.host.system_checks import check_platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bundler.host.facts import HostFacts
    from bundler.host.finding import Finding
    from bundler.host.space import Need
    from bundler.manifest import Environment, Manifest

WORDS = {"fail": "error", "warn": "warning"}


def preflight(
    manifests: Sequence[Manifest],
    destination: Path,
    host: HostFacts,
    *,
    environments: Sequence[str] | None = None,
    more: Sequence[Need] = (),
) -> list[Finding]:
    """Find all that keeps bundles from being unpacked and installed here. Nothing is left on the disk.

    :param manifests: the bundles that are about to be unpacked.
    :param destination: the installation's folder; needn't exist.
    :param environments: names of the environments that will be installed; ``None`` means all of them, an
        empty sequence none.
    :param more: what else will be written.
    :returns: failures first, then warnings; nothing that is good.
    """
    destination = destination.absolute()
    wanted = [
        environment
        for manifest in manifests
        for environment in manifest.environments
        if environments is None or environment.name in environments
    ]
    seen = disk_checks.try_out(destination)
    findings = [
        *disk_checks.check_path(destination, wanted),
        *disk_checks.check_file_system(seen, destination, wanted),
        *disk_checks.check_space([*needs(manifests, destination, wanted, hard_links=seen.hard_links), *more]),
        *_check_host(host, wanted),
    ]
    bad = (finding for finding in dict.fromkeys(findings) if finding.level != "good")
    return sorted(bad, key=lambda finding: finding.level)


def require(findings: Sequence[Finding], destination: Path) -> list[Finding]:
    """Refuse a host with failures.

    :returns: the warnings.
    :raises PreflightError: one or more findings are failures; all findings are named.
    """
    if any(finding.level == "fail" for finding in findings):
        raise PreflightError(
            "this host can't take the bundle yet; nothing was written",
            findings=[f"{WORDS[finding.level]}: {finding.line}" for finding in findings],
            where=destination,
            hint="mend these and run the same command again; --skip-preflight goes on regardless",
        )
    return list(findings)


def _check_host(host: HostFacts, environments: Sequence[Environment]) -> Iterator[Finding]:
    """Judge what an environment's programs need already when they are installed.

    A driver that is too old is a failure; a host without any may get one before it serves.
    """
    for environment in environments:
        wanted = needs_of(environment, None)
        yield from check_platform(host, wanted)
        if host.driver is not None and wanted.stack.cuda is not None:
            yield from check_driver(host, wanted)
