"""Install the conda packages of one environment: ``python -m bundler.install.conda_child``.

It is told what by JSON on its standard input. A process of its own, so that rattler sees neither the caller's
proxies nor its tokens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec


class Task(msgspec.Struct, frozen=True, kw_only=True):
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


async def install(task: Task) -> int:
    """Install the packages; rattler checks the sha256 of each as it is unpacked.

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


def main() -> int:
    """Do the task and print one line, of success or of failure."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        count = asyncio.run(install(task))
    except KeyboardInterrupt:
        return 130
    except Exception as problem:
        # Whatever rattler raises is this program's answer; the caller finds the cause in it.
        print(f"{type(problem).__name__}: {problem}")
        return 1
    print(f"{task.environment}: {count} conda packages installed")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # rattler's threads may be about to report to the interpreter yet: an orderly end aborts on them at times.
    os._exit(code)
