"""Install the conda packages of one environment: ``python -m bundler.install.conda_child``.

A process of its own, so that rattler sees neither the caller's proxies nor its tokens.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from bundler.install.child import answer_and_exit


class CondaTask(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be installed, from where, to where."""

    lock: str
    """The lock file."""
    environment: str
    platform: str
    """The platform's name in the lock."""
    prefix: str
    """The environment's folder."""
    cache: str
    """rattler's package cache."""
    mirrors: dict[str, str]
    """The loopback mirror's address for each origin."""


async def install(task: CondaTask) -> int:
    """Install the packages; rattler checks the digest of each as it is unpacked.

    :returns: how many packages there are.
    """
    import rattler
    from rattler.networking import Client, MirrorMiddleware

    environment = rattler.LockFile.from_path(Path(task.lock)).environment(task.environment)
    if environment is None:
        raise ValueError(f"the lock has no environment {task.environment}")
    platform = next((one for one in environment.platforms() if one.name == task.platform), None)
    records = environment.conda_repodata_records_for_platform(platform) if platform else None
    if records is None:
        raise ValueError(f"the lock has no packages of {task.environment} for {task.platform}")
    mirrors = {origin: [target] for origin, target in task.mirrors.items()}
    await rattler.install(
        records,
        task.prefix,
        cache_dir=Path(task.cache),
        client=Client([MirrorMiddleware(mirrors)]),
        execute_link_scripts=False,
        show_progress=False,
    )
    return len(records)


if __name__ == "__main__":
    answer_and_exit(CondaTask, lambda task, _: asyncio.run(install(task)))
